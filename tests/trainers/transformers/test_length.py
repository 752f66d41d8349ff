"""What a trial says of its length is what its trainer then counts."""

from __future__ import annotations

import pytest

from autolora.search import Job
from tests.support import makers
from tests.trainers.transformers.support import CONFIG, manifest, opened


@pytest.mark.parametrize("examples", [None, 30, 100])
@pytest.mark.parametrize("batch_size", [4, 5, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_steps_and_stops_are_those_of_the_trainer(drop_last, batch_size, examples, tmp_path, monkeypatch):
    """Of 36 rows; the trainer was opened at a batch size of 4."""
    told, rows, own = [], [], makers.made

    def made(trial, model, **options):
        told.append((trial.steps, trial.stop_steps, trial.stop_examples))
        trainer = own(trial, model, dataloader_drop_last=drop_last, **options)
        collate = trainer.data_collator

        def counted(batch):
            rows.append(len(batch))
            return collate(batch)

        trainer.data_collator = counted
        monkeypatch.setattr(trainer, "evaluate", lambda: {"eval_loss": 1.0})
        return trainer

    monkeypatch.setattr(makers, "made", made)
    trainer, progress = opened("plain", tmp_path, training__examples=examples), []
    job = Job(0, "lora", CONFIG.replaced(batch_size=batch_size), seed=0, start=0.0, stop=1 / 3, rung=0)
    trainer.run(job, progress.append)
    steps, stop_steps, stop_examples = told[-1]
    assert steps == progress[0].steps
    assert stop_steps == len(progress) == manifest(tmp_path, 0).step
    assert stop_examples == min(trainer.examples, sum(rows[:stop_steps]))
    assert manifest(tmp_path, 0).examples == stop_examples
