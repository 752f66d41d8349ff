"""Where memory runs out, the batch comes in smaller passes."""

from __future__ import annotations

import pytest
import torch

from autolora.trainers.trial import Trial
from tests.support import makers
from tests.trainers.transformers.support import manifest, opened, piece


class Collator:
    """Runs out of memory at passes of more rows than ``most``, in training or in evaluation."""

    most, most_evaluated = 8, 8

    def __init__(self):
        self.tried = []

    def __call__(self, batch):
        self.tried.append(len(batch))
        if len(batch) > (self.most if self.training else self.most_evaluated):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return makers.padded(batch)


@pytest.fixture
def collator(monkeypatch):
    found, own = Collator(), makers.made

    def made(trial, model, **options):
        trainer = own(trial, model, **options)
        trainer.data_collator = found
        evaluate, found.training = trainer.evaluate, True

        def evaluated(*args):
            found.training = False
            return evaluate(*args)

        trainer.evaluate = evaluated
        return trainer

    monkeypatch.setattr(makers, "made", made)
    return found


def test_it_is_trained_in_smaller_passes_with_the_same_batch_size(tmp_path, collator):
    trainer = opened("plain", tmp_path)
    collator.most = 3
    assert trainer.run(piece(0)).kind == "scored"
    assert max(collator.tried) == 8
    collator.tried.clear()
    assert trainer.run(piece(1)).kind == "scored"  # remembered
    assert sum(size > 2 for size in collator.tried) == 2  # of the evaluation
    assert manifest(tmp_path, 1).step == 10


def test_memory_that_runs_out_amid_a_trial_goes_on_from_its_checkpoint(tmp_path, collator):
    trainer, steps = opened("plain", tmp_path, training__checkpoint_seconds=0), []

    def shrink(progress):
        steps.append(progress.step)
        if progress.step == 6:
            collator.most = 4

    assert trainer.run(piece(0), shrink).kind == "scored"
    assert sorted(set(steps)) == list(range(1, 11))
    assert len(steps) <= 11


def test_one_row_that_does_not_fit_is_infeasible(tmp_path, collator):
    collator.most = 0
    outcome = opened("plain", tmp_path).run(piece(0))
    assert (outcome.kind, outcome.value, outcome.at) == ("infeasible", None, 0.0)
    assert outcome.reason.startswith("out of memory while training: CUDA out of memory")


def test_an_evaluation_that_does_not_fit_is_infeasible_and_says_what_to_set(tmp_path, collator):
    collator.most_evaluated = 4
    outcome = opened("plain", tmp_path).run(piece(0))
    assert outcome.kind == "infeasible"
    assert "evaluating, with the trainer's own per_device_eval_batch_size" in outcome.reason


def test_a_batch_size_of_the_functions_own_cannot_be_made_smaller(tmp_path, collator, monkeypatch):
    monkeypatch.setattr(Trial, "arguments", lambda trial: own_arguments(trial))
    collator.most = 3
    outcome = opened("plain", tmp_path).run(piece(0))
    assert outcome.kind == "infeasible"
    assert max(collator.tried) == min(collator.tried) == 8


def own_arguments(trial):
    return {
        "output_dir": str(trial.folder),
        "learning_rate": trial.config["learning_rate"],
        "per_device_train_batch_size": trial.config["batch_size"],
        "seed": trial.seed,
        "use_cpu": True,
    }
