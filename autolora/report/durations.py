"""What longer training buys, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autolora.analysis.durations import Gain, pays_until


def durations_view(durations: Mapping[str, Sequence[Gain]]) -> list[RenderableType]:
    """A table of gains, and a sentence for each variant on where they end; nothing if durations were not searched."""
    if not durations:
        return []
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("left", "left", "right", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for name, gains in durations.items():
        for place, gain in enumerate(gains):
            table.add_row(
                f"  {name if place == 0 else ''}",
                f"{gain.start:.4g} -> {gain.stop:.4g} {gain.unit}",
                f"{gain.expected:+.4f}",
                "" if gain.low is None else f"({gain.low:+.4f} to {gain.high:+.4f})",
                "" if gain.searched else "not searched",
            )
    sentences = [Text(f"{name}: {_words(gains)}") for name, gains in durations.items()]
    return [
        Text("What longer training gains, each duration at its best; + is better (95%):"),
        table,
        *sentences,
        Text(),
    ]


def _words(gains: Sequence[Gain]) -> str:
    """Where longer training stops paying, in one sentence."""
    if gains[0].low is None:
        return "noise unknown, so it is not said where longer training stops paying."
    until, unit = pays_until(gains), gains[0].unit
    beyond = next((gain for gain in gains if gain.start == until), None)
    if beyond is None:
        return f"training still pays at {gains[-1].start:.4g} {unit}, the longest; {until:.4g} would gain more."
    if beyond.high is not None and beyond.high < 0:
        return f"training pays up to {until:.4g} {unit}; {beyond.stop:.4g} are worse."
    return f"training pays up to {until:.4g} {unit}; whether {beyond.stop:.4g} gain more is not sure."
