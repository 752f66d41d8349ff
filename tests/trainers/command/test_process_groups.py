"""Several processes a trial, by torchrun on this machine: one that dies is one lost worker."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from autolora.trainers import LostSegment
from autolora.trainers.command.errors import CommandError
from tests.support import train_in_ranks
from tests.support.commands import command_trainer, job
from tests.support.processes import marked

pytest.importorskip("torch.distributed")

SCRIPT = shlex.quote(train_in_ranks.__file__)
PYTHON = shlex.quote(sys.executable)
TORCHRUN = f"{PYTHON} -m torch.distributed.run --nproc-per-node 2 --master-port {{port}} {SCRIPT}"
ACCELERATE = (
    f"{PYTHON} -m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    f"--dynamo_backend no --main_process_port {{port}} {SCRIPT}"
)


def run(folder: Path, command: str, **settings):
    return command_trainer(folder, command, **{"prior": "laws", **settings}).run(job(rung=2))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> float:
    return run(tmp_path_factory.mktemp("undisturbed"), TORCHRUN).value


@pytest.mark.parametrize(
    ("launcher", "fault"),
    [
        (TORCHRUN, "killed"),  # the fast one of its kind
        *(pytest.param(TORCHRUN, each, marks=pytest.mark.slow) for each in ("launcher", "launcher asked")),
        pytest.param(ACCELERATE, "killed", marks=pytest.mark.slow),
    ],
    ids=["a rank", "the launcher", "the launcher, asked to end", "a rank of accelerate"],
)
def test_what_is_killed_is_one_lost_worker_and_the_trial_goes_on(undisturbed, tmp_path, launcher, fault):
    trainer = command_trainer(tmp_path, f"{launcher} --fault {shlex.quote(fault)} --leave-session", prior="laws")
    with pytest.raises(LostSegment, match=r"killed by SIG(KILL|TERM)"):
        trainer.run(job(rung=2))
    assert marked(tmp_path) == []
    assert trainer.run(job(rung=2)).value == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_an_error_in_one_process_is_the_user_s(tmp_path, launcher):
    with pytest.raises(CommandError, match="IndexError: list index out of range"):
        run(tmp_path, f"{launcher} --fault error")
    assert marked(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_a_process_that_runs_out_of_memory_is_infeasible(tmp_path, launcher):
    outcome = run(tmp_path, f"{launcher} --fault memory")
    assert outcome.kind == "infeasible"
    assert "CUDA out of memory" in outcome.reason
