"""Whether a model predicts each token from those before it alone, which its class does not tell."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from autolora.adapters.statistics import evaluating
from autolora.bases.device import dtype_name
from autolora.bases.errors import ModelError

if TYPE_CHECKING:
    from autolora.bases.base import Base

LENGTH = 4
LEAK = 0.05
"""Largest change of the logits before a token that is changed, relative to the change at the token itself. In 101
causal architectures it is 0; rounding may change with the tokens that share an expert."""


def check_causal(base: Base) -> None:
    """Refuse a model whose logits depend on later tokens: its loss would count what it has seen.

    XLNet is one, and so are text diffusion models and language models that were made into encoders. One forward pass
    of two rows that differ in their last token.

    Raises:
        ModelError: the model reads in both directions, or computes NaN, as some do in float16.
    """
    import torch

    tokens = list(islice(base.plain_tokens(), LENGTH + 1))
    if len(tokens) <= LENGTH or (base.limits.positions or LENGTH) < LENGTH:
        return
    rows = torch.tensor([tokens[:LENGTH], [*tokens[: LENGTH - 1], tokens[LENGTH]]], device=base.device)
    with evaluating(base.model), torch.no_grad(), base.autocast():
        first, second = base.model(input_ids=rows, use_cache=False).logits.float()
    if bool(first.isnan().any()):
        raise ModelError(_not_a_number(base))
    changes = (first - second).abs().amax(-1)
    if float(changes[:-1].max()) > LEAK * float(changes[-1]):
        raise ModelError(
            f"model: {type(base.model).__name__} reads in both directions: what it predicts for a token depends on "
            "the tokens behind it. autolora tunes causal language models: give one, such as a base or chat model."
        )


def _not_a_number(base: Base) -> str:
    dtype = dtype_name(base.dtype)
    why = "its numbers exceed the range of float16: set training.dtype to bfloat16 or float32"
    if dtype != "float16":
        why = "its weights or its configuration are wrong: give another checkpoint"
    return f"model: {type(base.model).__name__} computes NaN in {dtype} on {base.device}; {why}."
