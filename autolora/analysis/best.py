"""What to recommend: the tuned configuration of each variant, and a smaller and a cheaper one that do as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from statistics import fmean
from typing import Literal

from autolora.analysis.comparison import Runs, SeedNoise, paired_error
from autolora.analysis.pareto import reported_means
from autolora.files import Document
from autolora.scores import Scores
from autolora.search.policy import FINALISTS, Plan
from autolora.search.runs import finalists, runs_by_config, winner
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config, registry
from autolora.space.config import Value

SEEDS_FOR_OWN_SPREAD = 3
"""With fewer seeds than this, a variant's spread is pooled over all variants."""

CHEAPER = 0.95
"""Share of the best one's wall time below which a configuration counts as cheaper: times vary by a few percent."""


@dataclass(frozen=True)
class Alternative:
    """A fully trained configuration whose score is within noise of the best.

    Attributes:
        config: hyperparameters.
        value: mean score over ``seeds``.
        difference: ``value`` minus the best one's; 0 where it is the best itself.
        seeds: full-length scores, one a seed.
        seconds: wall time of a full run, evaluations included: the mean over the variant's full runs that
            are alike in what costs time, see :meth:`autolora.space.Dimension.cost_key`; 0 if it was not told.
    """

    config: Config
    value: float
    difference: float
    seeds: tuple[float, ...]
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """As plain data, one key per field."""
        return _plain_fields(self)

    @classmethod
    def from_dict(cls, raw: Document) -> Alternative:
        """The inverse of :meth:`as_dict`."""
        return cls(**_restored(raw))


@dataclass(frozen=True, kw_only=True)
class Best:
    """The tuned configuration of one variant, and what does as well.

    A score is within noise of the best if it is worse by at most one standard error of their difference: by the
    spread over seeds, sd sqrt(1/n + 1/m), or if no configuration has a second seed by the paired differences over
    evaluation examples.

    Attributes:
        config: ``.learning_rate``, ``.batch_size``, ``.rank``, ``.alpha``, ``.options``.
        value: mean score over ``seeds``.
        spread: standard deviation over seeds, pooled over variants if this one has fewer than three; None if no
            configuration of the study has a second seed.
        seeds: full-length scores of the configuration, one a seed.
        baseline: score of the user's baseline; None if none was given or it did not finish.
        test: score on the test split, mean over seeds; None without a test split, and before the study ends.
        adapter_dir: folder of the exported adapter, of the seed that scored best; empty before it is exported, and
            where all that was trained is lost.
        seconds: wall time of all trials of the variant.
        run_seconds: wall time of one full run of the configuration, evaluations included, mean over the variant's full
            runs that are alike in what costs time.
        noise: what "within noise" goes by: "seeds", "examples" (of the evaluation split), or None if it is unknown.
        smallest: of the configurations within noise, the best of the smallest rank; it may be this one. None if noise
            is unknown.
        cheapest: of the configurations within noise, the one of least wall time, this one unless another takes 5% less;
            None if noise or wall times are unknown.
        untried_ranks: ranks of the space below ``smallest`` that no full run had: whether one of them does as well is
            not known, and costs about a full run to know.
        metrics: what was reported beside the metric, by name: means over the seeds that tell it.
        fraction: share of a full run behind the score: below 1 where a time budget ended before any run was complete.
        notes: lines on what is not as it should be, such as weights that were lost; empty if all is well.
        trials: numbers of the trials behind ``seeds``; empty in a result that was loaded from ``best.json``.
    """

    config: Config
    value: float
    spread: float | None
    seeds: tuple[float, ...]
    baseline: float | None
    test: float | None = None
    adapter_dir: str = ""
    seconds: float = 0.0
    run_seconds: float = 0.0
    noise: Literal["seeds", "examples"] | None = None
    smallest: Alternative | None = None
    cheapest: Alternative | None = None
    untried_ranks: tuple[int, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    fraction: float = 1.0
    notes: tuple[str, ...] = ()
    trials: tuple[int, ...] = field(default=(), compare=False, metadata={"internal": True})

    @property
    def learning_rate(self) -> float:
        return self.config.learning_rate

    def as_dict(self) -> dict[str, object]:
        """As plain data, one key per field but ``trials``."""
        return _plain_fields(self)

    @classmethod
    def from_dict(cls, raw: Document, adapter_dir: str) -> Best:
        """The inverse of :meth:`as_dict`; what a result of an earlier version lacks is unknown."""
        return cls(**_restored({**raw, "adapter_dir": adapter_dir}))


def _plain_fields(found: Alternative | Best) -> dict[str, object]:
    return {each.name: _plain(getattr(found, each.name)) for each in fields(found) if "internal" not in each.metadata}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value.as_dict() if isinstance(value, (Config, Alternative)) else value


def _restored(raw: Document) -> Document:
    kinds: dict[str, Callable[..., object]] = {
        "config": lambda config: Config.of(**config),
        "seeds": tuple,
        "untried_ranks": tuple,
        "notes": tuple,
        "smallest": Alternative.from_dict,
        "cheapest": Alternative.from_dict,
    }
    return {key: kinds[key](value) if key in kinds and value is not None else value for key, value in raw.items()}


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


def best(
    table: TrialTable,
    variants: Iterable[str],
    ranks: Iterable[int] = (),
    instead: Mapping[str, Config] | None = None,
) -> dict[str, Best]:
    """The best configuration of each variant that has a full-length score.

    Configurations scored on several seeds go before those with one, whose score was chosen for being good; one that
    diverged on any seed is out.

    Args:
        table: everything that has happened.
        variants: names.
        ranks: of the space.
        instead: configurations that stand in for the best ones, by variant.
    """
    searched = tuple(sorted(ranks))
    groups = {variant: list(_stable(table, variant)) for variant in variants}
    chosen = {variant: winner(table, variant)[0].config for variant, found in groups.items() if found}
    chosen |= instead or {}
    noise = SeedNoise.pooled([group.runs for found in groups.values() for group in found])
    return {
        variant: _best(table, variant, found, noise, searched, chosen[variant])
        for variant, found in groups.items()
        if found
    }


def partial(table: TrialTable, variant: str) -> Best | None:
    """The best of the longest runs of a variant that has no full one; None if it has one, or no score at all."""
    healthy = [trial for trial in table.of(variant) if trial.healthy and trial.scores]
    if not healthy or table.leaders(variant):
        return None
    rung = max(trial.reached for trial in healthy)
    found = table.ranked((trial for trial in healthy if rung in trial.scores), rung)[0]
    share = table.share(found.config, rung)
    return Best(
        config=found.config,
        value=found.scores[rung],
        spread=None,
        seeds=(found.scores[rung],),
        baseline=None,
        seconds=sum(trial.seconds for trial in table.of(variant)),
        metrics=dict(found.metrics.get(rung, {})),
        fraction=share,
        notes=(
            f"the score is that of trial {found.number} at {share:.2g} of a full run, the longest that was trained: "
            "not a tuned result, and there is no adapter of it",
        ),
    )


def seed_noise(table: TrialTable, variants: Iterable[str]) -> SeedNoise | None:
    """What the seed does to a full-length score, pooled over all configurations with several; None without any."""
    return SeedNoise.pooled([group.runs for name in variants for group in _stable(table, name)])


def scored_runs(table: TrialTable, trials: Iterable[int]) -> Runs:
    """The full-length scores of trials, with their rows where those are known and say the same."""
    return [_scores(table, table.trials[number]) for number in trials]


def _stable(table: TrialTable, variant: str) -> Iterator[_Group]:
    """Full-length runs grouped by configuration, those that failed on any seed left out."""
    times: dict[tuple[Value | None, ...], list[float]] = {}
    for trial in table.complete(variant):
        times.setdefault(_cost(trial.config), []).append(trial.seconds)
    for config, trials in runs_by_config(table, variant).items():
        runs = [_scores(table, trial) for trial in trials]
        yield _Group(tuple(trials), runs, fmean(times[_cost(config)]))


def _cost(config: Config) -> tuple[Value | None, ...]:
    """What the wall time of a run depends on: learning rate and alpha leave it as it is."""
    return tuple(dimension.cost_key(config) for dimension in registry())


def _scores(table: TrialTable, trial: Trial) -> Scores:
    value, rows = trial.scores[len(table.rungs) - 1], trial.rows
    agrees = rows is not None and math.isclose(rows.value, value, rel_tol=1e-6, abs_tol=1e-9)
    return rows if rows is not None and agrees else Scores(value)


def _best(
    table: TrialTable,
    variant: str,
    groups: list[_Group],
    noise: SeedNoise | None,
    ranks: tuple[int, ...],
    config: Config,
) -> Best:
    chosen = next(group for group in groups if group.config == config)
    own = SeedNoise.pooled([chosen.runs]) if len(chosen.runs) >= SEEDS_FOR_OWN_SPREAD else noise
    last = len(table.rungs) - 1
    basis: Literal["seeds", "examples"] | None = "seeds" if noise else "examples"
    if noise is None and chosen.runs[0].contributions() is None:
        basis = None
    near = [group for group in groups if _within_noise(group, chosen, noise, table.sign)]
    smallest = min(near, key=lambda group: (group.config.rank, table.sign * group.value))
    if smallest.config.rank == chosen.config.rank:
        smallest = chosen
    tried = {group.config.rank for group in groups}
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
        seconds=sum(trial.seconds for trial in table.of(variant)),
        run_seconds=chosen.seconds,
        noise=basis,
        smallest=_alternative(smallest, chosen) if basis else None,
        cheapest=_alternative(cheapest, chosen) if basis and all(group.seconds > 0 for group in near) else None,
        metrics=reported_means(chosen.trials, last),
        untried_ranks=tuple(rank for rank in ranks if rank < smallest.config.rank and rank not in tried),
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
