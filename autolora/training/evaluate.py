"""A metric over a split: a built-in one of :mod:`autolora.metrics`, or the user's own.

Either is a function of an :class:`Evaluation` that gives :class:`Scores`, the score with what each row adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autolora import references
from autolora.losses import IGNORED, token_losses
from autolora.metrics import METRICS, MetricError
from autolora.scores import Scores
from autolora.spec import MetricSpec
from autolora.training.data import Split
from autolora.training.model import Base

if TYPE_CHECKING:
    import torch

__all__ = ["MetricError"]

EVAL_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """What a metric sees.

    Attributes:
        model: with its adapter, in eval mode.
        base: tokenizer and device.
        split: tokenized rows and, for generation, their texts.
        spec: the metric's own options.
        autocast: context factory for the forward pass.
        batch_size: rows in one forward pass.
    """

    model: Any
    base: Base
    split: Split
    spec: MetricSpec
    autocast: Callable[[], Any]
    batch_size: int

    @property
    def max_new_tokens(self) -> int:
        """Most tokens to generate for a row."""
        return self.spec.max_new_tokens

    def batches(self) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """Batches with the rows in them, of similar length, so that little is spent on padding."""
        order = self.split.lengths.argsort(kind="stable")
        for begin in range(0, len(order), self.batch_size):
            rows = order[begin : begin + self.batch_size]
            batch = self.split.batch(rows, self.base.pad_token_id)
            yield rows, {name: tensor.to(self.base.device) for name, tensor in batch.items()}

    def over_tokens(self, quantity: Callable[..., torch.Tensor]) -> Scores:
        """The mean over all target tokens of the split.

        Args:
            quantity: of what :func:`autolora.losses.token_losses` gives, one value a target token.
        """
        totals, weights = np.zeros(len(self.split)), np.zeros(len(self.split))
        for rows, batch in self.batches():
            with self.autocast():
                values = quantity(*token_losses(self.model, batch)).cpu().double().numpy()
            places = (batch["labels"][:, 1:] != IGNORED).nonzero()[:, 0].cpu().numpy()  # row of each target token
            totals[rows] = np.bincount(places, values, minlength=len(rows))
            weights[rows] = np.bincount(places, minlength=len(rows))
        return Scores.of(totals, weights)


def load_metric(spec: MetricSpec) -> Callable[[Evaluation], Scores]:
    """The metric function; the user's own is imported, with the working directory on the path.

    Raises:
        MetricError: the module or the function is not there, or the module cannot be imported.
    """
    if spec.name in METRICS:
        return METRICS[spec.name].scores
    try:
        function = references.named(spec.name)
    except references.NoAttribute:
        module, _, attribute = spec.name.partition(":")
        raise MetricError(f"metric {spec.name!r}: the module {module!r} has no {attribute!r}") from None
    except references.ReferenceFault as fault:
        raise MetricError(f"metric {spec.name!r}: {fault}") from fault

    def custom(evaluation: Evaluation) -> Scores:
        return _own(spec.name, function(evaluation.model, evaluation.base.tokenizer, evaluation.split.rows), evaluation)

    return custom


def _own(name: str, value: Any, evaluation: Evaluation) -> Scores:
    """What the user's metric returned: a number, or a number for each row, of which the score is the mean.

    One that is not finite is the trial's own failure, and ends it as diverged.
    """
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's and torch's, scalars too
    if isinstance(value, (int, float)):
        return Scores(float(value))
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, (int, float)) for each in value):
        raise MetricError(f"metric {name!r} returned {value!r}; it must return a number, or one for each row")
    if len(value) != len(evaluation.split):
        raise MetricError(
            f"metric {name!r} returned {len(value)} numbers for {len(evaluation.split)} rows; "
            "it must return one number, or one for each row"
        )
    return Scores.of(value)
