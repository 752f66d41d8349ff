"""What all trials together say about every configuration: one model of all variants, lengths and settings.

A response in scaling-law coordinates (:mod:`autolora.search.response`), whose parameters are an ensemble of draws from
their posterior, and a Gaussian process for what it does not explain. The offset of model and task is one parameter for
all variants, so each trial of each variant informs all others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autolora.search.ensemble import FIRST_STEPS, Observations, fit, nearest_starts
from autolora.search.features import Features, Points
from autolora.search.response import Response
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config

UNIT = 0.02
"""One unit of the response, as a share of the best score; of no less than SPREAD of the median excess over it."""
SPREAD = 0.1
DIVERGED = 20.0
"""A divergence is at least as bad as an excess of this many units, give or take DIVERGED_SD of the response."""
DIVERGED_SD = 0.5
TOLERATED = 2.0
"""Standard errors of the rows by which scores of rungs with different rows must differ to count as different."""
WORST = 1e6
"""Units of excess beyond which a score is not worse."""

MEMBERS, STARTS = (12, 64), (6, 12)
"""Fewest and most; few where many scores leave little open."""
WORK = 6000
"""Scores times members."""
MOST_SCORES = 300
"""More are thinned out, the worst of the shortest runs first: they tell the least of where the best is."""

PRIOR_SHARE, WIDER = 0.75, 4.0
"""A quarter of the members believe the prior's centre with a sd WIDER times as large: what the prior is dropped for."""

NOISES, MISFITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6), (0.1, 0.2, 0.4, 0.8, 1.6)
NOISE_BELIEF, MISFIT_BELIEF = (math.log(0.25), 0.8), (math.log(0.4), 0.8)
FIRST_NOISE = 0.5
ENOUGH_TO_TELL = 3
"""Scores beyond which noise and misfit are estimated."""
RUNG_WEIGHT = 3.0
"""Scores that the noise of all rungs counts as, in a rung's own."""
JITTER = 1e-6
REPEATS = 8
"""Draws of the misfit for each member."""


@dataclass(frozen=True)
class Draws:
    """Joint draws of responses at full length.

    Attributes:
        values: (D, n), lower is better.
        weights: (D,), summing to 1.
    """

    values: np.ndarray
    weights: np.ndarray


class Surrogate:
    """A posterior over full-length scores, as a pure function of the trial table.

    Args:
        features: of the search.
        table: everything that has happened; a divergence is one-sided information, an infeasible trial tells the
            scores it had.
        seed: for the draws.
        fades: whether the prior's centre is dropped where the data contradict it; not where there is no prior.

    Attributes:
        trust: probability that the prior's centre is as right as it says.
        noise: (rungs,) sd of scores, in units of the response near the best.
        misfit: sd of what the response does not explain.
        parameters: (K, P) members.
        weights: (K,) their weights.
        unit: of the response of full runs, in the metric's own units.
    """

    def __init__(self, features: Features, table: TrialTable, seed: int, fades: bool = True) -> None:
        self._features = features
        self._response = Response(features)
        seen, self.unit = _observed(features, table)
        rng = np.random.default_rng([seed, len(seen)])
        members = int(np.clip(WORK // max(1, len(seen)), *MEMBERS))
        mean, sd = self._response.mean, np.repeat(self._response.sd[None], members, axis=0)
        wide = rng.random(members) >= PRIOR_SHARE if fades else np.zeros(members, dtype=bool)
        sd[wide, 0] *= WIDER  # the offset
        centre = mean + sd * rng.standard_normal(sd.shape)

        starts = np.vstack([mean, centre[: int(np.clip(WORK // max(1, len(seen)), *STARTS)) - 1]])
        starts, objective = fit(
            self._response, seen, seen.values, starts, mean, sd=np.repeat(sd[:1], len(starts), 0), steps=FIRST_STEPS
        )
        self._points, values = seen.points[~seen.bound], seen.values[~seen.bound]
        self.noise, self.misfit = np.full(len(table.rungs), 0.3), 0.3
        if len(values) > ENOUGH_TO_TELL:
            likeliest = self._response.values(starts[[objective.argmin()]], self._points)[0]
            self.noise, self.misfit = self._estimated(values - likeliest)

        noise = np.where(seen.bound, DIVERGED_SD, np.hypot(self.noise[seen.points.rung], self.misfit))
        seen = Observations(seen.points, seen.values, seen.bound, noise)
        targets = seen.perturbed(rng, members)
        begin = nearest_starts(self._response, seen, targets, starts, centre, sd)
        self.parameters, objective = fit(self._response, seen, targets, begin, centre, sd)
        self.weights, self.trust = _weights(
            objective, len(seen), self.parameters[:, 0], wide, float(self._response.sd[0])
        )

        # By how much each member has moved: where they began differs from the prior's mean by chance.
        self._moved = float(self.weights @ (self.parameters - centre)[:, 0]) if len(seen) else 0.0

        residuals = values - self._response.values(self.parameters, self._points)
        if len(values):
            covariance = self._covariance(self._points, self._points) + np.diag(self.noise[self._points.rung] ** 2)
            self._factor = np.linalg.cholesky(covariance)
            self._explained = np.linalg.solve(covariance, residuals.T)  # (n, K)

    def draws(self, variant: str, configs: list[Config], rng: np.random.Generator) -> Draws:
        """Joint draws for full runs of configurations of one variant."""
        points = self._features.full(variant, configs)
        means, covariance = self._response.values(self.parameters, points), self._covariance(points, points)
        if len(self._points):
            across = self._covariance(points, self._points)
            means = means + (across @ self._explained).T
            reduced = np.linalg.solve(self._factor, across.T)
            covariance = covariance - reduced.T @ reduced
        root = np.linalg.cholesky(covariance + JITTER * self.misfit**2 * np.eye(len(configs)))
        repeated = np.repeat(means, REPEATS, axis=0)
        values = repeated + rng.standard_normal(repeated.shape) @ root.T
        return Draws(values, np.repeat(self.weights, REPEATS) / REPEATS)

    def shortfalls(self, draws: Draws) -> np.ndarray:
        """(D,) by how much the first configuration's score is behind the best of all in each draw, in the metric's own
        units.
        """
        behind = np.where(draws.values < 0, draws.values, np.sinh(np.clip(draws.values, 0.0, math.asinh(WORST))))
        return np.asarray(self.unit * (behind[:, 0] - behind.min(axis=1)))

    def best_z(self, variant: str, configs: list[Config]) -> np.ndarray:
        """(K, n) the z that each member thinks best at the other settings of each configuration."""
        return self._response.best_z(self.parameters, self._features.full(variant, configs))

    def offset(self) -> float:
        """Decades by which the data have moved the prior's centre: 0 without any."""
        return self._moved

    def _covariance(self, a: Points, b: Points) -> np.ndarray:
        """(n, m): half of the misfit is common to all variants, half to all lengths."""
        squared = ((a.settings[:, None] - b.settings[None]) ** 2).sum(axis=-1)
        variants = 0.5 + 0.5 * (a.variant[:, None] == b.variant[None])
        lengths = 0.5 + 0.5 * np.exp(-np.abs(a.depth[:, None] - b.depth[None]))
        return np.asarray(self.misfit**2 * np.exp(-0.5 * squared) * variants * lengths)

    def _estimated(self, residuals: np.ndarray) -> tuple[np.ndarray, float]:
        """Noise by rung and misfit: the most probable of a grid, with each rung's noise by its share of squares."""
        squares, rung = residuals**2, self._points.rung
        pooled = squares.mean() + 1e-4
        relative = np.array(
            [
                math.sqrt(
                    (squares[rung == r].sum() + RUNG_WEIGHT * pooled) / ((rung == r).sum() + RUNG_WEIGHT) / pooled
                )
                for r in range(len(self.noise))
            ]
        )
        scale = 1 / relative[rung]
        unit = self._covariance(self._points, self._points) / self.misfit**2
        values, vectors = np.linalg.eigh(unit * scale[:, None] * scale)
        values, projected = np.maximum(values, 0.0), (vectors.T @ (residuals * scale)) ** 2

        def log_density(noise: float, misfit: float) -> float:
            variances = misfit**2 * values + noise**2
            likelihood = -0.5 * float((projected / variances + np.log(variances)).sum())
            return likelihood + _log_normal(noise, NOISE_BELIEF) + _log_normal(misfit, MISFIT_BELIEF)

        noise, misfit = max(itertools.product(NOISES, MISFITS), key=lambda pair: log_density(*pair))
        return noise * relative, misfit


def _observed(features: Features, table: TrialTable) -> tuple[Observations, float]:
    """Scores as responses, and divergences as bounds; the unit of full runs' responses."""
    scored = [(trial, rung) for trial in table.trials for rung in trial.scores]
    scores = np.array([table.sign * trial.scores[rung] for trial, rung in scored])
    values, units = _responses(scores, np.array([rung for _, rung in scored], dtype=int), _bounding(table))
    kept = _most_telling(values, [rung for _, rung in scored])
    diverged = [trial for trial in table.trials if trial.outcome == "diverged"]
    bounds = [(trial, _not_reached(table, trial)) for trial in diverged]
    rows = [scored[place] for place in kept] + bounds
    observations = Observations(
        features.points(
            [trial.variant for trial, _ in rows], [trial.config for trial, _ in rows], [rung for _, rung in rows]
        ),
        np.concatenate([values[kept], np.full(len(bounds), math.asinh(DIVERGED))]),
        np.arange(len(rows)) >= len(kept),
        np.full(len(rows), FIRST_NOISE),
    )
    return observations, units.get(len(table.rungs) - 1, math.nan)


def _not_reached(table: TrialTable, trial: Trial) -> int:
    """The first rung that a diverged trial did not come to."""
    share = table.fraction(trial)
    beyond = (rung for rung in range(trial.reached + 1, len(table.rungs)) if table.share(trial.config, rung) >= share)
    return next(beyond, len(table.rungs) - 1)


def _bounding(table: TrialTable) -> list[dict[int, float]]:
    """For each rung those whose scores a run to it can be expected to reach: its own, and the shorter ones from which
    training on has helped most trials. With each, what is to be added to its scores, as they are of other rows.
    """
    tolerance = [[TOLERATED * _row_error(table, r, rung) for r in range(rung)] for rung in range(len(table.rungs))]

    def helped(before: int, rung: int) -> bool:
        on = [trial.scores for trial in table.trials if before in trial.scores and rung in trial.scores]
        gains = [table.sign * (scores[before] - scores[rung]) for scores in on]
        return bool(on) and float(np.median(gains)) > tolerance[rung][before]

    return [
        {**{r: tolerance[rung][r] for r in range(rung) if helped(r, rung)}, rung: 0.0}
        for rung in range(len(table.rungs))
    ]


def _row_error(table: TrialTable, before: int, rung: int) -> float:
    """Standard error of the difference between the scores of one training on the rows of two rungs, of which the first
    rung's are a random part. It is told by the rows of the best full run: 0 on the same rows, inf if it is not known.
    """
    if not table.scored_rows or table.scored_rows[before] == table.scored_rows[rung]:
        return 0.0
    known = [trial.rows for trial in table.trials if trial.rows is not None and len(trial.rows.totals) > 1]
    best = min(known, key=lambda rows: table.sign * rows.value, default=None)
    contributions = None if best is None else best.contributions()
    if contributions is None:
        return math.inf
    fewer, more = table.scored_rows[before], table.scored_rows[rung]
    return float(contributions.std(ddof=1)) * math.sqrt(1 / fewer - 1 / more)


def _responses(
    scores: np.ndarray, rungs: np.ndarray, bounding: Sequence[Mapping[int, float]]
) -> tuple[np.ndarray, dict[int, float]]:
    """asinh of the excess over the best that is known to be within reach of each rung, in units; the unit of each.

    That a short run of one trial is better than the full run of another, as of a baseline far off, tells how much there
    is to gain.
    """
    responses, units = np.zeros(len(scores)), {}
    scale = max(1.0, float(np.abs(scores).max(initial=0.0)))  # any finite score may be told
    scores = scores / scale
    for rung in np.unique(rungs):
        here = rungs == rung
        best = min(scores[rungs == r].min() + tolerance / scale for r, tolerance in bounding[rung].items())
        excess = scores[here] - best
        # Where most scores are 0, as accuracies may be, the largest excess is all there is to go by.
        unit = max(UNIT * abs(best), SPREAD * float(np.median(excess))) or SPREAD * excess.max() or 1.0
        responses[here] = np.arcsinh(np.minimum(excess, WORST * unit) / unit)
        units[int(rung)] = float(unit) * scale
    return responses, units


def _most_telling(values: np.ndarray, rungs: list[int]) -> np.ndarray:
    """Places of the scores that are looked at, in order."""
    order = sorted(range(len(values)), key=lambda place: (-rungs[place], values[place]))
    return np.array(sorted(order[:MOST_SCORES]), dtype=int)


def _weights(
    objective: np.ndarray, scores: int, offsets: np.ndarray, wide: np.ndarray, sd: float
) -> tuple[np.ndarray, float]:
    """Weights of the members, and the trust in the prior's centre.

    Members that are stuck far above the lowest objective count less. The members of the wider belief share its
    evidence, those of the prior the prior's: their ratio is the mean over the wider posterior of the ratio of the two
    beliefs' densities.
    """
    slack = 2 * math.sqrt(2 * max(scores, 1))
    log_weights = -0.5 * np.maximum(0.0, objective - objective.min() - slack)
    trust = 1.0
    if wide.any() and not wide.all():
        squares = (offsets[wide] / sd) ** 2
        odds = PRIOR_SHARE / (1 - PRIOR_SHARE) * float(np.mean(WIDER * np.exp(-0.5 * squares * (1 - WIDER**-2))))
        trust = odds / (1 + odds)
        shares = np.where(wide, (1 - trust) / wide.mean(), trust / (~wide).mean())
        log_weights = log_weights + np.log(np.maximum(shares, np.finfo(float).tiny))
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum(), trust


def _log_normal(value: float, belief: tuple[float, float]) -> float:
    return -0.5 * ((math.log(value) - belief[0]) / belief[1]) ** 2
