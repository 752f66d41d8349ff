"""The loss that everything is trained, scored and measured by: cross-entropy of the target tokens.

Here from the logits of whole batches, differentiable as often as one likes; :mod:`autolora.head` trains and scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100
"""The label that transformers and torch leave out of the loss."""
INPUTS = ("input_ids", "attention_mask", "position_ids")
"""What of a batch a model reads."""


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, object]:
    """The arguments of a forward pass over a batch: what it has of INPUTS, and no cache."""
    return {**{name: batch[name] for name in INPUTS if name in batch}, "use_cache": False}


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

    logits = model(**model_inputs(batch)).logits
    labels = batch["labels"][:, 1:]
    kept = labels != IGNORED
    logits = logits[:, :-1][kept]
    return logits if logits.dtype == torch.float64 else logits.float(), labels[kept]


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
