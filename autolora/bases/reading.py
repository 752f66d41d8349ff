"""How a model is given rows, and how its head is run: found out on the model itself, not by its name.

Each shortcut is taken where the model then says the same, and left where it does not or fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from autolora.adapters.statistics import evaluating
from autolora.bases.base import Base, Reading
from autolora.bases.device import dtype_name
from autolora.bases.memory import out_of_memory
from autolora.losses import IGNORED, target_logits

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    Batch = Mapping[str, Tensor]

logger = logging.getLogger(__name__)

LENGTHS = (7, 4)
"""Tokens of the rows that are tried, the shorter one padded."""
CLOSE = {"float32": 1e-3, "float64": 1e-6}
"""Largest difference of logits that is rounding, relative to their range, by the base's dtype."""
CLOSE_IN_HALF = 2e-2
"""The same in 16 bits."""


def reading_of(base: Base) -> Reading:
    """Try the shortcuts on a base, in a few forward passes of two short rows.

    A model that has too few positions or tokens for that takes none.
    """
    rows = _rows(base)
    if rows is None:
        return Reading()
    whole = _padded(rows, base.pad_token_id)
    bare = {name: tensor for name, tensor in whole.items() if name != "attention_mask"}
    trial = _Trial(base, whole)
    masked = not trial.same(bare, target_logits)
    apart = trial.same(whole if masked else bare, _apart)
    joined = variable_length(base.model) and trial.same(_joined(rows), _apart if apart else target_logits)
    return Reading(masked, apart, joined)


def variable_length(model: PreTrainedModel) -> bool:
    """Whether a model's attention has kernels for rows of any length one behind the other, which others mask."""
    return "flash" in str(getattr(model.config, "_attn_implementation", ""))


class _Trial:
    """Compares a way to read with the plain one: all tokens, with a mask."""

    def __init__(self, base: Base, batch: Batch) -> None:
        self._base = base
        self._plain = self._logits(batch, target_logits)

    def same(self, batch: Batch, read: Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]) -> bool:
        """Whether it gives the same logits but for rounding; not if it fails."""
        try:
            logits = self._logits(batch, read)
        except Exception as error:  # of an architecture that is built otherwise: whatever it raises
            if out_of_memory(error):
                raise
            logger.debug("%s: %s is not possible", type(self._base.model).__name__, read.__name__, exc_info=error)
            return False
        if logits.shape != self._plain.shape:
            return False
        low, high = self._plain.aminmax()
        close = CLOSE.get(dtype_name(self._base.dtype), CLOSE_IN_HALF) * float(high - low)
        return bool(((logits - self._plain).abs() <= close).all())

    def _logits(self, batch: Batch, read: Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]) -> Tensor:
        import torch

        with evaluating(self._base.model), torch.no_grad(), self._base.autocast():
            logits, _ = read(self._base.model, self._base.placed(batch))
        return logits


def _apart(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    from autolora.head import separate_logits

    return separate_logits(model, batch)


def _rows(base: Base) -> list[list[int]] | None:
    """Rows of LENGTHS tokens; None if the model cannot read such."""
    tokens = list(islice(base.plain_tokens(), sum(LENGTHS)))
    if len(tokens) < sum(LENGTHS) or (base.limits.positions or max(LENGTHS)) < max(LENGTHS):
        return None
    return [tokens[: LENGTHS[0]], tokens[LENGTHS[0] :]]


def _padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Rows padded on the right; all their tokens but the first are targets."""
    import torch

    width = max(map(len, rows))
    padding = [width - len(row) for row in rows]
    return {
        "input_ids": torch.tensor([[*row, *[pad] * more] for row, more in zip(rows, padding, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * more for row, more in zip(rows, padding, strict=True)]),
        "labels": torch.tensor([[*row, *[IGNORED] * more] for row, more in zip(rows, padding, strict=True)]),
    }


def _joined(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Rows one behind the other, told apart by their positions; the first token of each is not a target."""
    import torch

    return {
        "input_ids": torch.tensor([[token for row in rows for token in row]]),
        "position_ids": torch.tensor([[position for row in rows for position in range(len(row))]]),
        "labels": torch.tensor([[label for row in rows for label in (IGNORED, *row[1:])]]),
    }
