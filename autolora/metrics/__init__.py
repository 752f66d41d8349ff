"""The built-in metrics. A metric is a file of this folder and a line below; torch is imported inside its function."""

from __future__ import annotations

from autolora.metrics import eval_loss, exact_match, token_accuracy
from autolora.metrics.base import Evaluation, Metric, MetricError

__all__ = ["METRICS", "Evaluation", "Metric", "MetricError"]

METRICS: dict[str, Metric] = {each.name: each for each in (eval_loss.METRIC, token_accuracy.METRIC, exact_match.METRIC)}
"""By name; messages list them in this order."""
