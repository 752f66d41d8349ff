"""Parts of a cluster die in the middle of a study, for real: it ends as if nothing had happened.

On one worker the order of results is that of the study inline, so that everything must be equal; on several it must be
complete, within its budget, and without a segment that ran twice.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from autolora.driver import RunDirectoryError
from autolora.study.directory import read_study
from tests.support.cluster_runs import Disturber, kill_a_worker, nobody_trains_within, tune
from tests.support.outcome import outcome
from tests.support.postgres import PASSWORD

pytest.importorskip("ray")
pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple:
    folder = tmp_path_factory.mktemp("undisturbed")
    tune(folder, executor="inline")
    return outcome(folder)


@pytest.fixture
def database(postgres, monkeypatch) -> str:
    """A new one; its password is where libpq looks, as the run directory does not record it."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return postgres.new_database()


def check_complete(folder: Path) -> None:
    table, plan = read_study(folder)
    assert not any(trial.pending for trial in table.trials)
    assert all(table.spent(name) <= plan.budget + 1e-9 for name in plan.variants)
    assert all(table.complete(name) for name in plan.variants)


def test_a_study_on_one_worker_is_the_study_inline(undisturbed, tmp_path):
    """Where nothing dies: what the others are held against."""
    tune(tmp_path)
    assert outcome(tmp_path) == undisturbed


@pytest.mark.faults
def test_a_worker_killed_amid_segments_costs_a_checkpoint_interval_at_most(undisturbed, tmp_path):
    disturber = Disturber(kill_a_worker, at=(2, 6))
    tune(tmp_path, callbacks=[disturber])
    assert disturber.done
    assert outcome(tmp_path) == undisturbed
    assert disturber.repeated() <= 1
    table, _ = read_study(tmp_path)
    assert 1 <= sum(trial.lost for trial in table.trials) <= 2


@pytest.mark.faults
def test_a_worker_that_hangs_is_killed_and_its_segment_goes_on(undisturbed, tmp_path):
    disturber = Disturber(lambda: kill_a_worker(signal.SIGSTOP))
    tune(tmp_path, callbacks=[disturber], resources={"stall_minutes": 0.5})
    assert disturber.done
    assert outcome(tmp_path) == undisturbed
    assert nobody_trains_within(30)


@pytest.mark.faults
def test_a_node_that_is_removed_takes_nothing_with_it(cluster, second_node, tmp_path):
    disturber = Disturber(lambda: cluster.remove_node(second_node, allow_graceful=False))
    tune(tmp_path, callbacks=[disturber])
    assert disturber.done
    check_complete(tmp_path)


@pytest.mark.faults
def test_a_second_driver_is_refused(tmp_path):
    refused = []

    def second() -> None:
        with pytest.raises(RunDirectoryError, match="in use by another process"):
            tune(tmp_path, executor="inline")
        refused.append(True)

    tune(tmp_path, callbacks=[Disturber(second)], budget=1)
    assert refused


def _drive(folder: str, address: str, overrides: dict) -> None:
    """A driver in a process of its own, connected to the cluster."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="warning")
    tune(Path(folder), **overrides)


def driver(folder: Path, cluster, **overrides) -> multiprocessing.Process:
    process = multiprocessing.get_context("spawn").Process(
        target=_drive, args=(str(folder), cluster.address, overrides)
    )
    process.start()
    return process


def amid_a_segment(checkpoints: Path, trials: int = 2) -> None:
    """Wait until some trials have begun and the newest is being trained."""
    deadline = time.monotonic() + 120
    while len(list(checkpoints.glob("trials/*/step-*"))) < trials + 2:
        assert time.monotonic() < deadline, "nothing was trained"
        time.sleep(0.05)


def kill_driver_amid(process: multiprocessing.Process, checkpoints: Path, how=signal.SIGKILL) -> None:
    amid_a_segment(checkpoints)
    os.kill(process.pid, how)
    process.join(60)
    assert process.exitcode not in (0, None)


@pytest.mark.faults
def test_a_driver_killed_and_started_again_goes_on(cluster, undisturbed, tmp_path):
    kill_driver_amid(driver(tmp_path, cluster), tmp_path)
    assert nobody_trains_within(30)
    tune(tmp_path)
    assert outcome(tmp_path) == undisturbed


@pytest.mark.faults
def test_a_checkpoint_cut_short_is_passed_over(cluster, undisturbed, tmp_path):
    kill_driver_amid(driver(tmp_path, cluster), tmp_path)
    assert nobody_trains_within(30)
    newest = max((tmp_path / "trials").glob("*/step-*"), key=lambda path: path.stat().st_mtime)
    (weights,) = newest.glob("*.safetensors")
    os.truncate(weights, weights.stat().st_size // 2)
    tune(tmp_path)
    assert outcome(tmp_path) == undisturbed


@pytest.mark.faults
def test_ctrl_c_leaves_a_checkpoint_and_nobody_training(cluster, undisturbed, tmp_path):
    kill_driver_amid(driver(tmp_path, cluster), tmp_path, how=signal.SIGINT)
    assert nobody_trains_within(30)
    tune(tmp_path)
    assert outcome(tmp_path) == undisturbed


@pytest.mark.faults
def test_a_driver_elsewhere_goes_on_from_postgresql_and_shared_checkpoints(cluster, undisturbed, tmp_path, database):
    shared = tmp_path / "shared"
    terms = {"storage": database, "checkpoints": str(shared)}
    kill_driver_amid(driver(tmp_path / "here", cluster, **terms), shared)
    assert nobody_trains_within(30)
    tune(tmp_path / "elsewhere", **terms)
    assert outcome(tmp_path / "elsewhere") == undisturbed


@pytest.mark.faults
def test_postgresql_restarted_amid_the_study_loses_nothing(undisturbed, tmp_path, postgres, database):
    def restart() -> None:
        postgres.crash()
        time.sleep(2)
        postgres.start()

    disturber = Disturber(restart, at=(3, 8))
    tune(tmp_path, callbacks=[disturber], storage=database)
    assert disturber.done
    assert outcome(tmp_path) == undisturbed


@pytest.mark.faults
def test_nothing_is_lost_where_everything_happens_at_once(cluster, second_node, tmp_path):
    disturber = Disturber(kill_a_worker, at=(3, 8, 13, 18))
    tune(tmp_path, callbacks=[disturber], budget=4, confirm="auto")
    check_complete(tmp_path)
