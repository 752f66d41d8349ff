"""What a device has room for: how many tokens in one pass, and whether activations must be computed again.

On a GPU that is found by one short probe with the longest row, and kept in the run directory. After memory has run out
a trial goes on with less, and the next trial tries twice as much again, up to what the probe found.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from autolora import files
from autolora.bases import Base, ModelError
from autolora.bases.capacity import capacity
from autolora.bases.device import dtype_name
from autolora.documents import DocumentError, read_json
from autolora.errors import first_line
from autolora.trainers.builtin.passes import IN_MAIN_MEMORY, Passes
from autolora.trainers.memory import collected, out_of_memory

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

UNPROBED = Passes(tokens=4096, overhead=256)
"""On a device that does not tell how much memory it has."""
SPARE = 0.1
"""Share of the memory that is left for what the probe has not seen, such as fragments between blocks."""
MOST_OVERHEAD = 8192
"""Where even a large pass takes as long as a small one, this many tokens are what a pass costs."""
Checkpointing = bool | Literal["auto"]
_KEPT = TypeAdapter(dict[str, dict[str, Passes]])

Pass = Callable[[int], None]
"""Takes a number of copies of the longest row through one pass, forward and backward."""


@dataclass
class Room:
    """What a worker knows of its device, for each kind of adapter.

    Attributes:
        base: the resident model.
        longest: tokens of the longest row.
        checkpointing: whether activations are computed again: always, never, or where one row would not fit otherwise.
        file: where findings are kept over restarts.
        most: bytes that may be taken at most; None means as many as there are.
        peak: most bytes that the device has held before the latest probe.
    """

    base: Base
    longest: int
    checkpointing: Checkpointing
    file: Path
    most: int | None = None
    peak: int = 0
    _found: dict[str, Passes] = field(default_factory=dict)
    _now: dict[str, Passes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.checkpointing is True and not self.base.can_checkpoint:
            raise ModelError(
                f"training.gradient_checkpointing is true, but {type(self.base.model).__name__} does not support it: "
                "use auto or false"
            )

    def start(self, adapter: str, run: Pass, trained_bytes: int) -> Passes:
        """What a new trial starts with: what was found, or twice as much as memory had room for last.

        Args:
            adapter: its variant and rank.
            run: a pass of the attached model; called on a GPU whose room for the adapter is not known.
            trained_bytes: of the parameters that train.
        """
        if adapter not in self._found:
            self._found[adapter] = self._recalled().get(adapter) or self._find(adapter, run, trained_bytes)
            self._now[adapter] = self._found[adapter]
        found, now = self._found[adapter], self._now[adapter]
        if now.checkpointing and not found.checkpointing:  # one row at a time is the next that may fit without
            self._now[adapter] = replace(found, tokens=min(self.longest, found.tokens))
        else:
            self._now[adapter] = replace(found, tokens=min(2 * now.tokens, found.tokens))
        return self._now[adapter]

    def resumed(self, passes: Passes) -> Passes:
        """What a trial that was begun goes on with: as it was recorded, unless the user says otherwise by now."""
        if self.checkpointing == "auto":
            return passes
        return replace(passes, checkpointing=self.checkpointing)

    def less(self, adapter: str, passes: Passes, rows: int, tokens: int) -> Passes | None:
        """What a trial goes on with after memory has run out.

        Args:
            adapter: its variant and rank.
            passes: what it had.
            rows, tokens: of the pass that did not fit.

        Returns:
            None if nothing is left to try.
        """
        if rows > 1:
            less = passes.smaller(tokens)
        elif passes.checkpointing or self.checkpointing is False or not self.base.can_checkpoint:
            return None
        else:
            less = replace(self._default(), checkpointing=True, overhead=passes.overhead)
        if adapter in self._now:
            self._now[adapter] = less
        return less

    def _default(self) -> Passes:
        passes = IN_MAIN_MEMORY if self.base.device.type == "cpu" else UNPROBED
        # A model of the user's may have it on already.
        on = self.base.checkpoints if self.checkpointing == "auto" else self.checkpointing
        return replace(passes, checkpointing=on)

    def _find(self, adapter: str, run: Pass, trained_bytes: int) -> Passes:
        if self.base.device.type != "cuda":
            return self._default()
        passes = self._probed(run, trained_bytes, self._default().checkpointing)
        if passes is None and self.checkpointing == "auto" and self.base.can_checkpoint:
            passes = self._probed(run, trained_bytes, checkpointing=True)
        if passes is None:  # the trial finds out, and says so
            return self._default()
        self._keep(adapter, passes)
        return passes

    def _probed(self, run: Pass, trained_bytes: int, checkpointing: bool) -> Passes | None:
        """The probe; None if not even one row fits."""
        with self.base.checkpointing(checkpointing):
            # What libraries allocate and compile at first belongs to no pass.
            one = self._tried(run, 1) and self._tried(run, 1)
            if one is None:
                return None
            two = self._tried(run, 2)
            if two is None:
                return Passes(self.longest, 0, checkpointing)
        states = 2 * trained_bytes  # of AdamW, which come with the first step
        available = _available(self.base.device)
        available = available if self.most is None else min(available, self.most)
        return fitted(self.longest, one, two, available - states, checkpointing)

    def _tried(self, run: Pass, rows: int) -> Cost | None:
        """What a pass of that many rows takes; None if memory runs out."""
        try:
            return self._measured(run, rows)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        collected()  # the error is no longer held, whose frames hold the attempt
        return None

    def _recalled(self) -> dict[str, Passes]:
        if not self.file.exists():
            return {}
        try:
            return _KEPT.validate_python(read_json(self.file)).get(self._conditions(), {})
        except (DocumentError, ValidationError, OSError) as error:
            logger.warning("%s cannot be used (%s); it is found out again", files.shown(self.file), first_line(error))
            return {}

    def _keep(self, adapter: str, passes: Passes) -> None:
        """Where nothing can be written, the next start probes again."""
        kept = {self._conditions(): {**self._recalled(), adapter: passes}}
        try:
            files.write(self.file, _KEPT.dump_json(kept).decode())
        except OSError as error:
            logger.warning("what the device has room for is not kept: %s", error)

    def _conditions(self) -> str:
        """What the findings hold for."""
        there = capacity(self.base.device).bytes
        device = f"{_name(self.base.device)} of {there if self.most is None else min(there, self.most)} bytes"
        attention = getattr(self.base.model.config, "_attn_implementation", "")
        base = f"{dtype_name(self.base.dtype)} with {attention} attention"
        return f"{device}, {base}, rows of {self.longest} tokens, gradient_checkpointing {self.checkpointing}"

    def _measured(self, run: Pass, rows: int) -> Cost:
        import torch

        device = self.base.device
        self.peak = max(self.peak, torch.cuda.max_memory_allocated(device))  # which begins again now
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
        began = time.monotonic()
        run(rows)
        torch.cuda.synchronize(device)
        return Cost(torch.cuda.max_memory_allocated(device), time.monotonic() - began)


@dataclass(frozen=True)
class Cost:
    """Of a pass: bytes at its peak, and seconds."""

    memory: float
    seconds: float


def fitted(longest: int, one: Cost, two: Cost, available: float, checkpointing: bool = False) -> Passes:
    """The passes that fit into memory, by a straight line through what one and two rows took.

    Args:
        longest: tokens of a row.
        one, two: what a pass of one row and of two rows took.
        available: bytes that there are for all, what stays between passes included.
        checkpointing: whether activations were computed again.
    """
    a_token = max((two.memory - one.memory) / longest, 1.0)
    fixed = one.memory - a_token * longest
    tokens = max(longest, int(((1 - SPARE) * available - fixed) / a_token))
    seconds = (two.seconds - one.seconds) / longest
    overhead = one.seconds / seconds - longest if seconds > 0 else math.inf
    return Passes(tokens, int(min(max(overhead, 0.0), MOST_OVERHEAD)), checkpointing)


def _available(device: torch.device) -> int:
    """Bytes that this process has or can get."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)


def _name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device)
