"""`kill -9` of a study through a function: the same call continues and ends with the result of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.makers import SPEC
from tests.support.outcome import outcome
from tests.support.processes import FORKED
from tests.test_kill import LONGEST, MOST_KILLS, SHORTEST

FUNCTIONS = {"attached": ["lora", "pissa"], "accumulating": ["lora", "dora"], "plain": ["lora", "dora"]}


def _tune(folder: str, function: str, checkpoint_seconds: float, started) -> None:
    """Runs in a process of its own."""
    import transformers.trainer  # noqa: F401

    import autolora
    from tests.support import makers  # noqa: F401

    torch.set_num_threads(1)
    started.set()
    training = {**SPEC["training"], "checkpoint_seconds": checkpoint_seconds}
    spec = {
        **SPEC,
        "trainer": f"tests.support.makers:{function}",
        "variants": FUNCTIONS[function],
        "training": training,
        "confirm": 1,
    }
    autolora.tune(spec=spec, dir=folder)


def start(folder: Path, function: str, checkpoint_seconds: float) -> multiprocessing.Process:
    """A process that has imported everything: kills then fall on the work."""
    started = FORKED.Event()
    process = FORKED.Process(target=_tune, args=(str(folder), function, checkpoint_seconds, started))
    process.start()
    assert started.wait(120)
    return process


@pytest.fixture(
    scope="module",
    params=["attached", *(pytest.param(name, marks=pytest.mark.slow) for name in ("accumulating", "plain"))],
)
def undisturbed(request, tmp_path_factory) -> tuple[Path, float, str]:
    """The folder of a run that nobody killed, the seconds that it took, and its function."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, request.param, 600)
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return folder, time.monotonic() - began, request.param


@pytest.mark.parametrize("seconds", [0, pytest.param(600, marks=pytest.mark.slow)])
def test_killed_at_random_points_it_ends_as_if_undisturbed(undisturbed, tmp_path, seconds):
    """With a checkpoint at every step, and at rungs only."""
    whole, took, function = undisturbed
    rng = random.Random(1)
    kills = 0
    while True:
        process = start(tmp_path, function, seconds)
        process.join(took * rng.uniform(SHORTEST, LONGEST) if kills < MOST_KILLS else None)
        if process.exitcode == 0:
            break
        assert process.exitcode is None, "it failed by itself"
        process.kill()
        process.join()
        kills += 1
    assert kills >= 2
    assert outcome(tmp_path) == outcome(whole)
    for variant in FUNCTIONS[function]:
        ours = load_file(tmp_path / "best" / variant / "adapter_model.safetensors")
        theirs = load_file(whole / "best" / variant / "adapter_model.safetensors")
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
