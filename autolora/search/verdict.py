"""What to recommend: the tuned configuration of each variant, and a smaller and a cheaper one that do as well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from autolora.scores import Scores
from autolora.search.comparison import Runs, SeedNoise, paired_error
from autolora.search.policy import FINALISTS, Plan, finalists
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config

SEEDS_FOR_OWN_SPREAD = 3
"""With fewer seeds than this, a variant's spread is pooled over all variants."""

CHEAPER = 0.95
"""Share of the best one's wall time below which a configuration counts as cheaper: times vary by a few percent."""

Examples = Mapping[int, Scores]
"""Full-length scores with what each example contributes, by trial number, as far as they are known."""


@dataclass(frozen=True)
class Alternative:
    """A fully trained configuration whose score is within noise of the best.

    Attributes:
        config: hyperparameters.
        value: mean score over ``seeds``.
        difference: ``value`` minus the best one's; 0 where it is the best itself.
        seeds: full-length scores, one a seed.
        seconds: wall time of a full run, evaluations included: the mean over the variant's full runs of this rank,
            batch size and options, since learning rate and alpha cost nothing; 0 where it was not told.
    """

    config: Config
    value: float
    difference: float
    seeds: tuple[float, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "config": self.config.as_dict(),
            "value": self.value,
            "difference": self.difference,
            "seeds": list(self.seeds),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Best:
    """The tuned configuration of one variant, and what does as well.

    A score is within noise of the best where it is worse by at most one standard error of their difference: by the
    spread over seeds, sd sqrt(1/n + 1/m), or where no configuration has a second seed by the paired differences over
    evaluation examples.

    Attributes:
        config: hyperparameters.
        value: mean score over ``seeds``.
        spread: standard deviation over seeds, pooled over variants where this one has few; None with no repeats.
        seeds: full-length scores of the configuration, one a seed.
        baseline: score of the variant's baseline, or None where it did not finish.
        trials: numbers of the trials behind ``seeds``.
        run_seconds: wall time of a full run, see :class:`Alternative`.
        noise: what "within noise" goes by: "seeds", "examples", or None where neither is known.
        smallest: of the configurations within noise, the best of the smallest rank; None where noise is unknown.
        cheapest: of the configurations within noise, the one of least wall time, the best itself unless another takes
            5% less; None where noise or wall times are unknown.
    """

    config: Config
    value: float
    spread: float | None
    seeds: tuple[float, ...]
    baseline: float | None
    trials: tuple[int, ...]
    run_seconds: float = 0.0
    noise: Literal["seeds", "examples"] | None = None
    smallest: Alternative | None = None
    cheapest: Alternative | None = None


@dataclass(frozen=True)
class _Group:
    """A configuration and its full-length runs, one a seed."""

    trials: tuple[Trial, ...]
    runs: Runs
    seconds: float

    @property
    def config(self) -> Config:
        return self.trials[0].config

    @property
    def value(self) -> float:
        return fmean(run.value for run in self.runs)


def best(table: TrialTable, variants: Iterable[str], examples: Examples | None = None) -> dict[str, Best]:
    """The best configuration of each variant that has a full-length score.

    Configurations scored on several seeds go before those with one, whose score was chosen for being good; one that
    diverged on any seed is out.

    Args:
        table: everything that has happened.
        variants: names.
        examples: what is known of the evaluation examples' own scores.
    """
    groups = {variant: list(_stable(table, variant, examples or {})) for variant in variants}
    noise = SeedNoise.pooled([group.runs for found in groups.values() for group in found])
    return {variant: _best(table, variant, found, noise) for variant, found in groups.items() if found}


def complete_trials(table: TrialTable, variants: Iterable[str]) -> list[int]:
    """Numbers of the trials with a full-length score: those whose examples' scores :func:`best` looks at."""
    return [trial.number for name in variants for trial in table.complete(name)]


def seed_noise(table: TrialTable, variants: Iterable[str], examples: Examples | None = None) -> SeedNoise | None:
    """What the seed does to a full-length score, pooled over all configurations with several; None without any."""
    return SeedNoise.pooled([group.runs for name in variants for group in _stable(table, name, examples or {})])


def scored_runs(table: TrialTable, trials: Iterable[int], examples: Examples) -> Runs:
    """The full-length scores of trials, with their examples' where those are known and say the same."""
    return [_scores(table, table.trials[number], examples) for number in trials]


def _stable(table: TrialTable, variant: str, examples: Examples) -> Iterator[_Group]:
    """Full-length runs grouped by configuration, those that failed on any seed left out."""
    failed = {trial.config for trial in table.of(variant) if not trial.healthy}
    groups: dict[Config, list[Trial]] = {}
    times: dict[Any, list[float]] = {}
    for trial in table.complete(variant):
        times.setdefault(_cost(trial.config), []).append(trial.seconds)
        if trial.config not in failed:
            groups.setdefault(trial.config, []).append(trial)
    for config, trials in groups.items():
        runs = [_scores(table, trial, examples) for trial in trials]
        yield _Group(tuple(trials), runs, fmean(times[_cost(config)]))


def _cost(config: Config) -> tuple[Any, ...]:
    """What the wall time of a run goes by: learning rate and alpha leave it as it is."""
    return config.rank, config.batch_size, config.options


def _scores(table: TrialTable, trial: Trial, examples: Examples) -> Scores:
    value = trial.scores[len(table.rungs) - 1]
    known = examples.get(trial.number)
    agrees = known is not None and math.isclose(known.value, value, rel_tol=1e-6, abs_tol=1e-9)
    return known if known is not None and agrees else Scores(value)


def _best(table: TrialTable, variant: str, groups: list[_Group], noise: SeedNoise | None) -> Best:
    repeated = [group for group in groups if len(group.runs) > 1]
    chosen = min(repeated or groups, key=lambda group: table.sign * group.value)
    own = SeedNoise.pooled([chosen.runs]) if len(chosen.runs) >= SEEDS_FOR_OWN_SPREAD else noise
    last = len(table.rungs) - 1
    basis: Literal["seeds", "examples"] | None = "seeds" if noise else "examples"
    if noise is None and chosen.runs[0].contributions() is None:
        basis = None
    near = [group for group in groups if _within_noise(group, chosen, noise, table.sign)]
    smallest = min(near, key=lambda group: (group.config.rank, table.sign * group.value))
    if smallest.config.rank == chosen.config.rank:
        smallest = chosen
    cheapest = min(near, key=lambda group: group.seconds)
    if cheapest.seconds > CHEAPER * chosen.seconds:
        cheapest = chosen
    return Best(
        config=chosen.config,
        value=chosen.value,
        spread=math.sqrt(own.variance) if own else None,
        seeds=tuple(run.value for run in chosen.runs),
        baseline=next((t.scores.get(last) for t in table.of(variant) if t.purpose == "baseline"), None),
        trials=tuple(trial.number for trial in chosen.trials),
        run_seconds=chosen.seconds,
        noise=basis,
        smallest=_alternative(smallest, chosen) if basis else None,
        cheapest=_alternative(cheapest, chosen) if basis and all(group.seconds > 0 for group in near) else None,
    )


def _within_noise(group: _Group, chosen: _Group, noise: SeedNoise | None, sign: float) -> bool:
    if group is chosen:
        return True
    if noise is not None:
        error: float | None = math.sqrt(noise.of_difference(len(group.runs), len(chosen.runs)))
    else:
        error = paired_error(group.runs[0], chosen.runs[0])
    return error is not None and sign * (group.value - chosen.value) <= error


def _alternative(group: _Group, chosen: _Group) -> Alternative:
    seeds = tuple(run.value for run in group.runs)
    return Alternative(group.config, group.value, group.value - chosen.value, seeds, group.seconds)


def spare(table: TrialTable, plan: Plan, keep: int) -> list[int]:
    """Numbers of the completed trials whose weights may go: those that can no longer be, or become, what is best.

    Kept of each variant are configurations with several seeds, and the best ``keep`` of the others, or as many as can
    become finalists where further seeds of better ones diverge.
    """
    found = []
    for variant in plan.variants:
        kept = {trial.config for trial in table.confirming(variant)}
        kept.update(finalists(table, variant, max(keep, FINALISTS + plan.confirm)))
        done = (trial for trial in table.complete(variant) if not trial.live)
        found += [trial.number for trial in done if trial.config not in kept]
    return found
