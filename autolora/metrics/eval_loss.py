"""Token-weighted cross-entropy."""

from __future__ import annotations

from autolora.metrics.metric import Evaluation, Metric, register
from autolora.scores import Scores


def eval_loss(evaluation: Evaluation) -> Scores:
    """Cross-entropy averaged over all target tokens of the split. May be non-finite: the caller calls it diverged."""
    return evaluation.over_tokens(lambda losses, predicted, targets: losses)


register(Metric("eval_loss", "minimize", eval_loss))
