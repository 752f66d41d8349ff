"""Why a weight carries no adapter. A new reason is a line in ``REASONS``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from autolora.adapters.weights import Weight

OTHER_SENSES = re.compile(r"vision|visual|image|video|audio|speech|multi_?modal|(^|_)mm_")
"""In names of what turns pictures and sounds into embeddings, where a model does not say what its language model is."""
STEERING = re.compile(r"gate|router|gating|wg|(\w+_)?(router|gate)")
"""Names of what chooses between experts."""
READ_DIRECTLY = {"out_proj", "x_proj", "dt_proj"}
"""Layers of a Mamba block that its kernels never call: they read the weights (peft#2556)."""


class Reason(NamedTuple):
    """Why.

    Attributes:
        words: "{layers}" in them stands for how many layers are left out for it.
        holds: whether it does, for a weight.
        final: it stays a reason where ``adapter`` names the layer.
        of_layers: such weights count among those of layers, of which a share is adapted.
    """

    words: str
    holds: Callable[[Weight], bool]
    final: bool = True
    of_layers: bool = True


def reason_for(weight: Weight, named: bool = False) -> Reason | None:
    """The first reason that holds; None if the weight can be adapted.

    Args:
        weight: one of a model's.
        named: the specification names it, so that only final reasons count.
    """
    return next((reason for reason in REASONS if (reason.final or not named) and reason.holds(weight)), None)


def other_sense(weight: Weight) -> str:
    """The part of a multimodal model that a weight outside its language model is of; else empty."""
    if weight.module is weight.facts.head:
        return ""
    within = weight.facts.language_model
    if not within:
        return next((part for part in weight.parts if OTHER_SENSES.search(part)), "")
    if weight.key.startswith(within):
        return ""
    beside = within[:-1].rpartition(".")[0]
    return weight.key.removeprefix(f"{beside}.").split(".")[0]


def steering(weight: Weight) -> str:
    """The name of the router or gate that a weight is of, which chooses between experts; else empty."""
    parts = weight.parts
    place = next((place for place, part in enumerate(parts) if STEERING.fullmatch(part)), None)
    single = weight.layer is not None and weight.rows == 1
    if place is not None and (single or weight.rows in weight.facts.expert_counts) and not _is_stack(weight):
        return ".".join(parts[place:])
    return parts[-1] if weight.layer is None and "Router" in type(weight.module).__name__ else ""


def _is_stack(weight: Weight) -> bool:
    return weight.layer is not None and weight.layer.experts > 0


def _is_embedding(weight: Weight) -> bool:
    from torch import nn

    return isinstance(weight.module, nn.Embedding)


def _is_convolution(weight: Weight) -> bool:
    from torch import nn

    return isinstance(weight.module, nn.modules.conv._ConvNd)


def _is_read_by_attention(weight: Weight) -> bool:
    from torch import nn

    return isinstance(weight.parent, nn.MultiheadAttention) or isinstance(weight.module, nn.MultiheadAttention)


def _is_read_by_mamba(weight: Weight) -> bool:
    mamba = all(hasattr(weight.parent, name) for name in ("A_log", "D"))
    return mamba and weight.kind in READ_DIRECTLY


def _picks_tokens(weight: Weight) -> bool:
    """DeepSeek-V3.2's indexer, and what Doge's attention takes the largest values of."""
    picks = "indexer" in weight.parts or (weight.kind == "dt_proj" and hasattr(weight.parent, "keep_window_size"))
    return weight.layer is not None and picks


def _of_experts(weight: Weight) -> bool:
    return "expert" in f"{'.'.join(weight.parts)} {type(weight.module).__name__}".lower()


REASONS: tuple[Reason, ...] = (
    Reason("output head", lambda weight: weight.module is weight.facts.head, of_layers=False),
    Reason(
        "outside the language model, linear layers: {layers}; add them with adapter.target_modules",
        lambda weight: bool(other_sense(weight)),
        final=False,
    ),
    Reason("embedding", _is_embedding, of_layers=False),
    Reason("bias", lambda weight: weight.layer is None and weight.kind.endswith("bias"), of_layers=False),
    Reason("router", lambda weight: bool(steering(weight)), final=False),
    Reason(
        "chooses the tokens to attend to, and gets no gradient",
        _picks_tokens,
        final=False,
    ),
    Reason("convolution", _is_convolution),
    Reason("Mamba's kernels read its weight directly, past an adapter", _is_read_by_mamba),
    Reason("torch's attention reads its weight directly, past an adapter", _is_read_by_attention),
    Reason(
        "experts in a form that PEFT has no adapter for",
        lambda weight: weight.layer is None and _of_experts(weight),
    ),
    Reason("a single output", lambda weight: weight.layer is not None and weight.layer.out_features == 1, final=False),
    Reason(
        "a stack of matrices that are not experts; add it with adapter.target_parameters",
        lambda weight: _is_stack(weight) and not _of_experts(weight),
        final=False,
    ),
    Reason("not a linear layer", lambda weight: weight.layer is None),
)
"""The first one that holds is given."""

UNNAMED = Reason("not named by adapter.target_modules", lambda weight: False)
UNNAMED_PARAMETER = Reason("not named by adapter.target_parameters", lambda weight: False)
EXCLUDED = Reason("adapter.exclude_modules", lambda weight: False)
