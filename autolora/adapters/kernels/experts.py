"""Mixtures of experts in a LoRA branch: a router's gates, and all experts' weighed sum in two matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from autolora.adapters.draws import random_stream
from autolora.adapters.kernels.branch import Unmerged
from autolora.adapters.layer import AdaptedLayer, PeftLayer

ROUTER = "router"


class Experts(Unmerged):
    """``y = W x + s sum_e g_e(x) B_e A_e x`` over E experts, of which every token goes to some.

    ``g(x)`` is the softmax of a linear router's logits over the experts that are chosen, in float32 whatever the
    precision of the rest. B (m, E k) holds the experts' B_e as consecutive columns; A (E k, n) their A_e as consecutive
    rows, or A (k, n) is one for all. Dropout is on the experts' input; the router sees it whole. Gradient checkpointing
    must be the non-reentrant kind, transformers' default: the other leaves the balance without a gradient.

    Args:
        experts: E.
        top_k: experts that a token goes to, those of the greatest logits; from E on all.
        shared_a: whether A is one for all.
        balanced: keep the load-balance term of the last forward pass in training mode for :meth:`take_balance`.
    """

    takes_half = True

    def __init__(self, experts: int, top_k: int, shared_a: bool, balanced: bool) -> None:
        self.experts, self.top_k, self.slices = experts, top_k, 1 if shared_a else experts
        self.balanced = balanced and top_k < experts
        self._balance: Tensor | None = None

    # PEFT's is static, but called on the instance.
    def forward(  # type: ignore[override]
        self, module: PeftLayer, active_adapter: str, x: Tensor, result: Tensor, **kwargs: object
    ) -> Tensor:
        gates = self.gates(module, x) * module.scaling[active_adapter]
        layer = AdaptedLayer(module, active_adapter)
        h = layer.times_a(module.lora_dropout[active_adapter](x))
        weighed = torch.unflatten(h, -1, (self.slices, -1)) * gates.to(h.dtype)[..., None]
        return result + layer.times_b(weighed.flatten(-2))

    def gates(self, module: PeftLayer, x: Tensor) -> Tensor:
        """g (..., E) for x (..., n): they sum to 1, and are 0 for experts that are not chosen."""
        with torch.autocast(x.device.type, enabled=False):
            router = getattr(module, ROUTER)
            logits = linear(x.to(router.dtype), router)
        if self.top_k >= self.experts:
            return logits.softmax(-1)
        chosen = self._chosen(logits)
        if self.balanced:
            balance = _load_balance(logits, chosen) if module.training and logits.numel() else None
            if not _in_backward():  # where checkpointing computes it again, it would keep the layer's whole graph
                self._balance = balance
        return logits.masked_fill(~chosen, -math.inf).softmax(-1)

    def take_balance(self) -> Tensor | None:
        """:func:`_load_balance` of the last forward pass, if that was in training mode; only once."""
        kept, self._balance = self._balance, None
        return kept

    def __getstate__(self) -> dict[str, object]:
        """A copy has no part in this one's backward pass."""
        return {**vars(self), "_balance": None}

    def _chosen(self, logits: Tensor) -> Tensor:
        """Mask of the top_k greatest; of equal ones the first, on every device (``topk`` promises nothing)."""
        order = logits.detach().argsort(dim=-1, descending=True, stable=True)
        return torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, order[..., : self.top_k], True)


def _in_backward() -> bool:
    """Whether autograd runs a backward pass in this thread, and so whether a forward pass is one that is repeated."""
    return torch._C._current_graph_task_id() != -1


def install(
    layers: Iterable[AdaptedLayer], seed: int, *, experts: int, top_k: int, shared_a: bool, balanced: bool
) -> None:
    """Make mixtures of layers that hold their experts' A and B; routers start Kaiming-uniform, bound 1/sqrt(n)."""
    generator = random_stream(seed, ROUTER)
    for layer in layers:
        width = layer.module.lora_A[layer.adapter].in_features
        bound = width**-0.5
        layer.give(ROUTER, torch.empty(experts, width).uniform_(-bound, bound, generator=generator))
        layer.install(Experts(experts, top_k, shared_a, balanced))


def widen_b(layer: AdaptedLayer, heads: int) -> None:
    """Make B (m, r) of a layer that is fresh a B (m, heads r), all 0."""
    b = layer.module.lora_B[layer.adapter]
    b.in_features *= heads
    b.weight = nn.Parameter(b.weight.new_zeros(b.out_features, b.in_features))


def balances(layers: Iterable[AdaptedLayer]) -> list[Tensor]:
    """The load-balance terms of the layers' last forward pass in training mode; they are let go of."""
    branches = [layer.branch for layer in layers]
    terms = [branch.take_balance() for branch in branches if isinstance(branch, Experts)]
    return [term for term in terms if term is not None]


def _load_balance(logits: Tensor, chosen: Tensor) -> Tensor:
    """``E sum_e f_e p_e``: f the share of tokens that go to expert e, p the mean of their softmax over all experts.

    Only p has a gradient. Where the load is even the term is top_k. The layer sees no mask: padding counts.
    """
    shares = chosen.flatten(0, -2).to(logits.dtype).mean(0)
    return logits.shape[-1] * (shares * logits.softmax(-1).flatten(0, -2).mean(0)).sum()
