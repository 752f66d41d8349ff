"""A run that was cut anywhere ends as an uncut one, bit for bit."""

from __future__ import annotations

import pytest
import torch

from autolora import variants
from autolora.errors import AutoloraError
from autolora.space import Config
from autolora.trainers import Interrupted
from tests.trainers.transformers.support import CONFIG, interrupting, manifest, opened, piece, trained

EPOCH = 5
"""Steps of one pass over the data."""
UNIT = Config(learning_rate=5e-3, batch_size=8, rank=4, alpha=4.0)
ALWAYS = ("lora", "pissa", "lora_plus", "dora", "hydralora", "relora", "gora")
"""Variants whose tests are part of ``make test``: one of each kind of start, optimizer, forward pass and allotment."""
REFUSED = ("adalora", "loramoe", "loft")
CASES = [
    *(
        pytest.param("attached", name, marks=[] if name in ALWAYS else pytest.mark.slow)
        for name in variants.names()
        if name not in REFUSED
    ),
    *(("plain", name) for name in ("lora", "dora", "rslora")),
    *(
        (function, "lora")
        for function in ("accumulating", "added", "reloading", "classifier", "dropping", "sampling", "streaming")
    ),
]


def config_of(variant: str) -> Config:
    return UNIT if variants.get(variant).traits.unit_scale else CONFIG


def dropout_of(variant: str) -> float:
    return 0.0 if variant in ("lokr", "loha", "lora_ga") else 0.1  # these refuse it


@pytest.mark.parametrize(("function", "variant"), CASES)
def test_a_cut_run_ends_as_an_uncut_one(function, variant, tmp_path):
    """Cut amid the first epoch, at its end, and amid the second one."""
    trainer = opened(function, tmp_path, variants=[variant], training__dropout=dropout_of(variant))
    config = config_of(variant)
    uncut = trainer.run(piece(0, variant=variant, config=config))
    for step in (2, EPOCH, EPOCH + 2):
        with pytest.raises(Interrupted):
            trainer.run(piece(1, variant=variant, config=config), interrupting(step))
        assert manifest(tmp_path, 1).step == step
    cut = trainer.run(piece(1, variant=variant, config=config))
    ours, theirs = trained(tmp_path, 1), trained(tmp_path, 0)
    assert uncut.kind == cut.kind == "scored"
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert cut.value == uncut.value
    assert manifest(tmp_path, 1).losses == manifest(tmp_path, 0).losses


@pytest.mark.parametrize("step", range(1, 10))
def test_a_cut_at_any_step_changes_nothing(tmp_path, step):
    trainer = opened("accumulating", tmp_path)
    uncut = trainer.run(piece(0))
    with pytest.raises(Interrupted):
        trainer.run(piece(1), interrupting(step))
    assert trainer.run(piece(1)).value == uncut.value


def test_a_checkpoint_is_written_as_often_as_asked_and_goes_on_in_another_process(tmp_path):
    seen = []

    def dies(progress):
        seen.append((progress.step, manifest(tmp_path, 0).step if progress.step > 1 else 0))
        if progress.step == 4:
            raise KeyboardInterrupt  # as a kill: nothing is committed of this step

    with pytest.raises(KeyboardInterrupt):
        opened("attached", tmp_path, training__checkpoint_seconds=0).run(piece(0), dies)
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 3)]
    steps = []
    outcome = opened("attached", tmp_path, training__checkpoint_seconds=0).run(piece(0), steps.append)
    assert steps[0].step == 4
    assert outcome.value == opened("attached", tmp_path).run(piece(1)).value


def test_a_trial_that_was_trained_to_the_rung_and_not_scored_is_scored_without_training(tmp_path, monkeypatch):
    from autolora.trainers.transformers import segment

    trainer = opened("plain", tmp_path)
    uncut = trainer.run(piece(0, rung=0))

    def fails(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(segment, "evaluation", fails)
        with pytest.raises(ZeroDivisionError):
            trainer.run(piece(1, rung=0))
    assert manifest(tmp_path, 1).step == manifest(tmp_path, 0).step
    steps = []
    assert trainer.run(piece(1, rung=0), steps.append).value == uncut.value
    assert steps == []


def test_a_finished_run_keeps_its_adapter_alone(tmp_path):
    trainer = opened("plain", tmp_path)
    trainer.run(piece(0, rung=0))
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(manifest(tmp_path, 0).files)
    trainer.run(piece(0))
    assert set(manifest(tmp_path, 0).files) == {"adapter.safetensors"}
    assert len(list((tmp_path / "trials" / "0").glob("step-*"))) == 1


def test_only_the_adapter_is_checkpointed(tmp_path):
    trainer = opened("plain", tmp_path)
    trainer.run(piece(0, rung=0))
    assert all(".lora_" in name for name in trained(tmp_path, 0))
    opened("classifier", tmp_path / "classifier").run(piece(0, rung=0))
    heads = [name for name in trained(tmp_path / "classifier", 0) if ".lora_" not in name]
    assert heads == ["trained.base_model.model.score.modules_to_save.default.weight"]


def test_a_long_evaluation_gives_signs_of_life(tmp_path, monkeypatch):
    from autolora.trainers import SignOfLife
    from autolora.trainers.transformers import callback

    monkeypatch.setattr(callback, "SIGN_OF_LIFE", 0.0)
    told = []
    opened("plain", tmp_path).run(piece(0), told.append)
    signs = [each for each in told if isinstance(each, SignOfLife)]
    assert [(each.step, each.signs) for each in signs] == [(10, 1), (10, 2)]


def test_data_without_a_length_are_passed_over_once(tmp_path):
    """Nothing says in which pass a cut run was."""
    trainer = opened("streaming_once", tmp_path, training__checkpoint_seconds=0)
    assert trainer.run(piece(0, rung=0)).kind == "scored"
    with pytest.raises(AutoloraError, match=r"ended at step 5 of 10.*data with a length.*set training\.examples"):
        trainer.run(piece(0))


@pytest.mark.filterwarnings("ignore:the trainer logs no 'loss'")
def test_a_trainer_that_renames_its_loss_is_cut_and_resumed(tmp_path):
    trainer = opened("renaming", tmp_path)
    uncut = trainer.run(piece(0))
    for step in (2, EPOCH + 2):
        with pytest.raises(Interrupted):
            trainer.run(piece(1), interrupting(step))
        assert manifest(tmp_path, 1).step == step
    assert trainer.run(piece(1)).value == uncut.value
