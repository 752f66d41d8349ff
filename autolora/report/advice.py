"""Advice for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autolora.adapters.memory import Memory
from autolora.priors.advice import WORDS, Advice
from autolora.report.memory import memory_view

INDENT = (0, 0, 0, 2)


def advice_view(advice: Advice) -> RenderableType:
    """What `autolora recommend` shows: the answer first, then what it is about and what it rests on."""
    answer = f"learning rate {advice.learning_rate:.1e} (90%: {advice.low:.1e} to {advice.high:.1e})"
    about = f"for {advice.variant}" + ("" if advice.model is None else f" on {advice.model}")
    ranks = {each.rank: f"{each.alpha:.4g}" for each in advice.neighbors}
    parts = [
        Group(Text(answer, style="bold"), Text(about)),
        Padding(_setting(advice), INDENT),
        Text(advice.reason),
        Group(Text(f"By rank (alpha {', '.join(ranks.values())}) and batch size:"), Padding(_rates(advice), INDENT)),
        *map(Text, _paragraphs(advice)),
        *([] if advice.memory is None else [_memory(advice.memory)]),
    ]
    return Group(*(line for part in parts for line in (part, Text())))


def _setting(advice: Advice) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, label, value in (
        ("hidden_size", "hidden size", _count(advice.hidden_size)),
        ("rank", "rank", str(advice.rank)),
        ("alpha", "alpha", f"{advice.alpha:.4g} (s = {advice.scale:.3g})"),
        ("batch_size", "batch size", str(advice.batch_size)),
        ("examples", "examples", _count(advice.examples)),
    ):
        why = advice.assumed.get(name)
        table.add_row(label, value, "" if why is None else f"assumed: {why}")
    return table


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _rates(advice: Advice) -> Table:
    """Best guesses, a row for each rank and a column for each batch size."""
    batches = sorted({each.batch_size for each in advice.neighbors})
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rank", justify="right", no_wrap=True)
    for batch in batches:
        table.add_column(f"batch {batch}", justify="right", no_wrap=True)
    rates = {(each.rank, each.batch_size): each.learning_rate for each in advice.neighbors}
    for rank in sorted({each.rank for each in advice.neighbors}):
        table.add_row(str(rank), *(f"{rates[rank, batch]:.1e}" for batch in batches))
    return table


def _paragraphs(advice: Advice) -> Iterator[str]:
    yield from advice.advice
    ranges = ", ".join(f"{WORDS[name]} {low:,g} to {high:,g}" for name, (low, high) in advice.evidence.items())
    outside = (f" {each.text[0].upper()}{each.text[1:]}." for each in advice.outside)
    yield f"Evidence on {advice.evidence_on}: runs with {ranges}.{''.join(outside)}"
    yield from advice.notes


def _memory(memory: Memory) -> RenderableType:
    return Group(
        memory_view(memory), Text("`autolora tune --dry-run` plans it for the rows of your data, and measures it.")
    )
