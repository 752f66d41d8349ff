"""What a device has room for: how many tokens in one pass of a variant, and whether activations must be computed again.

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
"""Runs the longest row so many times in one pass, forward and backward."""


@dataclass
class Room:
    """What a worker knows of its device; of a variant by name.

    Attributes:
        base: the resident model.
        longest: tokens of the longest row.
        checkpointing: whether activations are computed again: always, never, or where one row would not fit otherwise.
        file: where findings are kept over restarts.
    """

    base: Base
    longest: int
    checkpointing: Checkpointing
    file: Path
    _found: dict[str, Passes] = field(default_factory=dict)
    _now: dict[str, Passes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.checkpointing is True and not self._can_checkpoint:
            raise ModelError(
                f"training.gradient_checkpointing is true, but {type(self.base.model).__name__} does not support it: "
                "use auto or false"
            )

    def start(self, variant: str, run: Pass, trained_bytes: int) -> Passes:
        """What a new trial starts with.

        Args:
            variant: its name.
            run: a pass of the attached model; called on a GPU whose room for the variant is not known.
            trained_bytes: of the parameters that train.
        """
        if variant not in self._found:
            self._found[variant] = self._recalled().get(variant) or self._find(variant, run, trained_bytes)
            self._now[variant] = self._found[variant]
        found, now = self._found[variant], self._now[variant]
        if now != found:
            self._now[variant] = replace(now, tokens=min(2 * now.tokens, found.tokens))
        return self._now[variant]

    def less(self, variant: str, passes: Passes, rows: int, tokens: int) -> Passes | None:
        """What a trial goes on with after memory has run out.

        Args:
            variant: its name.
            passes: what it had.
            rows, tokens: of the pass that did not fit.

        Returns:
            None if nothing is left to try.
        """
        if rows > 1:
            less = passes.smaller(tokens)
        elif passes.checkpointing or self.checkpointing is False or not self._can_checkpoint:
            return None
        else:
            less = replace(self._default(), checkpointing=True, overhead=passes.overhead)
        if variant in self._now:
            self._now[variant] = less
        return less

    @property
    def _can_checkpoint(self) -> bool:
        return bool(self.base.model.supports_gradient_checkpointing)

    def _default(self) -> Passes:
        passes = IN_MAIN_MEMORY if self.base.device.type == "cpu" else UNPROBED
        model = self.base.model  # one of the user's may have it on already
        on = model.is_gradient_checkpointing if self.checkpointing == "auto" else self.checkpointing
        return replace(passes, checkpointing=bool(on))

    def _find(self, variant: str, run: Pass, trained_bytes: int) -> Passes:
        if self.base.device.type != "cuda":
            return self._default()
        passes = self._probed(run, trained_bytes, self.checkpointing is True)
        if passes is None and self.checkpointing == "auto" and self._can_checkpoint:
            passes = self._probed(run, trained_bytes, checkpointing=True)
        if passes is None:  # the trial finds out, and says so
            return self._default()
        self._keep(variant, passes)
        return passes

    def _probed(self, run: Pass, trained_bytes: int, checkpointing: bool) -> Passes | None:
        """The probe; None if not even one row fits."""
        with self.base.checkpointing(checkpointing):
            try:
                run(1)  # what libraries allocate and compile at first is none of a pass
                one = _measured(run, 1, self.base.device)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                one = None
            if one is None:
                collected()
                return None
            try:
                two = _measured(run, 2, self.base.device)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                two = None
            if two is None:
                collected()
                return Passes(self.longest, 0, checkpointing)
        states = 2 * trained_bytes  # of AdamW, which come with the first step
        return fitted(self.longest, one, two, _available(self.base.device) - states, checkpointing)

    def _recalled(self) -> dict[str, Passes]:
        if not self.file.exists():
            return {}
        try:
            return _KEPT.validate_python(read_json(self.file)).get(self._conditions(), {})
        except (DocumentError, ValidationError, OSError) as error:
            logger.warning("%s cannot be used (%s); it is found out again", files.shown(self.file), first_line(error))
            return {}

    def _keep(self, variant: str, passes: Passes) -> None:
        import json

        kept = {self._conditions(): {**self._recalled(), variant: passes.as_dict()}}
        files.write(self.file, json.dumps(kept, default=Passes.as_dict))

    def _conditions(self) -> str:
        """What the findings hold for."""
        import torch

        name = torch.cuda.get_device_name(self.base.device) if self.base.device.type == "cuda" else "cpu"
        return f"{name}, rows of {self.longest} tokens, gradient_checkpointing {self.checkpointing}"


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


def _measured(run: Pass, rows: int, device: torch.device) -> Cost:
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.synchronize(device)
    began = time.monotonic()
    run(rows)
    torch.cuda.synchronize(device)
    return Cost(torch.cuda.max_memory_allocated(device), time.monotonic() - began)


def _available(device: torch.device) -> int:
    """Bytes that this process has or can get."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)
