"""Share of tokens predicted right."""

from __future__ import annotations

from autolora.metrics.metric import Evaluation, Metric, register
from autolora.scores import Scores


def token_accuracy(evaluation: Evaluation) -> Scores:
    """Share of target tokens that the model puts first, given the true tokens before them."""
    return evaluation.over_tokens(lambda losses, predicted, targets: predicted == targets)


register(Metric("token_accuracy", "maximize", token_accuracy))
