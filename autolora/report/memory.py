"""The memory plan for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autolora.adapters.memory import ROOM, Memory, Remedy, size

INDENT = (0, 0, 0, 2)
MOSTLY = 0.75
"""Share of activations that half as many tokens take, above which they are not stated for each token."""


def memory_view(memory: Memory) -> RenderableType:
    """What training takes, part by part, whether it fits, and if not, what would make it fit."""
    examples = "one example" if memory.rows == 1 else f"{memory.rows} examples"
    head = f"Memory of {memory.variant} at rank {memory.rank}, {examples} of {memory.length:,} tokens at once, planned:"
    parts: list[RenderableType] = [Text(head), Padding(_parts(memory), INDENT), Text(_basis(memory))]
    if memory.yielded:
        parts.append(Text(f"This is with {memory.yielded}, which the trainer turns to where memory is short."))
    if memory.fits is False:
        smaller = " What would make it smaller:" if memory.remedies else ""
        parts.append(Text(f"It does not fit into {_device(memory)}.{smaller}"))
        parts.append(Padding(_remedies(memory.remedies), INDENT))
    return Group(*parts)


def _parts(memory: Memory) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_row("base", f"{memory.parameters:,} parameters in {memory.held}", size(memory.base_bytes))
    if memory.kept_bytes:
        if memory.bits:
            table.add_row("start", f"that {memory.variant} subtracts beside the base", size(memory.kept_bytes))
        else:
            kept = f"that {memory.variant} subtracts its start from, kept besides"
            table.add_row("base weights", kept, size(memory.kept_bytes))
    adapter = f"{memory.trained:,} trained, with gradients and optimizer in float32"
    table.add_row("adapter", adapter, size(memory.adapter_bytes))
    rows = {checkpointing: _row(memory, checkpointing) for checkpointing in (False, True)}
    planned, other = rows[memory.checkpointing], rows[not memory.checkpointing]
    if planned is None:
        return table
    activations, total = planned
    table.add_row("activations", _tokens(memory, activations), size(activations))
    fits = "" if memory.device is None else f"{_fits(memory, total)} into {_device(memory)}"
    table.add_row("in all", fits, size(total))
    if other is not None:
        words = f"with{'out' if memory.checkpointing else ''} gradient checkpointing"
        table.add_row("", ", ".join(filter(None, [words, _fits(memory, other[1])])), size(other[1]))
    return table


def _row(memory: Memory, checkpointing: bool) -> tuple[int, int] | None:
    """Bytes of activations and of all, with gradient checkpointing or without; None if not known."""
    growth = memory.checkpointed if checkpointing else memory.activations
    if growth is None:
        return None
    activations = growth.at(memory.rows, memory.length)
    return activations, memory.resident_bytes + activations


def _tokens(memory: Memory, activations: int) -> str:
    """What activations are of. Sums of experts' weights and their adapters are kept, too, for any number of tokens."""
    growth, tokens = memory.checkpointed if memory.checkpointing else memory.activations, memory.rows * memory.length
    assert growth is not None
    if growth.at(memory.rows, memory.length // 2) > MOSTLY * activations:
        return f"of {tokens:,} tokens, most of it for fewer, too"
    return f"of {tokens:,} tokens, {size(activations / tokens)} each"


def _fits(memory: Memory, total: int) -> str:
    """Whether so many bytes fit; empty if the plan is held against no device."""
    if memory.device is None:
        return ""
    return "fits" if memory.device.holds(total) else "does not fit"


def _device(memory: Memory) -> str:
    assert memory.device is not None
    return f"{ROOM:.0%} of {memory.device.owner}'s {size(memory.device.bytes)}"


def _basis(memory: Memory) -> str:
    besides = " What Python and its libraries take comes on top."
    if memory.activations is None and (memory.hidden_size is None or memory.layers is None):
        return "Activations are not known: the configuration names no width or no number of layers."
    if memory.activations is None:
        return (
            "Activations are not known: a step of this model cannot be counted, and its experts do not follow from "
            "width and depth."
        )
    if memory.formula:
        return (
            "Activations are estimated from width, depth and tokens, because a step of this model cannot be counted. "
            f"Expect them to be off.{besides}"
        )
    return f"Activations are counted on a training step of tensors without values.{besides}"


def _remedies(remedies: tuple[Remedy, ...]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for remedy in remedies:
        table.add_row(remedy.change, size(remedy.total_bytes), "fits" if remedy.fits else "does not fit")
    return table
