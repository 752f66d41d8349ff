"""What to recommend, on a terminal: what does as well as the best for less, and which variants differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autolora.analysis.best import Alternative
from autolora.analysis.verdict import PLAIN, Verdict
from autolora.driver.result import TunedVariant
from autolora.report.summary import duration, setting

BASES = {"seeds": "one standard error over seeds", "examples": "one standard error over evaluation examples"}


def alternatives(result: Mapping[str, TunedVariant]) -> list[RenderableType]:
    """The smallest rank and the cheapest configuration within noise of the best, of each variant."""
    known = {name: tuned for name, tuned in result.items() if tuned.noise is not None}
    parts: list[RenderableType] = []
    if known:
        basis = BASES[next(tuned.noise for tuned in known.values() if tuned.noise)]
        parts += [Text(f"As good as the best within noise ({basis}):"), _alternatives_table(known)]
    untried: dict[tuple[int, ...], list[str]] = {}
    for name, tuned in result.items():
        untried.setdefault(tuned.untried_ranks, []).append(name)
    parts += [Text(_untried(ranks, names)) for ranks, names in untried.items() if ranks]
    unknown = [name for name, tuned in result.items() if name not in known and tuned.fraction == 1]
    if unknown:
        parts.append(Text(f"Noise unknown, so no other configuration is called as good: {', '.join(unknown)}."))
    return parts


def _untried(ranks: Sequence[int], names: Sequence[str]) -> str:
    """What it costs to know whether smaller ranks do as well."""
    several = len(ranks) > 1
    listed = f"{'Ranks' if several else 'Rank'} {', '.join(map(str, ranks))}"
    verb, cost = ("were", "one more full run each") if several else ("was", "one more full run")
    return f"{listed} {verb} never trained to the end with {', '.join(names)}; {cost} would tell."


def _alternatives_table(known: dict[str, TunedVariant]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("left", "left", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for name, tuned in known.items():
        for place, (kind, other) in enumerate(_kinds(tuned)):
            table.add_row(f"  {name if place == 0 else ''}", kind, *_cells(other, tuned))
    return table


def _kinds(tuned: TunedVariant) -> list[tuple[str, Alternative]]:
    """What is recommended, a configuration that is both once."""
    small, cheap = tuned.smallest, tuned.cheapest
    assert small is not None
    if cheap is None:
        return [("smallest rank", small)]
    if small.config == cheap.config:
        return [("smallest rank and cheapest", small)]
    return [("smallest rank", small), ("cheapest", cheap)]


def _cells(other: Alternative, tuned: TunedVariant) -> tuple[str, str, str]:
    """Score, wall time of a full run, and setting."""
    # Short times get a digit more, so that two that differ look different.
    time = f"{other.seconds:.1f} s" if other.seconds < 90 else duration(other.seconds)
    time = f"{time} a full run" if other.seconds else ""
    if other.config == tuned.config:
        return "the best itself", time, ""
    return f"{other.value:.4f} ({other.difference:+.4f})", time, setting(other.config)


def differences_table(verdict: Verdict) -> Table | None:
    """Every variant against the reference; None where there are too few for a table or nothing is known of noise."""
    if verdict.noise is None or len(verdict.differences) < 2:
        return None
    base = "plain LoRA" if verdict.reference == PLAIN else verdict.reference
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("  variant", no_wrap=True)
    for column in (f"minus {base}", "95% interval", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for name, one in verdict.differences.items():
        interval = "-" if one.low is None or one.high is None else f"{one.low:+.4f} to {one.high:+.4f}"
        p = "-" if one.p is None else f"{one.p:.2g}"
        table.add_row(f"  {name}", f"{one.value:+.4f}", interval, p, verdict.standings[name])
    return table
