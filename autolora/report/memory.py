"""The memory plan for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autolora.adapters.memory import ROOM, Memory, Remedy, size

INDENT = (0, 0, 0, 2)


def memory_view(memory: Memory) -> RenderableType:
    """What training takes, part by part, whether it fits, and if not, what would make it fit."""
    examples = "one example" if memory.rows == 1 else f"{memory.rows} examples"
    head = f"Memory of {memory.variant} at rank {memory.rank}, {examples} of {memory.length:,} tokens at once, planned:"
    parts: list[RenderableType] = [Text(head), Padding(_parts(memory), INDENT), Text(_basis(memory))]
    if memory.fits is False:
        parts.append(Text(f"It does not fit into {_device(memory)}. What would make it smaller:"))
        parts.append(Padding(_remedies(memory.remedies), INDENT))
    return Group(*parts)


def _parts(memory: Memory) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_row("base", f"{memory.parameters:,} parameters in {memory.dtype}", size(memory.base_bytes))
    if memory.kept_bytes:
        kept = f"that {memory.variant} subtracts its start from, kept besides"
        table.add_row("base weights", kept, size(memory.kept_bytes))
    adapter = f"{memory.trained:,} trained, with gradients and optimizer in float32"
    table.add_row("adapter", adapter, size(memory.adapter_bytes))
    if memory.activation_bytes is None or memory.total_bytes is None or memory.token_bytes is None:
        return table
    tokens = f"of {memory.rows * memory.length:,} tokens, {size(memory.token_bytes)} each"
    table.add_row("activations", tokens, size(memory.activation_bytes))
    fits = "" if memory.fits is None else f"{'fits' if memory.fits else 'does not fit'} into {_device(memory)}"
    table.add_row("in all", fits if not memory.checkpointing else "", size(memory.total_bytes))
    if memory.checkpointed_bytes is not None:
        checkpointed = ["with gradient checkpointing"]
        if memory.device is not None:
            checkpointed.append("fits" if memory.device.holds(memory.checkpointed_bytes) else "does not fit")
        table.add_row("", ", ".join(checkpointed), size(memory.checkpointed_bytes))
    return table


def _device(memory: Memory) -> str:
    assert memory.device is not None
    return f"{ROOM:.0%} of {size(memory.device.bytes)} of {memory.device.name}"


def _basis(memory: Memory) -> str:
    if memory.activations is None:
        return "Activations are not known: the configuration names no width or no number of layers."
    if memory.formula:
        return (
            "Activations by a formula of width, depth and tokens, since a step of this model cannot be counted "
            f"({memory.formula.rstrip('.')})."
        )
    return "Activations are counted on a training step of tensors without values."


def _remedies(remedies: tuple[Remedy, ...]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for remedy in remedies:
        table.add_row(remedy.change, size(remedy.total_bytes), "fits" if remedy.fits else "does not fit")
    return table
