"""autolora's sampler and divergence rule for plain Optuna.

    study = optuna.create_study(sampler=LoraSampler(hidden_size=2048), pruner=DivergencePruner())
    study.optimize(objective, n_trials=20)

where the objective suggests ``learning_rate`` and any of a batch size, a rank, ``lora_alpha`` and ``variant``.
"""

from __future__ import annotations

import hashlib
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalChoiceType
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autolora import variants
from autolora.integrations.parameters import NAMES, Alpha, Distributions, Parameters, Values, usable
from autolora.priors.prior import Prior, uniform_sample
from autolora.search.rungs import RUNGS
from autolora.search.sampler import Sampler
from autolora.search.trials import Event, Finished, Outcome, Sampled, Scored, TrialTable
from autolora.space import Config, Space
from autolora.space.named import Scalar
from autolora.trainers.divergence import FAST_EXAMPLES
from autolora.trainers.watching import ReportWatch

DIVERGED = "diverged"
"""Key of the constraint that marks a trial as diverged, here as in autolora's own studies."""

NEARLY = 0.95
"""Share of a rung's length at which a report counts as one at that rung."""

FIXED = "fixed_params"
"""Where Optuna keeps the values that a trial was enqueued with."""

REMEMBERED = 4096
"""Proposals for other running trials that are kept. More than there are ever workers: with every new trial each is
asked for again."""

REPEATS = 3
"""Purpose of randomness: draws once a finite space is used up."""


class DivergencePruner(BasePruner):
    """Prunes a trial whose reported losses have blown up, by autolora's divergence rule.

    The rule is relative to the trial's own past, so it needs no other trials: it can prune the first. A trial that is
    merely bad, its loss never far above its start, goes on. A value that is NaN or infinite counts at once. Where the
    study maximizes, values are not losses, and only that test applies.

    Args:
        wrapped_pruner: asked about the trials that have not diverged; None: those are never pruned.
        examples_per_report: training examples that a reported loss averages over. The fewer, the longer noise is
            forgiven. The default suits evaluation losses, too.

    Raises:
        ValueError: ``examples_per_report`` below 1.
    """

    def __init__(self, wrapped_pruner: BasePruner | None = None, examples_per_report: int = FAST_EXAMPLES) -> None:
        if examples_per_report < 1:
            raise ValueError(f"examples_per_report must be at least 1 but got {examples_per_report}.")
        self._wrapped_pruner = wrapped_pruner
        self._examples_per_report = examples_per_report

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        if self.verdict(study.direction, trial) is not None:
            return True
        return self._wrapped_pruner is not None and self._wrapped_pruner.prune(study, trial)

    def verdict(self, direction: StudyDirection, trial: FrozenTrial) -> str | None:
        """Why the trial has diverged by what it has reported, in words, or None."""
        values = tuple(value for _, value in sorted(trial.intermediate_values.items()))
        broken = next((value for value in values if not math.isfinite(value)), None)
        if broken is not None:
            return f"a reported value became {broken}"
        return None if direction == StudyDirection.MAXIMIZE else _verdict(values, self._examples_per_report)


class LoraSampler(BaseSampler):
    """Samples the hyperparameters of LoRA fine-tuning as autolora's own search does.

    They are learning rate, batch size, rank, alpha, dropout, warm-up ratio and weight decay: every dimension that
    :class:`autolora.Space` has but the variants' options; and others that ``fields`` names.

    The first trial of a variant is the mode of the prior. There is no opening of short runs, since Optuna's trials run
    on unless a pruner stops them. Further ones are those of which a full run promises most by
    a model of all trials, of every variant and length; none is drawn where the variant is known to diverge.
    Parameters are recognized by name; those that are not of LoRA are left to another sampler, and so is a study of
    several objectives.

    The sampler holds nothing but a cache: a proposal is a function of the study's trials, the trial's number and the
    seed, so that a study that is continued, in any process, goes on as if it had never stopped. Trials that run are
    taken into account, and parallel workers may share a seed.

    A trial counts as diverged if its value or a reported one is NaN or infinite, if its reported losses blew up by the
    rule of :class:`DivergencePruner` (the study's own, or one with defaults) and it did not complete, or if it has a
    positive constraint "diverged" (``trial.set_constraint("diverged", 1.0)``).

    Args:
        variant: registered name of what is trained, where that is not searched. A categorical parameter ``variant``
            whose choices are registered names is; the variants then get equal shares of the trials.
        hidden_size: width of the model, known to the laws.
        examples: training examples of a full run, known to the laws.
        prior: "laws", a :class:`autolora.Prior`, or None for no belief but the searched range.
        names: the user's parameter names by ours ("variant", and those of :class:`autolora.Space`, such as "rank"), if
            they are not among ``autolora.integrations.parameters.NAMES``. A name of ours that is given another one is
            no longer recognized by its usual ones: ``{"dropout": ""}`` leaves dropout to another sampler.
        fields: names of further parameters of the objective that are searched besides, such as ``adam_beta2`` or an
            optimizer's name; in a mapping each with the value that is expected to be best, or None.
        batch_size: examples per optimizer step, where that is not searched.
        batch_multiplier: examples per optimizer step for each unit of the batch size parameter: devices times
            gradient accumulation, where the parameter is the batch size of one device.
        rank: where it is not searched.
        alpha: where it is not searched, what the objective trains with: "rank" (alpha = r), "law" (the objective calls
            :meth:`alpha` for it), or a number.
        max_resource: step of a full run, in the unit of ``trial.report``: the values reported before are then the
            scores of partial trainings, which tells of trials that were pruned. A function of a trial's parameters
            where it depends on them, as in ``lambda params: EXAMPLES / params["batch_size"]``. None: only the values
            of complete trials count.
        failed: what a failed trial counts as that does not show why: "ignored", its configuration is not repeated and
            nothing is learned of it, as it may have been interrupted or out of memory; or "diverged", for objectives
            that return NaN and report nothing.
        search_space: distributions by name, where they shall be known before the first trial. Without them that trial's
            parameters are sampled one by one, and the learning rate should be suggested last.
        seed: all randomness derives from it and the trial's number.
        independent_sampler: for the other parameters; None: ``TPESampler``, seeded anew for each trial.

    Raises:
        ValueError: a variant that is not registered, or another argument out of range.
    """

    def __init__(
        self,
        variant: str = "lora",
        *,
        hidden_size: int | None = None,
        examples: int | None = None,
        prior: Literal["laws"] | Prior | None = "laws",
        names: Mapping[str, str] | None = None,
        fields: Sequence[str] | Mapping[str, Scalar | None] = (),
        batch_size: int = 16,
        batch_multiplier: int = 1,
        rank: int = 8,
        alpha: Alpha = "rank",
        max_resource: float | Callable[[Mapping[str, Any]], float] | None = None,
        failed: Literal["ignored", "diverged"] = "ignored",
        search_space: Mapping[str, BaseDistribution] | None = None,
        seed: int = 0,
        independent_sampler: BaseSampler | None = None,
    ) -> None:
        variants.get(variant)
        _check_counts(batch_size=batch_size, batch_multiplier=batch_multiplier, rank=rank)
        if not (alpha in ("law", "rank") or (isinstance(alpha, (int, float)) and alpha > 0)):
            raise ValueError(f"alpha must be 'law', 'rank' or a number above 0 but got {alpha!r}.")
        if failed not in ("ignored", "diverged"):
            raise ValueError(f"failed must be 'ignored' or 'diverged' but got {failed!r}.")
        if not (callable(max_resource) or max_resource is None or max_resource > 0):
            raise ValueError(f"max_resource must be above 0 but got {max_resource}.")
        if not (isinstance(seed, int) and seed >= 0):
            raise ValueError(f"seed must be a whole number of at least 0 but got {seed!r}.")
        if not set(names or {}) <= set(NAMES):
            raise ValueError(f"names must be of {', '.join(NAMES)} but got {', '.join(names or {})}.")
        taken = sorted({alias for aliases in NAMES.values() for alias in aliases} & set(fields))
        if isinstance(fields, str) or taken:
            raise ValueError(f"fields must be names of other parameters than ours but got {taken or fields!r}.")
        if prior == "laws":
            prior = Prior.from_laws(hidden_size, examples)
        if not (prior is None or isinstance(prior, Prior)):
            raise ValueError(f"prior must be 'laws', a Prior or None but got {prior!r}.")
        self._prior = prior
        self._first = prior or Prior.from_laws(hidden_size, examples)
        self._parameters = Parameters(
            names={**NAMES, **{own: (name,) for own, name in (names or {}).items()}},
            variant=variant,
            batch_size=batch_size,
            rank=rank,
            alpha=alpha if isinstance(alpha, str) else float(alpha),
            batch_multiplier=batch_multiplier,
            hidden_size=hidden_size or (prior.hidden_size if prior else None),
            fields=dict(fields) if isinstance(fields, Mapping) else dict.fromkeys(fields),
        )
        self._max_resource = max_resource
        self._failed = failed
        self._search_space = dict(search_space or {})
        self._seed = seed
        self._independent_sampler = independent_sampler
        self._fresh: dict[bytes, Config | None] = {}

    def alpha(self, rank: int, variant: str | None = None) -> float:
        """The alpha to train with at a rank, where the study does not search it.

        Args:
            rank: r.
            variant: registered name; None: the sampler's.
        """
        return self._parameters.alpha_at(variant or self._parameters.variant, rank)

    def reseed_rng(self) -> None:
        """Our own randomness derives from the trial's number: only a given independent sampler has any to reseed."""
        if self._independent_sampler is not None:
            self._independent_sampler.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        known = self._known(study)
        found = self._parameters.found(known)
        return {name: known[name] for name in sorted(found.values())} if "learning_rate" in found else {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, CategoricalChoiceType]:
        sampled = self._sample(study, trial, search_space) if self._is_ours(study, search_space) else {}
        others = {name: distribution for name, distribution in search_space.items() if name not in sampled}
        return sampled | {name: self._sample_other(study, trial, name, others[name]) for name in others}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> CategoricalChoiceType:
        own = self._parameters.ours(param_name)
        if own is not None and not usable(own, param_distribution):
            warnings.warn(
                f"LoraSampler cannot search {param_name!r} over {param_distribution} as the {own.replace('_', ' ')}, "
                "and leaves it to the independent sampler; if it is something else, say with `names` what is.",
                stacklevel=2,
            )
        elif own is not None:
            asked = {**self._known(study), **trial.distributions, param_name: param_distribution}
            sampled = self._sample(study, trial, asked) if self._is_ours(study, asked) else {}
            if param_name in sampled:
                return sampled[param_name]
        return self._sample_other(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        if self._independent_sampler is not None:
            self._independent_sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if self._independent_sampler is not None:
            self._independent_sampler.after_trial(study, trial, state, values)

    def _known(self, study: Study) -> dict[str, BaseDistribution]:
        """The newest distribution of each parameter; none in a study of several objectives."""
        if len(study.directions) > 1:
            return {}
        known = dict(self._search_space)
        for trial in study.get_trials(deepcopy=False):
            known.update(trial.distributions)
        return known

    def _is_ours(self, study: Study, distributions: Distributions) -> bool:
        """Whether a LoRA search can be made of them: a learning rate is among them, or may still be suggested."""
        if len(study.directions) > 1:
            return False
        over = any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False))
        return "learning_rate" in self._parameters.found(distributions) or not over

    def _sample_other(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> CategoricalChoiceType:
        other = self._independent_sampler
        if other is None:
            other = TPESampler(seed=zlib.crc32(f"{self._seed} {trial.number} {name}".encode()))
        sampled: CategoricalChoiceType = other.sample_independent(study, trial, name, distribution)
        return sampled

    def _sample(
        self, study: Study, trial: FrozenTrial, distributions: Distributions
    ) -> dict[str, CategoricalChoiceType]:
        """Values of those of these parameters that are ours."""
        table = self._table(study, trial, distributions)
        variant, config = self._propose(table, trial.number, distributions, _given(trial))
        return self._parameters.values(distributions, variant, config)

    def _propose(
        self, table: TrialTable, number: int, distributions: Distributions, given: Values
    ) -> tuple[str, Config]:
        """Variant and configuration of a trial of which some values may be given."""
        names = self._parameters.searched_variants(distributions)
        asked = self._parameters.given(given).get("variant")
        variant = asked if isinstance(asked, str) and asked in names else _next_variant(table, names, number)
        space = self._parameters.space(distributions)
        known = dict.fromkeys([*names, *(other.variant for other in table.trials)])
        traits = {name: variants.get(name).traits for name in known}
        if self._prior is not None:
            traits = {name: self._prior.traits(name, own) for name, own in traits.items()}
        if table.of(variant):
            fresh = self._most_promising(
                Sampler(space, traits, self._prior, table.rungs, self._seed, opens=False), table, variant
            )
            rng = np.random.default_rng([self._seed, number, REPEATS])
            config = fresh or uniform_sample(rng, space, traits[variant])
        else:
            config = self._first.mode(space, traits[variant])
        coordinates = self._first.coordinates
        return variant, self._parameters.settled(distributions, given, coordinates, traits[variant], config)

    def _most_promising(self, sampler: Sampler, table: TrialTable, variant: str) -> Config | None:
        """The sampler's proposal; None in a finite space that is used up.

        Remembered, as a trial that runs is proposed for again with every later one.
        """
        known = sampler.space, list(sampler.traits), table.sign, table.trials, variant
        key = hashlib.sha256(repr(known).encode()).digest()
        if key not in self._fresh:
            if len(self._fresh) >= REMEMBERED:
                self._fresh.clear()
            fresh = sampler.acquisitions(table, variant, sampler.surrogate(table)).proposal
            self._fresh[key] = fresh.config if fresh else None
        return self._fresh[key]

    def _table(self, study: Study, trial: FrozenTrial, distributions: Distributions) -> TrialTable:
        """The study's other trials, in order.

        An earlier one that runs and has yet to suggest its parameters will get what this sampler proposes for it, and
        a later one that runs has counted on what this one gets: workers that start at once do not draw the same.
        """
        table = TrialTable(RUNGS if self._max_resource else RUNGS[-1:], study.direction.name.lower())
        space = self._parameters.space(distributions)
        rule = study.pruner if isinstance(study.pruner, DivergencePruner) else DivergencePruner()
        ours = set(self._parameters.found(distributions).values())
        for other in sorted(study.get_trials(deepcopy=False), key=lambda other: other.number):
            running = other.state == TrialState.RUNNING
            if other.number == trial.number or (running and other.number > trial.number):
                continue
            given = _given(other)
            read = self._parameters.configuration(given)
            if running and not ours <= given.keys():
                read = self._propose(table, other.number, distributions, given)
            if read is None:
                continue
            for event in self._events(table, space, *read, other, rule.verdict(study.direction, other)):
                table.apply(event)
        return table

    def _events(
        self, table: TrialTable, space: Space, variant: str, config: Config, trial: FrozenTrial, verdict: str | None
    ) -> Iterator[Event]:
        """What is known of a trial, under its number in the table."""
        number, last = len(table.trials), len(table.rungs) - 1
        yield Sampled(number=number, variant=variant, config=config, seed=0, purpose="search", target=last, origin="")
        for rung, score in self._scores(trial).items():
            yield Scored(number, rung, score)
        outcome = self._outcome(trial, verdict)
        if outcome == "complete":
            assert trial.value is not None
            yield Scored(number, last, trial.value)
        if outcome is not None:
            yield Finished(number, outcome, verdict or "")

    def _outcome(self, trial: FrozenTrial, verdict: str | None) -> Outcome | None:
        """How a trial ended, or None; ``verdict``: why it has diverged by what it reported."""
        complete = trial.state == TrialState.COMPLETE
        blown_up = not math.isfinite(trial.value or 0.0) if complete else verdict is not None
        silent = trial.state == TrialState.FAIL and self._failed == DIVERGED
        if blown_up or silent or trial.constraints.get(DIVERGED, 0.0) > 0:
            return "diverged"
        if trial.state == TrialState.FAIL or any(value > 0 for value in trial.constraints.values()):
            return "infeasible"
        if complete:
            return "complete"
        return "pruned" if trial.state == TrialState.PRUNED else None

    def _scores(self, trial: FrozenTrial) -> dict[int, float]:
        """The first value reported at or after each rung and before the next."""
        if self._max_resource is None or not trial.intermediate_values:
            return {}
        full = self._max_resource(trial.params) if callable(self._max_resource) else self._max_resource
        scores: dict[int, float] = {}
        for step, value in sorted(trial.intermediate_values.items()):
            reached = sum(rung * NEARLY <= step / full for rung in RUNGS)
            if reached and math.isfinite(value):
                scores.setdefault(reached - 1, value)
        return scores


def _given(trial: FrozenTrial) -> dict[str, CategoricalChoiceType]:
    """Values that a trial has, or will have as it was enqueued with them."""
    return {**trial.system_attrs.get(FIXED, {}), **trial.params}


def _next_variant(table: TrialTable, names: Sequence[str], number: int) -> str:
    """The one with the fewest trials; in turn, by the trial's number, where several have as few."""
    turns = [names[(number + turn) % len(names)] for turn in range(len(names))]
    return min(turns, key=lambda name: len(table.of(name)))


@lru_cache(maxsize=4096)
def _verdict(losses: tuple[float, ...], examples: int) -> str | None:
    """Of the rule on losses alone."""
    watch = ReportWatch(examples)
    return next((reason for loss in losses if (reason := watch.update(loss))), None)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not (isinstance(count, int) and count >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1 but got {count!r}.")
