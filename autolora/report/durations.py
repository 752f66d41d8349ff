"""What longer training buys, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autolora.search.outlook import Gain, pays_until


def durations_view(durations: Mapping[str, Sequence[Gain]]) -> list[RenderableType]:
    """A table of gains, and a sentence for each variant on where they end; nothing if durations were not searched."""
    if not durations:
        return []
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("left", "left", "right", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name, gains in durations.items():
        for place, gain in enumerate(gains):
            table.add_row(
                f"  {name if place == 0 else ''}",
                f"{gain.start:.4g} -> {gain.stop:.4g} {gain.unit}",
                f"{gain.expected:+.4f}",
                f"({gain.low:+.4f} to {gain.high:+.4f})",
                "" if gain.searched else "not searched",
            )
    sentences = [Text(f"{name}: {_words(gains)}") for name, gains in durations.items()]
    return [Text("Longer training, each at its best setting; + is better (90%):"), table, *sentences, Text()]


def _words(gains: Sequence[Gain]) -> str:
    """Where longer training stops paying, in one sentence."""
    until, unit, longest = pays_until(gains), gains[0].unit, gains[-1].stop
    if until == longest:
        return f"longer training still pays at the longest searched; {longest:.4g} {unit} would gain more."
    beyond = next(gain for gain in gains if gain.start == until)
    return f"training pays up to {until:.4g} {unit}; that {beyond.stop:.4g} gain more is not sure."
