"""The examples of two processes a trial: whatever is killed, the study ends equal to the undisturbed one."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shlex
import sys
from pathlib import Path

import psutil
import pytest

import autolora
from autolora import spec as specs
from tests.execution.conftest import _quick_pulse, cluster  # noqa: F401  # fixtures
from tests.support.cluster_runs import Disturber, kill_a_worker
from tests.support.outcome import lost, outcome
from tests.support.processes import is_guard, kill, kill_a_rank, marked

pytestmark = pytest.mark.faults
EXAMPLES = Path(__file__).parents[3] / "examples"
LAUNCHER = f"{shlex.quote(sys.executable)} -m torch.distributed.run"
AT = (3,)
"""Steps heard of when something is killed: of four to the first rung, each with a checkpoint."""


def tune(name: str, folder: Path, executor: str = "inline", callbacks=()) -> None:
    file = EXAMPLES / f"{name}.yaml"
    command = specs.load(file).trainer.command.replace("torchrun", LAUNCHER, 1).replace("examples/", f"{EXAMPLES}/")
    terms = {"budget": 1, "confirm": 0, "rungs": [0.5, 1.0], "trainer.command": command, "trainer.examples": 64}
    few = {"space.batch_size": [8], "prior": "laws"}
    autolora.tune(spec=specs.load(file, **terms, **few), dir=folder, executor=executor, callbacks=callbacks)


@pytest.fixture(scope="module", autouse=True)
def _compiled_here(tmp_path_factory):
    """What DeepSpeed compiles on first use; where a process was killed meanwhile, a lock is left that nobody takes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
        yield


@pytest.fixture(scope="module", params=["torchrun_ddp", "torchrun_fsdp2", "torchrun_deepspeed"])
def example(request, tmp_path_factory):
    """Name of an example, and what comes of it when nothing is killed."""
    if request.param == "torchrun_deepspeed" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    tune(request.param, folder)
    return request.param, outcome(folder)


def check(folder: Path, undisturbed, workers: int | None = None) -> None:
    assert outcome(folder) == undisturbed
    assert marked(folder) == []
    if workers is not None:
        assert lost(folder) == workers


def test_a_process_of_a_trial_is_killed(example, tmp_path):
    name, undisturbed = example
    disturber = Disturber(lambda: kill_a_rank(tmp_path, name), at=AT)
    tune(name, tmp_path, callbacks=[disturber])
    assert disturber.done
    check(tmp_path, undisturbed, workers=1)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("victim", ["a process", "the worker"])
def test_a_process_or_its_worker_is_killed_on_ray(example, tmp_path, victim):
    name, undisturbed = example
    disturber = Disturber(kill_a_worker if victim == "the worker" else lambda: kill_a_rank(tmp_path, name), at=AT)
    tune(name, tmp_path, "ray", callbacks=[disturber])
    assert disturber.done
    check(tmp_path, undisturbed, workers=1)


def _drive(name: str, folder: str, address: str | None, with_guard: bool) -> None:
    """A driver in a process of its own, which is killed."""
    if address is not None:
        import ray

        ray.init(address=address, log_to_driver=False, logging_level="warning")

    def die() -> None:
        children = psutil.Process().children()
        kill(*(each for each in children if with_guard and is_guard(each)), psutil.Process(os.getpid()))

    tune(name, Path(folder), "inline" if address is None else "ray", [Disturber(die, at=AT)])


def killed(*args) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_drive, args=args)
    process.start()
    process.join()
    assert process.exitcode == -9


@pytest.mark.parametrize("with_guard", [False, True], ids=["alone", "with the guard of its command"])
def test_the_driver_is_killed(example, tmp_path, with_guard):
    name, undisturbed = example
    killed(name, str(tmp_path), None, with_guard)
    tune(name, tmp_path)
    check(tmp_path, undisturbed)


def test_the_driver_is_killed_on_ray(example, cluster, tmp_path):  # noqa: F811
    name, undisturbed = example
    killed(name, str(tmp_path), cluster.address, False)
    tune(name, tmp_path, "ray")
    check(tmp_path, undisturbed)
