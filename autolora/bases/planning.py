"""The memory plan: what a setting takes on a device, whether it fits, and what would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autolora.adapters.memory import STATE_BYTES, Growth, Memory, Remedy, by_formula
from autolora.bases.base import Base, Reading
from autolora.bases.blank import blank_model
from autolora.bases.device import dtype_name, own_dtype
from autolora.errors import first_line

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from autolora.bases.footprint import Footprint
    from autolora.bases.tracing import Trace

LENGTH = 1024
"""Tokens of an example if none are given, or as many as the model can read."""
HALF = 2
"""Bytes of a number of a base under autocast."""
LEAST_LENGTH, LEAST_RANK = 64, 1
"""How far a plan proposes to cut examples, and to lower the rank."""


@dataclass(frozen=True)
class Setting:
    """What a plan is about.

    Attributes:
        rank: of the adapter.
        rows, length: examples in one forward pass, and tokens of each, padding included.
        dtype: of the base's weights; None: as the outline has them.
        bits: of its linear layers, 4 or 8; None: they are in ``dtype``, too.
        dropout: on the adapter's input.
        checkpointing: layers are computed again in the backward pass.
    """

    rank: int
    rows: int = 1
    length: int = LENGTH
    dropout: float = 0.0
    dtype: torch.dtype | None = None
    bits: int | None = None
    checkpointing: bool = False


@dataclass(frozen=True)
class Yields:
    """What a trainer does by itself where memory runs out.

    Attributes:
        passes: it passes fewer examples at once, down to one.
        checkpointing: then it computes activations again.
    """

    passes: bool = False
    checkpointing: bool = False


RIGID = Yields()
PLAIN, WHOLE = Reading(masked=False, apart=True), Reading(masked=False, apart=False)


def blank_of(base: Base) -> PreTrainedModel:
    """The model of a base without values, on the device "meta"; of a packed one, as it is before it is packed."""
    from autolora.bases.tracing import without_values

    if base.bits is None:
        return without_values(base.model)
    return blank_model(base.model.config, base.model.config._attn_implementation)


def plan_memory(
    footprint: Footprint,
    setting: Setting,
    device: torch.device | None = None,
    reading: Reading | None = None,
    yields: Yields = RIGID,
    *,
    most: int | None = None,
    besides: int = 0,
) -> Memory | None:
    """The plan of a setting.

    Args:
        footprint: the variant on the model.
        setting: what is trained; plans say what it takes with gradient checkpointing and without, whichever it has.
        device: where; None: the plan is held against none.
        reading: how the model is read; None: without a mask, and with the head apart where that is possible.
        yields: what becomes of a setting that does not fit, before the plan says so.
        most, besides: as for :func:`autolora.bases.capacity.capacity`.

    Returns:
        The plan, with remedies if it does not fit; None if what trains can only be counted with the weights.
    """
    from autolora.bases.capacity import capacity

    planner = _Planner(footprint, setting, device, reading)
    plan = planner.plan(setting)
    if plan is None or device is None:
        return plan
    plan = replace(plan, device=capacity(device) if most is None else capacity(device, most, besides))
    if plan.fits is not False:
        return plan
    for lessened in _yielding(setting, plan, yields):
        plan = lessened
        if plan.fits:
            return plan
    return replace(plan, remedies=tuple(planner.remedies(plan)))


def _yielding(setting: Setting, plan: Memory, yields: Yields) -> Iterator[Memory]:
    """The plan with less and less at once, in the order that a trainer tries it."""
    for rows in _halves(setting.rows, 1) if yields.passes else ():
        plan = replace(plan, rows=rows, batch=setting.rows)
        yield plan
    if yields.checkpointing and plan.checkpointed is not None and not plan.checkpointing:
        for rows in (setting.rows, *_halves(setting.rows, 1)) if yields.passes else (setting.rows,):
            batch = None if rows == setting.rows else setting.rows
            yield replace(plan, rows=rows, batch=batch, checkpointing=True, yields_checkpointing=True)


@dataclass(frozen=True)
class _Change:
    """A change to a setting: in words, of which field, and to what."""

    words: str
    field: str
    value: Any


class _Planner:
    """Plans of settings that differ in a few values; a step is traced once for all of those that it tells of."""

    def __init__(
        self,
        footprint: Footprint,
        setting: Setting,
        device: torch.device | None,
        reading: Reading | None,
    ) -> None:
        self.footprint, self.setting = footprint, setting
        self.on_cpu = device is not None and device.type == "cpu"
        self.readings = (PLAIN, WHOLE) if reading is None else (reading,)
        self._traces: dict[tuple[torch.dtype | None, bool], Trace | str] = {}
        self._trained: dict[int, int | None] = {}

    @cached_property
    def adapted(self) -> PeftModel | None:
        """The model with the first setting's adapter; None if that takes the values of weights."""
        return self.footprint.adapted(self.setting.rank, self.setting.dropout)

    def trained(self, rank: int) -> int | None:
        """Parameters that train at a rank; None if they can only be counted with the weights."""
        if rank not in self._trained:
            self._trained[rank] = self.footprint.trained(rank)
        return self._trained[rank]

    def trace(self, dtype: torch.dtype | None, checkpointing: bool) -> Trace | str:
        """A step of the first setting in this dtype, with or without checkpointing; or why there is none."""
        key = (dtype, checkpointing)
        if key not in self._traces:
            self._traces[key] = self._trace(dtype, checkpointing)
        return self._traces[key]

    def _trace(self, dtype: torch.dtype | None, checkpointing: bool) -> Trace | str:
        from autolora.bases.tracing import Pass, trace

        if self.adapted is None:
            return f"what {self.footprint.variant.name} trains depends on the weights"
        held = dtype or own_dtype(self.footprint.model)
        half = held if held.itemsize == HALF else None
        why = ""
        for reading in self.readings:
            each = Pass(
                rows=self.setting.rows,
                length=self.setting.length,
                dtype=dtype,
                half=half,
                checkpointing=checkpointing,
                masked=reading.masked,
                apart=reading.apart,
            )
            try:
                return trace(self.adapted, self.footprint.variant, each)
            except MemoryError:
                raise
            except Exception as error:  # of a model's own code, which may raise what it pleases without values
                why = f"{type(error).__name__}: {first_line(error):.200}"
        return why

    def activations(self, dtype: torch.dtype | None, checkpointing: bool) -> Growth | None:
        """Counted if a step of the first setting can be, otherwise by the formula; None if that is not known.

        Numbers of the two are not to be compared, so all of a plan and its remedies are of one kind.
        """
        model, outline = self.footprint.model, self.footprint.outline
        if checkpointing and not model.supports_gradient_checkpointing:
            return None
        if not isinstance(self.trace(self.setting.dtype, checkpointing=False), str):
            trace = self.trace(dtype, checkpointing)
            return None if isinstance(trace, str) else trace.activations
        # The formula knows nothing of experts.
        if self.footprint.has_experts or outline.hidden_size is None or outline.layers is None:
            return None
        width = (dtype or own_dtype(model)).itemsize
        return by_formula(outline.hidden_size, outline.layers, width, checkpointing)

    def plan(self, setting: Setting) -> Memory | None:
        """The parts of a setting; None if what trains can only be counted with the weights."""
        footprint, dtype = self.footprint, setting.dtype
        trained = self.trained(setting.rank)
        if trained is None:
            return None
        trace = self.trace(self.setting.dtype, checkpointing=False)
        formula, state = (trace, STATE_BYTES * trained) if isinstance(trace, str) else ("", _state(trace, trained))
        return Memory(
            variant=footprint.variant.name,
            rank=setting.rank,
            parameters=footprint.parameters,
            base_bytes=footprint.base_bytes(dtype, setting.bits),
            bits=setting.bits,
            kept_bytes=footprint.kept_bytes(setting.rank, dtype, setting.bits) if self.on_cpu or setting.bits else 0,
            dtype=dtype_name(dtype or own_dtype(footprint.model)),
            trained=trained,
            optimizer_bytes=state,
            hidden_size=footprint.outline.hidden_size,
            layers=footprint.outline.layers,
            rows=setting.rows,
            length=setting.length,
            checkpointing=setting.checkpointing,
            activations=self.activations(dtype, checkpointing=False),
            checkpointed=self.activations(dtype, checkpointing=True),
            formula=formula,
        )

    def remedies(self, plan: Memory) -> Iterator[Remedy]:
        """Changes to a plan that does not fit: each alone, then, if none of them is enough, more and more together."""
        assert plan.device is not None
        holds = plan.device.holds
        first = replace(self.setting, rows=plan.rows, checkpointing=plan.checkpointing)
        changes = list(self._changes(first))
        alone = [*(self._remedy(first, [change], holds) for change in changes), *self._cut(first, [], holds)]
        known = [remedy for remedy in alone if remedy is not None]
        yield from known
        if any(remedy.fits for remedy in known):
            return
        for number in range(2, len(changes) + 1):
            together = self._remedy(first, changes[:number], holds)
            if together is not None:
                yield together
                if together.fits:
                    return
        yield from self._cut(first, changes, holds)

    def _changes(self, first: Setting) -> Iterator[_Change]:
        """What can be changed of a setting, that which costs least first; nothing of which no number is known."""
        import torch

        if not first.checkpointing and self.activations(first.dtype, checkpointing=True) is not None:
            yield _Change("gradient checkpointing", "checkpointing", True)
        if first.rows > 1:
            yield _Change("one example at a time", "rows", 1)
        wide = (first.dtype or own_dtype(self.footprint.model)).itemsize > HALF
        if wide and self.activations(torch.bfloat16, first.checkpointing) is not None:
            yield _Change("a bfloat16 base", "dtype", torch.bfloat16)
        if first.bits is None and self.footprint.packable:
            yield _Change("a 4-bit base", "bits", 4)

    def _cut(self, first: Setting, changes: list[_Change], holds: Callable[[int], bool]) -> Iterator[Remedy]:
        """The largest half, quarter and so on of the length that fits, and of the rank."""
        lengths = (_Change(f"max_length {size}", "length", size) for size in _halves(first.length, LEAST_LENGTH))
        ranks = (_Change(f"rank {size}", "rank", size) for size in _halves(first.rank, LEAST_RANK))
        for candidates in (lengths, ranks):
            remedies = (self._remedy(first, [*changes, candidate], holds) for candidate in candidates)
            enough = next((remedy for remedy in remedies if remedy is not None and remedy.fits), None)
            if enough is not None:
                yield enough

    def _remedy(self, first: Setting, changes: list[_Change], holds: Callable[[int], bool]) -> Remedy | None:
        """A setting with changes; None if what it takes is not known."""
        plan = self.plan(replace(first, **{change.field: change.value for change in changes}))
        if plan is None or plan.planned_bytes is None:
            return None
        words, fields = ", ".join(change.words for change in changes), tuple(change.field for change in changes)
        return Remedy(words, plan.planned_bytes, holds(plan.planned_bytes), fields)


def _state(trace: Trace, trained: int) -> int:
    """Bytes of the optimizer's state for a number of parameters."""
    return trace.state_bytes * trained // trace.trained


def _halves(number: int, least: int) -> Iterator[int]:
    while number // 2 >= least:
        number //= 2
        yield number
