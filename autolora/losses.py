"""The loss that everything is trained, scored and measured by: cross-entropy of the target tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100
"""The label that transformers and torch leave out of the loss."""


def target_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the model says where the loss is taken.

    Args:
        model: a causal language model.
        batch: input_ids and labels, each (batch, seq), and attention_mask where there is padding; labels are -100
            where no loss is taken.

    Returns:
        Logits (targets, vocabulary) in float32 or finer, and the tokens they should predict (targets,).
    """
    import torch

    logits = model(input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask"), use_cache=False).logits
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
