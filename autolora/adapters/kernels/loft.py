"""LoFT's AdamW (arXiv 2505.21289): Adam's step on W = B A as far as it lies in the space that one factor spans."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from autolora.adapters.groups import Group
from autolora.adapters.kernels.gram import inverse_gram

CHUNK = 2**22
"""Elements of a step's largest temporary, beside copies of one factor."""


class LoftAdamW(torch.optim.Optimizer):
    """AdamW of the product W = B A, seen through its factors.

    The factors move in turn, B first. For the one that moves, as rows X (B, or A transposed) of X O with the other
    factor O fixed, the gradient of W projected on O's row space is ``g O`` with ``g = dL/dX K``, ``K = (O O^T)^-1``.
    Per row of X are kept the mean of g, (r,), and of g^T g, (r, r). They give the two moments of the projected
    gradient, ``m_ij = m_i o_j`` and ``v_ij = o_j^T P_i o_j``; the step is ``U O^T K``, the projection of Adam's
    ``U = m / (sqrt(v) + eps)``. Both factors' moments see every gradient, and when O moves they are carried to its
    new row space by ``R = (O_old O_new^T) K_new``: ``m R`` and ``R^T P R``.

    Only projections of W's gradient count, so the run does not depend on how W is split into factors. Where O is
    square and invertible nothing is lost, and with ``damping=0`` every step is AdamW's on W.

    State: of a factor with k rows of X, (k, r) and (k, r(r + 1)/2) numbers, the latter the upper triangles of P.

    Args:
        pairs: of (A, B), (r, n) and (m, r), at scaling s = 1.
        lr, betas: as AdamW's on W.
        eps: as AdamW's on W, and the paper's value: v comes with a rounding error, and projections can be near 0.
        weight_decay: decoupled, times the learning rate; at every step B A shrinks by it once.
        damping: added to the diagonal of O O^T, relative to that diagonal's mean. The default is above float32's
            rounding, which is all that some directions of O hold where gradients have a lower rank than the factors.
            0 needs factors of full rank, or all zero: a zero O has no row space, so its partner's moments are 0 and
            it rests.

    Raises:
        ValueError: a setting out of range, or factors that do not fit together.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[nn.Parameter, nn.Parameter]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        damping: float = 1e-5,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay), ("damping", damping)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        factors = []
        for a, b in pairs:
            if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
                raise ValueError(f"A (r, n) and B (m, r) expected, got {tuple(a.shape)} and {tuple(b.shape)}")
            factors += [a, b]
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "damping": damping}
        super().__init__(factors, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move one factor of every pair that has gradients; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        turns = list(self._sides())
        inverses = _inverse_grams([(moving, group["damping"]) for group, moving, _ in turns])
        at_rest = _inverse_grams([(resting, group["damping"]) for group, _, resting in turns])
        overlaps = [
            self._move(group, moving, inverse, resting, own)
            for (group, moving, resting), inverse, own in zip(turns, inverses, at_rest, strict=True)
        ]
        # moving.rows.T is now the new O of the resting side, which has not seen it yet.
        at_rest = _inverse_grams([(resting, group["damping"]) for group, _, resting in turns])
        for (_, _, resting), overlap, inverse in zip(turns, overlaps, at_rest, strict=True):
            _carry(resting, overlap @ inverse)
        return loss

    @torch.no_grad()
    def clip_grad_norm(self, max_norm: float) -> Tensor:
        """Scale all gradients in place so that what the next step sees of W's gradient has at most this norm.

        Returns:
            The global norm, before scaling, of the projected gradients of W on the side that is about to move: a scalar
            on the device of the first, which nothing here waits for.
        """
        squares = []
        sides = [(moving, group["damping"]) for group, moving, _ in self._sides()]
        for (moving, _), inverse in zip(sides, _inverse_grams(sides), strict=True):
            coordinates = moving.gradient @ inverse
            squares.append((coordinates @ (moving.other @ moving.other.T) * coordinates).sum().clamp(min=0))
        if not squares:
            return torch.zeros(())
        norm = torch.stack([square.to(squares[0].device) for square in squares]).sum().sqrt()
        precise = norm if norm.device.type == "mps" else norm.double()  # which MPS does not have
        factor = torch.where(norm > max_norm, max_norm / (precise + 1e-6), 1.0).to(norm.dtype)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor.to(parameter.grad.device))
        return norm

    def _sides(self) -> Iterator[tuple[Group, _Side, _Side]]:
        """Per pair with gradients: its group, the side whose turn it is, and the other."""
        triangles: dict[tuple[int, torch.device, torch.dtype], _Triangle] = {}
        for group in self.param_groups:
            for a, b in zip(group["params"][::2], group["params"][1::2], strict=True):
                if a.grad is None or b.grad is None:
                    continue
                kind = len(a), a.device, a.dtype
                triangle = triangles[kind] if kind in triangles else triangles.setdefault(kind, _Triangle.like(b))
                side_b = _Side(self._state(b, b), b, b.grad, a, triangle)
                side_a = _Side(self._state(a, a.T), a.T, a.grad.T, b.T, triangle)
                yield (group, side_b, side_a) if side_b.state["step"] % 2 == 0 else (group, side_a, side_b)

    def _state(self, parameter: Tensor, rows: Tensor) -> _State:
        state: _State = self.state[parameter]
        if not state:
            count, rank = rows.shape
            state["step"] = 0
            state["mean"] = torch.zeros((count, rank), dtype=rows.dtype, device=rows.device)
            state["cross"] = rows.new_zeros(count, rank * (rank + 1) // 2)
        return state

    @staticmethod
    def _move(group: Group, moving: _Side, inverse: Tensor, resting: _Side, at_rest: Tensor) -> Tensor:
        """Take the gradients into the moments, and a step with the side whose turn it is.

        Args:
            group: of the pair.
            moving, resting: its sides.
            inverse, at_rest: K of each, (r, r).

        Returns:
            O_old O_new^T of the resting side, (r, r).
        """
        _observe(moving, inverse, group["betas"])
        _observe(resting, at_rest, group["betas"])
        before = moving.rows.clone()
        update = _update(moving, inverse, group["betas"], group["eps"])
        moving.rows.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
        return before.T @ moving.rows


class _State(TypedDict):
    """State of one factor with k rows: steps taken, and the means of g (k, r) and of the upper triangles of g^T g."""

    step: int
    mean: Tensor
    cross: Tensor


class _Triangle(NamedTuple):
    """Which products of g^T g (r, r) are kept, those with i <= j, in their order; t = r(r + 1)/2.

    Attributes:
        i, j: (t,) indices.
        place: (r, r), where the product of i and j is kept.
        times: (t, 1), how many entries of g^T g a kept one stands for: two off the diagonal.
    """

    i: Tensor
    j: Tensor
    place: Tensor
    times: Tensor

    @classmethod
    def like(cls, rows: Tensor) -> _Triangle:
        """For rows (k, r) of a factor."""
        rank = rows.shape[1]
        i, j = torch.triu_indices(rank, rank, device=rows.device)
        place = torch.empty(rank, rank, dtype=torch.long, device=rows.device)
        place[i, j] = place[j, i] = torch.arange(len(i), device=rows.device)
        return cls(i, j, place, torch.where(i == j, 1.0, 2.0).to(rows.dtype)[:, None])


class _Side(NamedTuple):
    """One factor as the rows X of X O, which is B A or its transpose. Views of the parameters, not copies.

    Attributes:
        state: the optimizer's, of this factor.
        rows, gradient: X and dL/dX, (rows, r).
        other: O, (r, columns).
        triangle: of its rank.
    """

    state: _State
    rows: Tensor
    gradient: Tensor
    other: Tensor
    triangle: _Triangle


def _inverse_grams(sides: Sequence[tuple[_Side, float]]) -> list[Tensor]:
    """K = (O O^T)^-1, (r, r), of sides, with their damping; about I where O = 0.

    Those of one size and device are one batch: a device starts a dozen kernels for all of them, not for each.
    """
    grams = [side.other @ side.other.T for side, _ in sides]
    alike: dict[tuple[int, torch.dtype, torch.device, float], list[int]] = {}
    for place, (gram, (_, damping)) in enumerate(zip(grams, sides, strict=True)):
        alike.setdefault((len(gram), gram.dtype, gram.device, damping), []).append(place)
    inverses = list(grams)
    for (*_, damping), places in alike.items():
        batch = inverse_gram(torch.stack([grams[place] for place in places]), damping)
        for place, inverse in zip(places, batch, strict=True):
            inverses[place] = inverse
    return inverses


def _observe(side: _Side, inverse: Tensor, betas: tuple[float, float]) -> None:
    """Take this step's gradient into both moments."""
    state = side.state
    coordinates = side.gradient @ inverse
    state["step"] += 1
    state["mean"].lerp_(coordinates, 1 - betas[0])
    i, j, *_ = side.triangle
    count = max(1, CHUNK // len(i))
    for cross, rows in zip(torch.split(state["cross"], count), torch.split(coordinates, count), strict=True):
        cross.mul_(betas[1]).addcmul_(rows[:, i], rows[:, j], value=1 - betas[1])


def _update(side: _Side, inverse: Tensor, betas: tuple[float, float], eps: float) -> Tensor:
    """U O^T K, (rows, r), of Adam's full step U, which exists by blocks of columns only."""
    state, other = side.state, side.other
    first, second = (1 - beta ** state["step"] for beta in betas)
    mean, cross = state["mean"] / first, state["cross"]
    i, j, _, times = side.triangle
    update = torch.zeros_like(mean)
    for block in torch.split(other, max(1, CHUNK // max(cross.shape)), dim=1):
        # Rounding can take v below 0: it is a square where only one gradient has been seen.
        denominator = (cross @ (block[i] * block[j] * times)).clamp_(min=0).sqrt_()
        denominator.div_(math.sqrt(second)).add_(eps)
        update.addmm_((mean @ block).div_(denominator), block.T)
    return update @ inverse


def _carry(side: _Side, transfer: Tensor) -> None:
    """Moments with respect to the old O become those with respect to the new one: m R and R^T P R."""
    state, (i, j, place, _) = side.state, side.triangle
    state["mean"].copy_(state["mean"] @ transfer)
    for cross in torch.split(state["cross"], max(1, CHUNK // transfer.numel())):
        cross.copy_((transfer.T @ cross[:, place] @ transfer)[:, i, j])
