"""Divergence is told by what a trainer logs, whatever its loss is."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from autolora.trainers.watching import AnyLossWatch, LogWatch, ReportWatch
from tests.trainers.transformers.support import CONFIG, manifest, opened, piece


def first_reason(watch, losses, norms=None):
    reasons = (watch.update(loss, norm) for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True))
    return next((reason for reason in reasons if reason), None)


def reinforced(steps: int = 200) -> tuple[list[float], list[float]]:
    """Losses around zero that grow with the divergence from the reference, and steps with equal rewards."""
    rng = np.random.default_rng(0)
    losses, norms = [], []
    for step in range(steps):
        equal = rng.random() < 0.3 or 50 <= step < 60
        losses.append(0.0 if equal else float(rng.normal(0.0, 0.2) + 0.01 * step))
        norms.append(0.0 if equal else float(rng.lognormal(-2, 1.5)))
    return losses, norms


HEALTHY = {
    "reinforcement": reinforced(),
    "negative": ([-1.0 + 0.004 * step for step in range(200)], [1.0] * 200),
    "preferences": ([0.69 + 0.5 * math.sin(step) * step / 200 for step in range(200)], [1.0] * 200),
    "from zero": ([0.0, 0.0, *[0.9] * 50], [0.0, 0.0, *[3.0] * 50]),
    "squares of 25": ([25.0 * 0.99**step for step in range(100)], [1.0] * 100),
    "one hard batch": ([0.1, 0.1, 500.0, 0.1, 0.1], [1.0] * 5),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_of_any_loss_goes_on(name):
    assert first_reason(AnyLossWatch(), *HEALTHY[name]) is None


def test_the_rule_for_cross_entropies_would_stop_some_of_them():
    """Which is why it is not asked."""
    stopped = [name for name, (losses, norms) in HEALTHY.items() if first_reason(ReportWatch(8), losses, norms)]
    assert {"reinforcement", "negative", "from zero"} <= set(stopped)


@pytest.mark.parametrize(
    "losses", [[0.1, 0.1, math.nan], [0.1, math.inf], [0.1, 0.1, *[-150.0] * 3], [30, 30, *[4e3] * 3]]
)
def test_a_run_of_any_loss_that_blows_up_has_diverged(losses):
    assert first_reason(AnyLossWatch(), losses)


def test_a_gradient_that_is_not_finite_has_diverged():
    assert "gradient norm became inf" in first_reason(AnyLossWatch(), [0.1], [math.inf])


def test_skipped_steps_of_scaled_losses_have_not():
    watch = LogWatch(AnyLossWatch(), SimpleNamespace(fp16=True))
    assert watch.update({"loss": 1.0, "grad_norm": math.inf}, 1) is None
    assert LogWatch(AnyLossWatch(), SimpleNamespace(fp16=False)).update({"loss": 1.0, "grad_norm": math.inf}, 7) == (
        "the gradient norm became inf at step 7"
    )


def test_the_loss_of_the_model_is_a_cross_entropy_and_others_are_not(tmp_path):
    from transformers import PretrainedConfig
    from transformers import Trainer as Base

    class Preferring(Base):
        def compute_loss(self, *args, **kwargs):
            raise NotImplementedError

    def asked(kind, loss=None, **config):
        trainer = kind.__new__(kind)
        trainer.model, trainer.compute_loss_func = SimpleNamespace(config=PretrainedConfig(**config)), loss
        return opened_trainer.is_cross_entropy(trainer)

    opened_trainer = opened("plain", tmp_path)
    assert asked(Base)
    assert not asked(Base, num_labels=1)
    assert not asked(Base, problem_type="regression")
    assert not asked(Base, loss=print)
    assert not asked(Preferring)


def test_a_run_that_blows_up_is_stopped_within_steps_and_not_committed(tmp_path):
    outcome = opened("plain", tmp_path).run(piece(0, config=CONFIG.replaced(learning_rate=1e4)))
    assert outcome.kind == "diverged"
    assert outcome.at < 1
    assert not list((tmp_path / "trials" / "0").glob("step-*"))


def test_the_watch_goes_on_as_if_uncut(tmp_path):
    """A manifest has the loss of every step, whatever ``logging_steps`` is."""
    trainer = opened("opinionated", tmp_path)
    trainer.run(piece(0, rung=0))
    trainer.run(piece(0))
    kept = manifest(tmp_path, 0)
    assert len(kept.losses) == len(kept.gradient_norms) == kept.step == 10


def test_a_trainer_that_renames_its_loss_is_heard_of_and_that_it_is_not_watched_is_said(tmp_path):
    told = []
    with pytest.warns(UserWarning, match="logs no 'loss'.*divergence is not watched for: have its log") as said:
        opened("renaming", tmp_path).run(piece(0), told.append)
    assert len([each for each in said if "logs no 'loss'" in str(each.message)]) == 1
    assert [each.step for each in told] == list(range(2, 11))
    assert all(math.isfinite(each.loss) for each in told)
