"""Most bytes that a trial took; see :mod:`autolora.trainers.memory` for what is counted where."""

from __future__ import annotations

from autolora.metrics.measures.measure import Measure, register

register(Measure("peak_memory", "minimize", lambda facts: facts.peak_memory, "B"))
