"""How the rows of a batch are cut into forward passes: rows of similar length together, as many as memory has room for.

The cut is a function of the rows' lengths and of a :class:`Passes`, which is kept with the trial. So a run that was cut
takes the very passes that the uncut one takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from autolora.trainers.checkpoint import PassesRecord


@dataclass(frozen=True)
class Passes:
    """What one forward pass may hold.

    Attributes:
        tokens: most tokens of a pass, padding included. A longer row passes alone.
        overhead: tokens that the fixed cost of a pass is worth: padding up to there is cheaper than another pass.
        checkpointing: whether activations are computed again in the backward pass instead of kept.
    """

    tokens: Annotated[int, Field(ge=1)]
    overhead: Annotated[int, Field(ge=0)]
    checkpointing: bool = False

    def cut(self, lengths: np.ndarray, most: int | None = None) -> list[np.ndarray]:
        """The cheapest cut of rows into passes, the longest rows first: if memory runs out, it does so at once.

        Args:
            lengths: (rows,) tokens of each row.
            most: rows of a pass, if there is a limit.

        Returns:
            Indices into ``lengths``, a pass each; every row is in one of them.
        """
        order = np.argsort(-lengths, kind="stable")
        sorted_lengths, rows = lengths[order], len(lengths)
        most = min(most or rows, rows)
        best = np.zeros(rows + 1, dtype=np.int64)  # cost of the first rows
        first = np.zeros(rows + 1, dtype=np.int64)  # where the last of their passes begins
        begin = 0
        for end in range(1, rows + 1):
            while end - begin > 1 and (end - begin > most or sorted_lengths[begin] * (end - begin) > self.tokens):
                begin += 1
            begins = np.arange(begin, end)
            costs = best[begins] + sorted_lengths[begins] * (end - begins) + self.overhead
            first[end] = begins[costs.argmin()]
            best[end] = costs.min()
        passes = []
        end = rows
        while end > 0:
            passes.append(order[first[end] : end])
            end = int(first[end])
        return passes[::-1]

    def smaller(self, tokens: int) -> Passes:
        """What to try after memory has run out in a pass of ``tokens`` tokens."""
        return replace(self, tokens=max(1, min(self.tokens, tokens) // 2))

    def record(self) -> PassesRecord:
        """As a manifest keeps it."""
        return PassesRecord(tokens=self.tokens, overhead=self.overhead, checkpointing=self.checkpointing)

    @classmethod
    def of(cls, kept: PassesRecord) -> Passes:
        """What :meth:`record` gave."""
        return cls(kept["tokens"], kept["overhead"], kept["checkpointing"])


IN_MAIN_MEMORY = Passes(tokens=1024, overhead=64)
"""On a CPU: larger passes are no faster there. Of Llamas of 0.3M to 120M parameters on one and two cores, a pass costs
as much as 20 to 280 tokens beside those that it holds."""
