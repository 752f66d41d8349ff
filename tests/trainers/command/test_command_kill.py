"""SIGKILL at random points of a study of commands: it ends as an undisturbed one, and nothing is trained twice.

The command has a checkpoint after every step, so that an interval is one step.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest

import autolora
from autolora.driver.loop import WorkersError
from tests.support.commands import TRAINS, command_spec
from tests.support.outcome import outcome
from tests.support.processes import FORKED, is_guard, kill, marked

SHORTEST, LONGEST = 0.1, 0.35
"""A life, as a share of what the undisturbed run takes."""
MOST_KILLS = 25


def terms(starts: Path) -> dict:
    spec = command_spec(f"{TRAINS} --pause 0.02 --starts {starts}", budget=2.5, confirm=1, variants=["lora", "pissa"])
    return {"spec": spec}


def _tune(folder: str) -> None:
    """Runs in a process of its own."""
    autolora.tune(**terms(Path(folder) / "starts"), dir=Path(folder) / "run")


def start(folder: Path) -> multiprocessing.Process:
    process = FORKED.Process(target=_tune, args=(str(folder),))
    process.start()
    return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, float]:
    """The folder of a run that nobody killed, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    imports = FORKED.Process(target=int)
    imports.start()
    imports.join()
    began = time.monotonic()
    process = start(folder)
    process.join()
    assert process.exitcode == 0
    return folder, time.monotonic() - began


def check_nothing_is_repeated(folder: Path) -> None:
    lines = [line.split() for line in (folder / "starts").read_text().splitlines()]
    steps = [tuple(line) for line in lines if line[0] == "step"]
    assert len(steps) == len(set(steps))
    stops = defaultdict(list)
    for line in lines:
        if line[0] == "start":
            stops[line[1]].append(int(line[3]))
    assert all(each == sorted(each) for each in stops.values()), "a segment that had ended was started again"


def _with_all(process: multiprocessing.Process) -> list[psutil.Process]:
    driver = psutil.Process(process.pid)
    return [driver, *driver.children(recursive=True)]


@pytest.mark.parametrize(
    "victims",
    [
        pytest.param("the driver", marks=pytest.mark.slow),
        pytest.param("driver and guard", marks=pytest.mark.slow),
        "driver, guard and command",
    ],
)
def test_drivers_killed_at_random_points(undisturbed, tmp_path, victims):
    whole, seconds = undisturbed
    rng = random.Random(victims)
    kills = 0
    while True:
        process = start(tmp_path)
        process.join(seconds * rng.uniform(SHORTEST, LONGEST) if kills < MOST_KILLS else None)
        if process.exitcode == 0:
            break
        assert process.exitcode is None, "it failed by itself"
        family = _with_all(process)
        if victims == "the driver":
            kill(family[0])
        elif victims == "driver and guard":
            kill(family[0], *(each for each in family[1:] if is_guard(each)))
        else:
            kill(*family)
        process.join()
        kills += 1
    assert kills >= 3
    assert outcome(tmp_path / "run") == outcome(whole / "run")
    check_nothing_is_repeated(tmp_path)
    assert marked(tmp_path) == []


def test_commands_killed_at_random_points(undisturbed, tmp_path):
    whole, seconds = undisturbed
    rng = random.Random(4)
    over, kills = threading.Event(), []

    def killer() -> None:
        while len(kills) < MOST_KILLS and not over.wait(rng.uniform(0.2, 0.1 * seconds)):
            found = marked(tmp_path)
            kill(*found)
            kills.extend(found)

    thread = threading.Thread(target=killer)
    process = start(tmp_path)
    thread.start()
    process.join()
    over.set()
    thread.join()
    assert process.exitcode == 0
    assert len(kills) >= 3
    assert outcome(tmp_path / "run") == outcome(whole / "run")
    check_nothing_is_repeated(tmp_path)


def test_ctrl_c_at_the_driver_ends_its_command_and_the_next_start_goes_on(undisturbed, tmp_path):
    whole, _ = undisturbed
    process = start(tmp_path)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "starts").exists() and "step" in (tmp_path / "starts").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(10)
    assert process.exitcode not in (0, None)
    assert marked(tmp_path) == []
    process = start(tmp_path)
    process.join()
    assert outcome(tmp_path / "run") == outcome(whole / "run")
    check_nothing_is_repeated(tmp_path)


def test_a_command_that_never_comes_back_ends_the_study_with_the_reason(tmp_path):
    spec = command_spec("kill -9 $$ {stop}", budget=1)
    with pytest.raises(WorkersError, match=r"10 workers were lost with trial 0.*killed by SIGKILL.*0\.log"):
        autolora.tune(spec=spec, dir=tmp_path)
