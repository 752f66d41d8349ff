"""Share of rows predicted right as a whole."""

from __future__ import annotations

from autolora.metrics.metric import Evaluation, Metric, register
from autolora.scores import Scores


def sequence_accuracy(evaluation: Evaluation) -> Scores:
    """Share of rows whose target tokens the model all puts first, given the true tokens before them.

    Greedy generation gives exactly these tokens, EOS included. So this is a strict ``exact_match`` for the cost of one
    forward pass, and needs no prompts.
    """
    right = evaluation.over_tokens(lambda losses, predicted, targets: predicted == targets)
    return Scores.of(right.totals == right.weights)


register(Metric("sequence_accuracy", "maximize", sequence_accuracy))
