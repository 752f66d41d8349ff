"""Commands on a Ray cluster: the contract of executors, workers and commands that are killed, output as life."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

import autolora
from autolora.execution import Executor
from autolora.study.directory import read_study
from tests.execution.conftest import _quick_pulse, cluster  # noqa: F401  # fixtures
from tests.support.cluster_runs import Disturber, kill_a_worker, workers
from tests.support.commands import SCORES, TRAINS, command_spec
from tests.support.executor_contract import ExecutorContract
from tests.support.outcome import outcome
from tests.support.processes import marked
from tests.trainers.command.test_command_kill import check_nothing_is_repeated, kill

pytest.importorskip("ray")

from autolora.execution.inline import InlineExecutor
from autolora.execution.ray_tune import RayTuneExecutor


class TestCommandsInline(ExecutorContract):
    @pytest.fixture(scope="class")
    def spec(self):
        return command_spec()

    @pytest.fixture(scope="class")
    def executor(self, trainer) -> Executor:
        executor = InlineExecutor()
        executor.start(trainer)
        return executor


@pytest.mark.faults
class TestCommandsOnRay(ExecutorContract):
    @pytest.fixture(scope="class")
    def spec(self):
        return command_spec()

    @pytest.fixture(scope="class")
    def executor(self, cluster, spec, folder, trainer) -> Executor:  # noqa: F811
        executor = RayTuneExecutor(spec, folder)
        executor.start(trainer)
        yield executor
        executor.close()


def tune(folder: Path, executor: str, callbacks=(), pause: float = 0.15, **settings):
    command = f"{TRAINS} --pause {pause} --starts {folder / 'starts'}"
    spec = command_spec(command, **{"budget": 2.5, "confirm": 0, **settings})
    return autolora.tune(spec=spec, dir=folder / "run", executor=executor, callbacks=callbacks)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    tune(folder, "inline", pause=0)
    return outcome(folder / "run")


@pytest.mark.faults
@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_takes_its_command_with_it_and_the_trial_goes_on(undisturbed, tmp_path):
    disturber = Disturber(kill_a_worker, at=(1, 4))
    tune(tmp_path, "ray", [disturber])
    assert disturber.done
    assert outcome(tmp_path / "run") == undisturbed
    check_nothing_is_repeated(tmp_path)
    assert 1 <= sum(trial.lost for trial in read_study(tmp_path / "run")[0].trials) <= 2
    assert marked(tmp_path) == []


@pytest.mark.faults
@pytest.mark.usefixtures("cluster")
def test_a_command_that_is_killed_leaves_its_worker_sound(undisturbed, tmp_path):
    pids = set()

    def disturb() -> bool:
        pids.update(each.pid for each in workers())
        found = marked(tmp_path)
        kill(*found)
        return bool(found)

    lost = []

    class Losses(autolora.Callback):
        def on_segment_end(self, search, job, ended) -> None:
            if type(ended).__name__ == "LostWorker":
                lost.append(ended)
            pids.update(each.pid for each in workers())

    disturber = Disturber(disturb, at=(1, 4))
    tune(tmp_path, "ray", [disturber, Losses()])
    assert disturber.done
    assert outcome(tmp_path / "run") == undisturbed
    check_nothing_is_repeated(tmp_path)
    assert lost
    assert all("killed by SIGKILL" in each.reason and each.worker for each in lost)
    assert len(pids) == 1  # the same worker throughout


def _drive(folder: str, address: str) -> None:
    """A driver in a process of its own, connected to the cluster."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="warning")
    tune(Path(folder), "ray")


@pytest.mark.faults
def test_a_driver_that_is_killed_takes_the_commands_of_its_workers_with_it(cluster, undisturbed, tmp_path):  # noqa: F811
    spawned = multiprocessing.get_context("spawn")
    process = spawned.Process(target=_drive, args=(str(tmp_path), cluster.address))
    process.start()
    deadline = time.monotonic() + 60
    while not ((tmp_path / "starts").exists() and (tmp_path / "starts").read_text().count("step") >= 4):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while marked(tmp_path):
        assert time.monotonic() < deadline, "a command outlived its driver and worker"
        time.sleep(0.1)
    tune(tmp_path, "ray")
    assert outcome(tmp_path / "run") == undisturbed
    check_nothing_is_repeated(tmp_path)


@pytest.mark.faults
@pytest.mark.usefixtures("cluster")
def test_a_command_that_prints_is_not_taken_for_stalled(tmp_path):
    command = f"for i in 1 2 3 4 5 6 7 8 9 10; do echo .; sleep 0.5; done; {SCORES}"
    spec = command_spec(command, trainer={"early_stop": False}, budget=1, **{"resources.stall_minutes": 2.5 / 60})
    result = autolora.tune(spec=spec, dir=tmp_path, executor="ray")
    assert result["lora"].value == 2.5
    assert sum(trial.lost for trial in read_study(tmp_path)[0].trials) == 0
