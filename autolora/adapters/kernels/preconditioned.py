"""AdamW on gradients of A and B that the other factor preconditions: Riemannian preconditioning, and LoRA-Pro's.

In both, G = dL/dW is seen through g_A = s B^T G and g_B = s G A^T alone, and all that is inverted is r x r.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autolora.adapters.kernels.gram import eigen_gram


class Pair(NamedTuple):
    """One layer's factors and their gradients.

    Attributes:
        a, grad_a: A and dL/dA, (r, n).
        b, grad_b: B and dL/dB, (m, r).
        scale: s of s B A.
    """

    a: Tensor
    b: Tensor
    grad_a: Tensor
    grad_b: Tensor
    scale: float


Gradients = list[tuple[Tensor, Tensor]]
"""In place of those of A and B, by pair."""

Precondition = Callable[[Sequence[Pair], float], Gradients]
"""What takes pairs of one rank and device, and the Grams' damping, to their new gradients."""


class PreconditionedAdamW(torch.optim.AdamW):
    """AdamW that replaces the gradients of every pair, in place, before its step. Its state is AdamW's.

    Args:
        pairs: of (A, B, s), A (r, n) and B (m, r).
        precondition: what takes pairs of one rank and device to their new gradients: :func:`riemannian` or
            :func:`lora_pro`.
        damping: of the Grams, as ``precondition`` takes it.
        lr, weight_decay: AdamW's.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[nn.Parameter, nn.Parameter, float]],
        precondition: Precondition,
        damping: float,
        lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        self.pairs, self.precondition, self.damping = list(pairs), precondition, damping
        factors = [factor for a, b, _ in self.pairs for factor in (a, b)]
        super().__init__(factors, lr=lr, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Precondition, then AdamW's step; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for alike in self._alike():
            found = self.precondition(alike, self.damping)
            old = [gradient for pair in alike for gradient in (pair.grad_a, pair.grad_b)]
            torch._foreach_copy_(old, [gradient for both in found for gradient in both])
        super().step()
        return loss

    def _alike(self) -> Iterable[list[Pair]]:
        """Pairs that have gradients, those of one rank and device together: their Grams make one batch."""
        found: dict[tuple[int, torch.device, torch.dtype], list[Pair]] = {}
        for a, b, scale in self.pairs:
            if a.grad is not None and b.grad is not None:
                found.setdefault((len(a), a.device, a.dtype), []).append(Pair(a, b, a.grad, b.grad, scale))
        return found.values()


def riemannian(pairs: Sequence[Pair], damping: float) -> Gradients:
    """g_A <- (B^T B + d I)^-1 g_A and g_B <- g_B (A A^T + d I)^-1, d the damping itself (arXiv 2402.02347).

    As in the paper, s is in the gradients and not in the metric; under Adam a factor 1/s^2 would change nothing.
    """
    grams = torch.stack(_grams(pairs))
    damped = grams + damping * torch.eye(grams.shape[-1], dtype=grams.dtype, device=grams.device)
    for_b, for_a = torch.split(torch.linalg.inv_ex(damped).inverse, len(pairs))
    return [
        (inverse_b @ pair.grad_a, pair.grad_b @ inverse_a)
        for pair, inverse_b, inverse_a in zip(pairs, for_b, for_a, strict=True)
    ]


def lora_pro(pairs: Sequence[Pair], damping: float) -> Gradients:
    """The pair whose update s (B g_A' + g_B' A) of W is closest to G, and of those that nearest to (g_A, g_B).

    The damping is relative to the Grams' mean diagonal.

    The paper (arXiv 2407.18242) has, with P = B^T B and Q = A A^T,

        g_A' = P^-1 g_A / s^2 + X A,    g_B' = (I - B P^-1 B^T) g_B Q^-1 / s^2 - B X,
        P X + X Q = -P^-1 g_A A^T / s^2.

    With P = U diag(p) U^T, Q = V diag(q) V^T and M = U^T g_A A^T V = U^T B^T g_B V this is

        g_A' = (P^-1 g_A - U [M_ij / (p_i (p_i + q_j))] V^T A) / s^2,
        g_B' = (g_B Q^-1 - B U [M_ij / (q_j (p_i + q_j))] V^T) / s^2.

    Where B = 0, g_A is 0, and so is g_A'.
    """
    values, vectors = eigen_gram(torch.stack(_grams(pairs)), damping)
    (p, q), (u, v) = torch.split(values, len(pairs)), torch.split(vectors, len(pairs))
    p, q = p[:, :, None], q[:, None, :]
    inverse_p, inverse_q = u @ (u / p.mT).mT, v @ (v / q).mT
    # Equal, but for how gradients are rounded, under autocast to bfloat16: each factor's own keeps its result exact.
    through_a = u.mT @ torch.stack([pair.grad_a @ pair.a.T for pair in pairs]) @ v
    through_b = u.mT @ torch.stack([pair.b.T @ pair.grad_b for pair in pairs]) @ v
    left, right = u @ (through_a / (p * (p + q))) @ v.mT, u @ (through_b / (q * (p + q))) @ v.mT
    gradients = []
    for i, (a, b, grad_a, grad_b, scale) in enumerate(pairs):
        share = scale**-2
        new_a = torch.addmm(inverse_p[i] @ grad_a, left[i], a, beta=share, alpha=-share)
        new_b = torch.addmm(grad_b @ inverse_q[i], b, right[i], beta=share, alpha=-share)
        gradients.append((new_a, new_b))
    return gradients


def _grams(pairs: Sequence[Pair]) -> list[Tensor]:
    """B^T B of all, then A A^T of all."""
    return [pair.b.T @ pair.b for pair in pairs] + [pair.a @ pair.a.T for pair in pairs]
