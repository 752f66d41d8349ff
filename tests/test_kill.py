"""`kill -9` at any moment: the same call continues and, on a CPU, ends with the result of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.outcome import outcome
from tests.support.processes import FORKED
from tests.support.specs import SMALL_SPEC

STUDIES = {
    "numbers": {},
    "4 bits": {"base.load_in_4bit": True},
    "trl": {"trainer": {"trl": "sft"}},
    "fields and durations": {
        "space.duration": {"examples": [36, 72]},
        "space.fields": {
            "optimizer": ["adamw", "nadam"],
            "adam_beta2": {"choices": [0.95, 0.999], "when": {"optimizer": "adamw"}},
            "target_modules": ["all-linear", ["q_proj", "v_proj"]],
        },
        "metrics": ["train_loss", "token_accuracy"],
    },
}
NEEDS = {"4 bits": "bitsandbytes", "trl": "trl"}
CHECKPOINT_SECONDS = {"at every step": 0, "at rungs only": 600}
MOST_KILLS = 60
SHORTEST, LONGEST = 0.05, 0.5
"""A life, as a share of what the undisturbed run takes: on any machine, several are needed."""


def _tune(folder: str, checkpoint_seconds: float, study: str) -> None:
    """Runs in a process of its own."""
    import autolora
    from autolora import spec as specs

    torch.set_num_threads(1)
    spec = specs.load(
        {**SMALL_SPEC, "variants": ["lora", "pissa"], "budget": 3, "confirm": 1},
        **{"training.checkpoint_seconds": checkpoint_seconds, **STUDIES[study]},
    )
    autolora.tune(spec=spec, dir=folder)


def start(folder: Path, checkpoint_seconds: float, study: str) -> multiprocessing.Process:
    process = FORKED.Process(target=_tune, args=(str(folder), checkpoint_seconds, study))
    process.start()
    return process


@pytest.fixture(
    scope="module",
    params=["numbers", *(pytest.param(name, marks=pytest.mark.slow) for name in STUDIES if name != "numbers")],
)
def undisturbed(request, tmp_path_factory) -> tuple[Path, float, str]:
    """The folder of a run that nobody killed, the seconds that it took, and which study it is."""
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    folder = tmp_path_factory.mktemp("undisturbed")
    imports = FORKED.Process(target=int)  # it begins when the server has imported
    imports.start()
    imports.join()
    began = time.monotonic()
    process = start(folder, 600, request.param)
    process.join()
    assert process.exitcode == 0
    return folder, time.monotonic() - began, request.param


@pytest.mark.parametrize("interval", ["at every step", pytest.param("at rungs only", marks=pytest.mark.slow)])
def test_killed_at_random_points_it_ends_as_if_undisturbed(undisturbed, tmp_path, interval):
    whole, seconds, study = undisturbed
    rng = random.Random(1)
    kills = 0
    while True:
        process = start(tmp_path, CHECKPOINT_SECONDS[interval], study)
        patience = seconds * rng.uniform(SHORTEST, LONGEST) if kills < MOST_KILLS else None
        process.join(patience)
        if process.exitcode == 0:
            break
        assert process.exitcode is None, "it failed by itself"
        process.kill()
        process.join()
        kills += 1
    assert kills >= 3
    assert outcome(tmp_path) == outcome(whole)
    for variant in ("lora", "pissa"):
        ours = load_file(tmp_path / "best" / variant / "adapter_model.safetensors")
        theirs = load_file(whole / "best" / variant / "adapter_model.safetensors")
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
