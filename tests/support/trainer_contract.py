"""What every trainer must do. A trainer of another kind inherits the class and gives its own fixtures.

The fixture ``make_trainer(folder, **settings)`` opens a trainer on a run directory, as each process does; calling it
again with the same folder is what another process sees. Settings are further ones of the specification.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autolora.errors import AutoloraError
from autolora.search import Job
from autolora.space import Config, Space
from autolora.trainers import Interrupted, Outcome, Progress, SignOfLife, Trainer, checkpoint, horizon

RUNGS = (1 / 3, 1.0)
CONFIG = Config(learning_rate=5e-3, batch_size=8, rank=4, alpha=8.0)


def piece(trial: int, rung: int, seed: int = 0, config: Config = CONFIG) -> Job:
    """A segment to a rung."""
    return Job(trial, "lora", config, seed=seed, start=0.0, stop=RUNGS[rung], rung=rung)


def optimizer_steps(told: list[Progress]) -> list[Progress]:
    """What was told of steps, without signs of life in between."""
    return [each for each in told if not isinstance(each, SignOfLife)]


class TrainerContract:
    """Inherit it.

    Attributes:
        stops_at_once: whether a training that is interrupted ends at the very step; otherwise it may get further.
    """

    stops_at_once = True

    def refuse(self, trainer: Trainer) -> None:
        """Have the trainer refuse what it cannot train, in words that name it."""
        with pytest.raises(AutoloraError, match="rank 100000"):
            trainer.check(["lora"], Space(rank=4), {"lora": CONFIG.replaced(rank=100000)})

    @pytest.fixture(scope="class")
    def make_trainer(self) -> Callable[..., Trainer]:
        raise NotImplementedError

    def steps(self, trainer: Trainer) -> int:
        """Optimizer steps of a full run of CONFIG; more where a trainer cuts the last batch of every epoch."""
        return horizon(trainer.examples, CONFIG.batch_size)

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory) -> Path:
        return tmp_path_factory.mktemp("trainer")

    @pytest.fixture(scope="class")
    def trainer(self, make_trainer, folder) -> Trainer:
        return make_trainer(folder)

    @pytest.fixture(scope="class")
    def uncut(self, trainer) -> Outcome:
        """Trial 0, trained in one segment."""
        return trainer.run(piece(0, rung=1))

    def test_it_says_how_long_a_full_run_is_and_what_scores_depend_on(self, trainer, make_trainer, folder):
        assert trainer.examples > 0
        assert trainer.fingerprints()
        assert dict(make_trainer(folder).fingerprints()) == dict(trainer.fingerprints())
        json.dumps(dict(trainer.fingerprints()))

    def test_a_full_segment_is_scored(self, uncut):
        assert (uncut.kind, uncut.at, uncut.reason) == ("scored", 1.0, "")
        assert math.isfinite(uncut.value)
        assert uncut.seconds > 0

    def test_a_promoted_trial_ends_as_one_that_was_never_cut(self, trainer, uncut):
        trainer.run(piece(1, rung=0))
        assert trainer.run(piece(1, rung=1)).value == uncut.value

    def test_a_trial_of_half_the_duration_trains_half_as_long_and_is_whole(
        self, trainer, make_trainer, tmp_path, uncut
    ):
        whole, half = trainer.examples, trainer.examples / 2
        lasting = make_trainer(tmp_path / "run", **{"space.duration": {"examples": [half, whole]}})
        steps: list[Progress] = []
        shorter = replace(piece(10, rung=1, config=CONFIG.replaced(duration=half)), length=0.5)
        outcome = lasting.run(shorter, steps.append)
        assert (outcome.kind, outcome.at) == ("scored", 1.0)
        told = [(each.step, each.steps) for each in optimizer_steps(steps)]
        total = told[-1][0]
        assert told == [(step, total) for step in range(1, total + 1)]
        assert self.steps(trainer) / 2 <= total <= self.steps(trainer) / 2 + 1
        longer = piece(11, rung=1, config=CONFIG.replaced(duration=whole))
        assert lasting.run(longer).value == uncut.value != outcome.value

    def test_every_optimizer_step_is_told(self, trainer):
        steps: list[Progress] = []
        trainer.run(piece(2, rung=1), steps.append)
        total = self.steps(trainer)
        told = [(each.trial, each.step, each.steps) for each in optimizer_steps(steps)]
        assert told == [(2, n, total) for n in range(1, total + 1)]

    def test_an_interrupted_segment_goes_on_in_another_process(self, trainer, make_trainer, folder, uncut):
        def stop(progress: Progress) -> None:
            if progress.step == 2:
                raise Interrupted

        with pytest.raises(Interrupted):
            trainer.run(piece(3, rung=1), stop)
        steps: list[Progress] = []
        assert make_trainer(folder).run(piece(3, rung=1), steps.append).value == uncut.value
        first = optimizer_steps(steps)[0].step
        assert first == 3 or (first > 3 and not self.stops_at_once)

    def test_a_score_that_was_committed_is_given_again_without_training(self, trainer, uncut):
        again = trainer.run(piece(0, rung=1), lambda progress: pytest.fail("trained again"))
        assert again == uncut

    def test_another_seed_is_another_training(self, trainer, uncut):
        assert trainer.run(piece(4, rung=1, seed=1)).value != uncut.value

    def test_a_run_that_blows_up_is_diverged_with_the_reason(self, trainer):
        outcome = trainer.run(piece(5, rung=1, config=CONFIG.replaced(learning_rate=1e4)))
        assert (outcome.kind, outcome.value) == ("diverged", None)
        assert outcome.reason
        assert 0 < outcome.at <= 1

    def test_a_completed_trial_is_tested_and_exported(self, trainer, uncut, tmp_path):
        score = trainer.test(0)
        assert score is None or math.isfinite(score)
        trainer.export(0, tmp_path / "adapter")
        assert any((tmp_path / "adapter").iterdir())

    def test_an_export_replaces_an_older_one(self, trainer, uncut, tmp_path):
        trainer.verify(0)
        trainer.export(0, tmp_path / "adapter")
        first = {path.name: path.read_bytes() for path in (tmp_path / "adapter").rglob("*") if path.is_file()}
        trainer.export(0, tmp_path / "adapter")
        again = {path.name: path.read_bytes() for path in (tmp_path / "adapter").rglob("*") if path.is_file()}
        assert first == again
        assert [path.name for path in tmp_path.iterdir()] == ["adapter"]

    def test_a_trial_that_never_ended_has_lost_its_result(self, trainer):
        trainer.run(piece(7, rung=0))
        for trial in (7, 99):
            with pytest.raises(checkpoint.LostCheckpointError):
                trainer.verify(trial)

    def test_a_trial_without_a_checkpoint_is_neither_tested_nor_exported(self, trainer, tmp_path):
        with pytest.raises(checkpoint.CheckpointError):
            trainer.export(99, tmp_path / "adapter")
        if trainer.test(0) is not None:
            with pytest.raises(checkpoint.CheckpointError):
                trainer.test(99)

    def test_what_can_be_trained_is_not_refused_and_what_cannot_is_in_words(self, trainer):
        trainer.check(["lora"], Space(rank=4), {"lora": CONFIG})
        self.refuse(trainer)

    def test_it_trains_after_its_device_was_given_away_for_a_while(self, trainer, uncut):
        trainer.set_aside()
        assert trainer.run(piece(6, rung=1)).value == uncut.value

    def test_what_it_has_loaded_is_told_in_lines(self, trainer):
        assert all(isinstance(line, str) for lines in trainer.about().values() for line in lines)
