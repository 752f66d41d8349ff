"""What adapters are scored by, a file a metric. Every module of this folder registers its own on import; no torch."""

from __future__ import annotations

import importlib
import pkgutil

from autolora.metrics.metric import Evaluation, Metric, MetricError, Need, register, registry
from autolora.metrics.own import find
from autolora.metrics.spec import EvaluationSpec, MetricSpec, ReportedSpec, reported_specs

# A new metric touches nothing else.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Evaluation",
    "EvaluationSpec",
    "Metric",
    "MetricError",
    "MetricSpec",
    "Need",
    "ReportedSpec",
    "find",
    "register",
    "registry",
    "reported_specs",
]
