"""The memory plan of a dry run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from autolora import spec as specs
from autolora.adapters.memory import Device
from autolora.bases import capacity
from autolora.driver.plan import PlanError, dry_run
from autolora.report.tables import plan_view
from autolora.space import Space
from autolora.trainers.builtin import segment
from autolora.trainers.trainer import Outcome
from tests.support.specs import SMALL_SPEC


@pytest.fixture
def spec():
    return specs.load({**SMALL_SPEC, "variants": ["lora", "dora"], "prior": None})


@pytest.fixture
def tiny_machine(monkeypatch):
    monkeypatch.setattr(capacity, "capacity", lambda device: Device(str(device), 1_000_000))


def shown(plan, spec, folder) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(plan_view(plan, spec, folder))
    return console.file.getvalue()


def test_the_largest_setting_is_planned_beside_what_was_measured(spec, tmp_path):
    told = []
    plan = dry_run(spec, tmp_path, on_memory=told.append)
    memory = plan.memory
    assert told == [memory]
    assert (memory.variant, memory.rank) == ("dora", max(spec.space.rank))
    assert memory.formula == ""
    assert memory.total_bytes < plan.memory_bytes  # of the process, libraries and all
    text = shown(plan, spec, tmp_path)
    for words in (
        f"Memory of dora at rank {memory.rank}",
        "optimizer",
        "activations",
        "in all",
        "checkpointing",
        "cpu",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80


def test_that_it_does_not_fit_is_said_before_it_is_tried(spec, tmp_path, tiny_machine, monkeypatch):
    told = []

    def out_of_memory(bench, job, on_step=None):
        assert told, "nothing was said before"
        return Outcome(job.trial, "infeasible", None, 0.0, "out of memory", 0.0)

    monkeypatch.setattr(segment, "run", out_of_memory)
    with pytest.raises(PlanError, match=r"out of memory\. The plan takes .* it does not fit\. "):
        dry_run(spec, tmp_path, on_memory=lambda memory: told.append(memory.fits))
    assert told == [False]


def test_what_would_make_it_smaller_is_shown(spec, tmp_path, tiny_machine):
    plan = dry_run(spec, tmp_path)
    text = shown(plan, spec, tmp_path)
    for remedy in plan.memory.remedies:
        assert remedy.change.split(",")[0] in text
    assert "does not fit" in text


def test_checkpointing_that_was_asked_for_is_planned_with(make_trainer):
    trainer = make_trainer(**{"training.gradient_checkpointing": True})
    space = Space(batch_size=[4], rank=[4])
    memory = trainer.memory_plan(["lora"], space)
    assert memory.checkpointing
    assert memory.planned_bytes == memory.checkpointed_bytes


def test_a_trainer_may_know_nothing_of_memory():
    from autolora.trainers import Trainer

    assert Trainer.memory_plan(None, ["lora"], Space()) is None
