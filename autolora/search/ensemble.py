"""Draws from the posterior of a response's parameters, by randomized maximum likelihood.

Every member gets its own perturbed observations and its own draw from the beliefs, and is fitted to both (Oliver, He
and Reynolds, 1996; exact where the response is linear). So several explanations of few scores stay alive side by side:
left of the best, or right of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolora.search.features import Points
from autolora.search.response import Response

FIRST_STEPS, STEPS = 12, 6
SETTLED = 0.1
"""A fit ends when no member's objective falls by more."""
LARGEST_STEP = 2.0
"""In sds of the beliefs."""


@dataclass(frozen=True)
class Observations:
    """What the members are fitted to.

    Attributes:
        points: n of them.
        values: (n,) responses; where ``bound``, the response is at least that, as after a divergence.
        bound: (n,) bool.
        noise: (n,) standard deviations.
    """

    points: Points
    values: np.ndarray
    bound: np.ndarray
    noise: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def perturbed(self, rng: np.random.Generator, members: int) -> np.ndarray:
        """(members, n) observations with their noise drawn once more; bounds stay."""
        return self.values + np.where(self.bound, 0.0, self.noise) * rng.standard_normal((members, len(self)))

    def residuals(self, responses: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """In standard deviations; a bound that is kept has none."""
        return np.where(self.bound & (responses > targets), 0.0, (responses - targets) / self.noise)


def fit(
    response: Response,
    seen: Observations,
    targets: np.ndarray,
    start: np.ndarray,
    centre: np.ndarray,
    sd: np.ndarray,
    steps: int = STEPS,
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt from ``start`` for all members at once.

    Args:
        response: of P parameters.
        seen: n observations.
        targets: (K, n) or (n,), what each member is to fit.
        start, centre, sd: (K, P) where each begins, and the belief that holds it.
        steps: at most.

    Returns:
        The parameters (K, P) and the objectives (K,): squared residuals and squared distances from the centre, in
        standard deviations.
    """
    parameters, damping, diagonal = start, np.full(len(start), 1e-2), np.arange(start.shape[1])
    responses, jacobian = response.linearized(parameters, seen.points)
    residuals = seen.residuals(responses, targets)
    objective = _objective(residuals, parameters, centre, sd)
    for _ in range(steps):
        weighted = jacobian * (np.where(seen.bound & (responses > targets), 0.0, 1.0) / seen.noise)[:, :, None]
        hessian = weighted.transpose(0, 2, 1) @ weighted
        gradient = (residuals[:, None, :] @ weighted)[:, 0] + (parameters - centre) / sd**2
        hessian[:, diagonal, diagonal] += 1 / sd**2
        hessian[:, diagonal, diagonal] *= 1 + damping[:, None]
        step = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        proposed = parameters + np.clip(step, -LARGEST_STEP * sd, LARGEST_STEP * sd)
        new_responses, new_jacobian = response.linearized(proposed, seen.points)
        new_residuals = seen.residuals(new_responses, targets)
        new_objective = _objective(new_residuals, proposed, centre, sd)
        better = new_objective < objective
        fallen = np.where(better, objective - new_objective, 0.0).max()
        parameters = np.where(better[:, None], proposed, parameters)
        responses = np.where(better[:, None], new_responses, responses)
        residuals = np.where(better[:, None], new_residuals, residuals)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        objective = np.where(better, new_objective, objective)
        if better.any() and fallen < SETTLED:
            break
        damping = np.clip(np.where(better, damping / 5, damping * 8), 1e-6, 1e6)
    return parameters, objective


def nearest_starts(
    response: Response, seen: Observations, targets: np.ndarray, starts: np.ndarray, centre: np.ndarray, sd: np.ndarray
) -> np.ndarray:
    """(K, P) for each member its own centre or one of the common ``starts``, where its objective is lowest."""
    common = seen.residuals(response.values(starts, seen.points)[None], targets[:, None])  # (K, starts, n)
    distances = (((starts[None] - centre[:, None]) / sd[:, None]) ** 2).sum(axis=2)
    objectives = (common**2).sum(axis=2) + distances
    own = (seen.residuals(response.values(centre, seen.points), targets) ** 2).sum(axis=1)
    best = starts[objectives.argmin(axis=1)]
    return np.where((objectives.min(axis=1) < own)[:, None], best, centre)


def _objective(residuals: np.ndarray, parameters: np.ndarray, centre: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return np.asarray((residuals**2).sum(axis=1) + (((parameters - centre) / sd) ** 2).sum(axis=1))
