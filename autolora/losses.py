"""The loss that everything is trained, scored and measured by: cross-entropy of the target tokens.

Here from the logits of whole batches, differentiable as often as one likes; :mod:`autolora.head` trains and scores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100
"""The label that transformers and torch leave out of the loss."""
INPUTS = ("input_ids", "attention_mask", "position_ids")
"""What of a batch a model reads."""
PLACES = "places"
"""Key of a batch under which :func:`with_places` keeps where its targets are."""


def with_places(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch on the CPU with its :func:`target_places`, so that later no accelerator has to be asked for them."""
    return {**batch, PLACES: target_places(batch)}


def target_places(batch: Mapping[str, Tensor]) -> Tensor:
    """Where the tokens are that predict a target: row * seq + position, (targets,) int64, row by row.

    The token behind each is its target. On an accelerator this waits for the device, unless the batch was given them
    by :func:`with_places`.
    """
    if PLACES in batch:
        return batch[PLACES]
    labels = batch["labels"]
    found = (labels[:, 1:] != IGNORED).nonzero()
    return found[:, 0] * labels.shape[1] + found[:, 1]


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, object]:
    """The arguments of a forward pass over a batch: what it has of INPUTS, and no cache."""
    return {**{name: batch[name] for name in INPUTS if name in batch}, "use_cache": False}


def all_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits (batch, seq, vocabulary) of a forward pass, as the model gives them."""
    with one_sequence_a_row("position_ids" not in batch):
        logits: Tensor = model(**model_inputs(batch)).logits
    return logits


@contextmanager
def one_sequence_a_row(known: bool) -> Iterator[None]:
    """Without transformers looking for several sequences in a row, if it is known that there are none.

    It looks at the positions, which it has counted itself, and so waits for the device in every forward pass. Under
    ``torch.compile``, or where tensors have no values, it cannot look, and builds a mask with which attention is slower
    and needs more memory.
    """
    if not known:
        yield
        return
    _ROWS.enter()
    try:
        yield
    finally:
        _ROWS.leave()


class _OneSequence:
    """What stands for the function of transformers while any thread is inside. The last to leave puts it back: if each
    put back what it had found, threads that overlap would leave the stand-in there for good.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._own: Callable[..., Any] | None = None

    def enter(self) -> None:
        from transformers import masking_utils

        with self._lock:
            if self._inside == 0:
                self._own = masking_utils.find_packed_sequence_indices
                masking_utils.find_packed_sequence_indices = _none_found
            self._inside += 1

    def leave(self) -> None:
        from transformers import masking_utils

        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                masking_utils.find_packed_sequence_indices = self._own


def _none_found(position_ids: Tensor) -> None:
    return None


_ROWS = _OneSequence()


def target_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the model says where the loss is taken.

    Args:
        model: a causal language model.
        batch: input_ids and labels, each (batch, seq); attention_mask and position_ids where the model needs them.
            Labels are -100 where no loss is taken.

    Returns:
        Logits (targets, vocabulary) in float32 or finer, and the tokens they should predict (targets,).
    """
    import torch

    places = target_places(batch)
    logits = all_logits(model, batch).flatten(0, 1).index_select(0, places)
    targets = batch["labels"].flatten().index_select(0, places + 1)
    return logits if logits.dtype == torch.float64 else logits.float(), targets


def token_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of each target token.

    Args:
        model, batch: see :func:`target_logits`.

    Returns:
        Losses (targets,), predicted tokens (targets,), and the targets (targets,).
    """
    import torch

    logits, targets = target_logits(model, batch)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none"), logits.argmax(-1), targets


def target_count(batch: Mapping[str, Tensor]) -> int:
    """Number of terms that a batch contributes to the loss."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())
