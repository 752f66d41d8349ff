"""The memory plan of a dry run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from autolora import spec as specs
from autolora.adapters.memory import Device, Growth, Memory, Remedy, size
from autolora.bases import capacity
from autolora.driver.plan import PlanError, dry_run, saving_keys
from autolora.report.memory import memory_view
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
    return printed(plan_view(plan, spec, folder))


def printed(view) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(view)
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
    flat = " ".join(text.split())
    for words in (
        f"Memory of dora at rank {memory.rank}",
        "optimizer",
        "activations",
        "in all",
        "with gradient checkpointing",
        "this machine's",
        "on top",
        "of memory, Python and its libraries included",
    ):
        assert words in flat
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


def test_the_setting_with_checkpointing_is_what_is_taken_in_all(make_trainer):
    trainer = make_trainer(**{"training.gradient_checkpointing": True})
    memory = trainer.memory_plan(["lora"], Space(batch_size=[4], rank=[4]))
    lines = printed(memory_view(memory)).splitlines()
    [taken] = [line for line in lines if line.split()[:2] == ["in", "all"]]
    assert size(memory.checkpointed_bytes) in taken
    [other] = [line for line in lines if "without gradient checkpointing" in line]
    assert size(memory.total_bytes) in other


def memory(**changes) -> Memory:
    own = {"base_bytes": 8000, "dtype": "float32", "trained": 10, "hidden_size": 32, "layers": 2, "length": 61}
    growth = Growth(((0.0, 100.0, 0.0),))
    return Memory("lora", 4, 2000, **{**own, "activations": growth, "checkpointed": growth, **changes})


def test_an_estimate_says_how_it_is_made_and_not_what_a_library_raised():
    text = printed(memory_view(memory(formula="RuntimeError: Expected inputs of BF16 type")))
    assert "Activations are estimated from width, depth and tokens, because" in text
    assert "Expect them to be off." in text
    assert "RuntimeError" not in text


def test_activations_of_experts_are_not_known():
    text = printed(memory_view(memory(formula="Error", activations=None, checkpointed=None)))
    assert "Activations are not known" in text
    assert "experts" in text
    assert "names no width" in printed(memory_view(memory(hidden_size=None, activations=None, checkpointed=None)))


def test_activations_that_hardly_depend_on_tokens_are_not_stated_for_each():
    assert "for fewer, too" in printed(memory_view(memory(activations=Growth(((1e6, 1.0, 0.0),)))))
    assert "100 B each" in printed(memory_view(memory()))


def test_what_a_trainer_turns_to_is_shown():
    text = printed(memory_view(memory(rows=2, batch=16, device=Device("cuda:0", 10**6))))
    assert "a batch of 16 cut into passes of 2" in text
    assert "90% of cuda:0's 1 MB" in text


def test_keys_that_are_set_already_are_not_advised():
    remedies = (Remedy("a bfloat16 base, rank 2", 1, True, ("dtype", "rank")),)
    assert saving_keys(memory(remedies=remedies)) == (
        "Less is taken with training.dtype: bfloat16, or a smaller training.max_length or space.rank."
    )
    assert saving_keys(memory()) == "Less is taken with a smaller training.max_length or space.rank."


def test_a_trainer_may_know_nothing_of_memory():
    from autolora.trainers import Trainer

    assert Trainer.memory_plan(None, ["lora"], Space()) is None
