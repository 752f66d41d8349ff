"""The Pareto front for a terminal: a few lines for each reported metric."""

from __future__ import annotations

from collections.abc import Iterator

from autolora.adapters.memory import size
from autolora.driver.result import TuneResult
from autolora.metrics import measures
from autolora.report.summary import duration, setting

MOST = 3
"""Configurations shown of a front; all are in ``best.json``."""


def front_lines(result: TuneResult) -> list[str]:
    """The front of the metric with each reported one, those first that score best; none if nothing was reported."""
    alone = {name: front[0] for name, front in result.pareto.items() if len(front) == 1}
    lines = [line for name, front in result.pareto.items() if name not in alone for line in _front(result, name)]
    if alone:
        said = ", ".join(f"{name} {shown(name, point.reported)}" for name, point in alone.items())
        lines.append(f"The best in {result.metric} is also the best in {said}.")
    return lines


def _front(result: TuneResult, name: str) -> Iterator[str]:
    front = result.pareto[name]
    if not front:
        yield f"{name}: no full run reports it."
        return
    yield f"No configuration is better in both {result.metric} and {name} than:"
    for point in front[:MOST]:
        yield f"  {point.value:.4f}  {shown(name, point.reported):>8}  {point.variant}  {setting(point.config)}"
    if len(front) > MOST:
        yield f"  and {len(front) - MOST} more in best.json"


def shown(name: str, value: float) -> str:
    """A reported number for people."""
    measure = measures.registry().get(name)
    unit = "" if measure is None else measure.unit
    if unit == "B":
        return size(value)
    if unit == "s":
        return duration(value)
    return f"{value:.0f}" if abs(value) >= 1000 and value == int(value) else f"{value:.4g}"
