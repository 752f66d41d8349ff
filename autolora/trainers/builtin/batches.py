"""Which rows a step trains on, and a fixed sample of rows to measure by; as tensors on the base's device."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from autolora.bases import Base
from autolora.losses import with_places
from autolora.tasks.causal_lm.split import Split
from autolora.trainers.randomness import ORDER, generator

if TYPE_CHECKING:
    import torch

ORDERS_KEPT = 4
"""Epochs whose order is kept in memory; any other is drawn again when it is needed."""
CALIBRATION_EXAMPLES, CALIBRATION_BATCH = 32, 8
"""Training examples given to variants that look at gradients or activations before they start."""


def given(split: Split, rows: np.ndarray, base: Base) -> dict[str, torch.Tensor]:
    """Rows of a split as a base is best given them: one behind the other, or padded, without a mask if it needs none.

    The shortcuts are those of :class:`autolora.bases.reading.Reading`. Where the targets are is told with them, as it
    is known here, on the CPU.
    """
    if base.reading.joined:
        return with_places(split.joined(rows))
    batch = split.batch(rows, base.pad_token_id)
    if not base.reading.masked:
        del batch["attention_mask"]
    return with_places(batch)


@dataclass
class Batches:
    """The training rows of a study.

    Attributes:
        split: the tokenized rows.
        base: whose device and padding token the batches have.
        seed: of the study.
        most: rows in one forward pass of the calibration sample, if there is a limit.
    """

    split: Split
    base: Base
    seed: int
    most: int | None = None
    _orders: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def rows(self, seed: int, begin: int, end: int) -> np.ndarray:
        """Rows (end - begin,) of a run from its ``begin``-th example (0-based) on, whatever the configuration.

        The order is an endless sequence of permutations, a function of the seeds alone, so a resumed run needs no
        stored position and trials of equal seed see the same examples in the same order.
        """
        rows = len(self.split)
        places = np.arange(begin, end)
        chosen = np.empty(end - begin, dtype=np.int64)
        for epoch in np.unique(places // rows):
            inside = places // rows == epoch
            chosen[inside] = self._order(seed, int(epoch))[places[inside] % rows]
        return chosen

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        if (seed, epoch) not in self._orders:
            if len(self._orders) >= ORDERS_KEPT:
                self._orders.clear()
            self._orders[seed, epoch] = generator(self.seed, seed, ORDER, epoch).permutation(len(self.split))
        return self._orders[seed, epoch]

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """These rows as :meth:`autolora.tasks.causal_lm.split.Split.batch` has them, on the CPU."""
        return self.split.batch(rows, self.base.pad_token_id)

    def read(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """These rows as the model is best given them, see :func:`given`, on the CPU."""
        return given(self.split, rows, self.base)

    @cached_property
    def calibration(self) -> list[dict[str, torch.Tensor]]:
        """A fixed sample of training examples, the same for every trial of the study, in micro-batches."""
        count = min(CALIBRATION_EXAMPLES, len(self.split))
        rows = generator(self.seed, 0, ORDER, 0).permutation(len(self.split))[:count]
        size = min(CALIBRATION_BATCH, self.most or CALIBRATION_BATCH)
        return [self.base.placed(self.batch(rows[begin : begin + size])) for begin in range(0, count, size)]

    def calibration_sample(self, examples: int) -> list[dict[str, torch.Tensor]]:
        """The first batches of the calibration sample that make up this many examples, or all there are."""
        sample: list[dict[str, torch.Tensor]] = []
        for batch in self.calibration:
            if sum(len(part["input_ids"]) for part in sample) >= examples:
                break
            sample.append(batch)
        return sample
