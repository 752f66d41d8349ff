"""Ask and tell: the search over anybody's trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from autolora.errors import AutoloraError
from autolora.priors.prior import Prior
from autolora.scores import Scores
from autolora.search.forecast import Forecast
from autolora.search.job import Job
from autolora.search.policy import (
    Done,
    Finish,
    Limit,
    Plan,
    Promote,
    Resume,
    Sample,
    Wait,
    completed,
    decide,
    futile,
    seeds_kept,
)
from autolora.search.recorder import InMemory, Recorder
from autolora.search.rungs import RUNGS, ascend_to_one
from autolora.search.sampler import Sampler
from autolora.search.trials import (
    Direction,
    Event,
    Finished,
    Lost,
    Promoted,
    Sampled,
    Scored,
    TrialTable,
    WeightsLost,
)
from autolora.space import Config, Searchable, Space, searchable


class BudgetError(AutoloraError, ValueError):
    """The budget is too small for anything to be trained."""


class RevisionError(AutoloraError, ValueError):
    """What the search has tried was trained in another way than it would be now."""


class _Wait:
    def __repr__(self) -> str:
        return "autolora.WAIT"


WAIT: Final = _Wait()
"""What ``Search.ask`` returns where nothing can be handed out until a job in flight is told."""


class Search:
    """Tunes LoRA variants by a model of all their scores, given those of partial and full trainings.

    Args:
        variants: by name, in the order in which they take turns.
        space: a :class:`autolora.Space`.
        budget: full-run equivalents per variant, everything included, in total for the study.
        rungs: fractions of a full run at which a trial is scored, ascending to 1.
        direction: "minimize" or "maximize" the score.
        seed: all randomness derives from it and the trial's number.
        prior: "laws", a :class:`autolora.priors.Prior`, or None for no belief but the searched range.
        confirm: full runs kept for further seeds of the finalists; "auto": min(4, floor(budget / 4)); 0: none.
        baseline: configurations trained first and to the end, by variant. Options that the space names and a
            configuration leaves open are as pinned, or as the variant has them by default.
        examples: training examples of a full run, known to the laws; None if they are not known.
        in_steps: trials are trained in whole optimizer steps, which end at a rung or behind it, and are charged the
            examples of those; needs ``examples``. False: they are trained to the rungs exactly.
        scored_rows: evaluation rows that each rung is scored on, the first ones of one order; empty if all have the
            same. Scores of rungs with different rows are not compared as if they were of the same.
        too_large: configurations by variant that are known not to fit into memory: neither these nor any that are at
            least as large in rank and batch size are sampled.
        context: what the scores depend on besides the configuration, such as fingerprints of model and data. It is
            part of the terms.
        recorder: where events are recorded and continued from; None: :class:`InMemory`.

    Attributes:
        table: all trials.
        plan: variants, rungs, budget and seeds kept to confirm.
        outdated: variants of which a continued search has trials that an earlier version of autolora trained in
            another way. They are in the table and not in the plan.
        space, direction, prior: as given; the prior is resolved.

    Raises:
        RevisionError: all variants are outdated.
        ValueError: an unknown variant or option, terms out of range, a budget that does not hold what the prior cost,
            or a recorder that holds a search on other terms.
    """

    def __init__(
        self,
        variants: Mapping[str, Searchable],
        space: Space | None = None,
        budget: float = 8.0,
        rungs: Sequence[float] = RUNGS,
        direction: Direction = "minimize",
        seed: int = 0,
        prior: Literal["laws"] | Prior | None = "laws",
        confirm: int | Literal["auto"] = "auto",
        *,
        baseline: Mapping[str, Config] | None = None,
        examples: int | None = None,
        in_steps: bool = False,
        scored_rows: Sequence[int] = (),
        too_large: Mapping[str, Sequence[Config]] | None = None,
        context: Mapping[str, str] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        space = space or Space()
        rungs = tuple(float(rung) for rung in rungs)
        _check_terms(variants, budget, rungs, direction, confirm, seed)
        searchable.check(space, variants, known=[key.partition(".")[0] for key in space.options])
        if prior == "laws":
            prior = Prior.from_laws(space.hidden_size, examples)
        if not (prior is None or isinstance(prior, Prior)):
            raise ValueError(f"prior={prior!r} must be 'laws', a Prior or None")
        if prior is not None and prior.longest != space.longest:
            prior = replace(prior, longest=space.longest)
        upfront = prior.share(len(variants)) if prior else 0.0
        least = 1 + (0 if confirm == "auto" else confirm) + upfront
        if not budget >= least:
            raise BudgetError(
                f"budget={budget:g} does not hold one full run, the seeds kept to confirm, and each variant's share of "
                f"what the prior cost, {upfront:.3g}: give at least {least:.4g}"
            )
        if not set(baseline or {}) <= set(variants):
            raise ValueError(f"baseline names {sorted(set(baseline or {}) - set(variants))}, which are not tuned here")
        if scored_rows and len(scored_rows) != len(rungs):
            raise ValueError(f"scored_rows has {len(scored_rows)} numbers for {len(rungs)} rungs: give one for each")
        if min(scored_rows, default=1) < 1 or list(scored_rows) != sorted(scored_rows):
            raise ValueError(
                f"scored_rows={list(scored_rows)} must be at least 1, and none smaller than the one before"
            )
        if in_steps and examples is None:
            raise ValueError("in_steps=True needs examples: without them it is not known what of a run a step is")
        seeds = seeds_kept(confirm, budget)
        self.space = space
        self.direction = direction
        self.prior = prior
        self._baseline = {
            name: searchable.completed(space, variants[name], config) for name, config in (baseline or {}).items()
        }
        self._sampler = Sampler.of(variants, space, prior, rungs, seed, too_large)
        self._recorder = recorder or InMemory()
        terms: dict[str, object] = {
            "variants": list(variants),
            "space": space.model_dump(),
            "rungs": list(rungs),
            "examples": examples,
            "seed": seed,
            "prior": prior.as_dict() if prior else None,
            "baseline": {variant: config.as_dict() for variant, config in self._baseline.items()},
            "context": dict(context or {}),
        }
        scored_rows = tuple(scored_rows) if len(set(scored_rows)) > 1 else ()
        if scored_rows:  # searches of earlier versions have no such term
            terms["scored_rows"] = list(scored_rows)
        events = self._recorder.begin(direction, terms)
        self.table = TrialTable(
            rungs,
            direction,
            events,
            upfront,
            examples if in_steps else None,
            scored_rows,
            length=space.length,
            cheapest=space.shortest,
        )
        self._revisions = {name: variant.revision for name, variant in variants.items()}
        self.outdated = self._outdated()
        current = tuple(name for name in variants if name not in self.outdated)
        self.plan = Plan(current, rungs, budget, seeds, frozenset(self._baseline))
        self._in_flight: set[int] = set()
        self._forecast = Forecast(self._sampler, self.table)

    @property
    def spent(self) -> dict[str, float]:
        """Full-run equivalents per variant, jobs handed out included."""
        return {variant: self.table.spent(variant) for variant in self.plan.variants}

    @property
    def in_flight(self) -> frozenset[int]:
        """Numbers of the trials that are handed out now."""
        return frozenset(self._in_flight)

    def limit(self, limits: Mapping[str, Limit]) -> None:
        """Say what the time that is left allows each variant, from now on.

        Args:
            limits: by variant; one that has none may spend all of its budget.
        """
        self.plan = replace(self.plan, limits=dict(limits))

    def shortfalls(self, tuned: Mapping[str, Config]) -> dict[str, float]:
        """How far behind the best of its variant a tuned configuration may be at full length, in the metric's own
        units: a root mean square, by variant.

        Args:
            tuned: by variant, each trained to full length.
        """
        return self._sampler.shortfalls(self.table, tuned)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to do, with all that is in flight given up."""
        forecast = self._forecast
        action = decide(self.table, self.plan, forecast.acquisitions, forecast.paused_acquisitions)
        return isinstance(action, Done)

    def ask(self) -> Job | _Wait | None:
        """The next job; :data:`WAIT` where one in flight must be told first; None at the end of the budget."""
        while True:
            action = decide(
                self.table, self.plan, self._forecast.acquisitions, self._forecast.paused_acquisitions, self._in_flight
            )
            match action:
                case Done():
                    return None
                case Wait():
                    return WAIT
                case Resume(number):
                    return self._hand_out(number)
                case Promote(number, target, reason):
                    self._record(Promoted(number, target, reason))
                    return self._hand_out(number)
                case Finish(number, outcome, reason):
                    self._record(Finished(number, outcome, reason))
                case Sample():
                    sampled = self._sampled(self.table, action)
                    self._record(sampled)
                    return self._hand_out(sampled.number)

    def tell(
        self,
        job: Job,
        value: float | None = None,
        *,
        diverged: bool = False,
        infeasible: bool = False,
        lost: bool = False,
        at: float | None = None,
        reason: str = "",
        seconds: float = 0.0,
        rows: Scores | None = None,
        metrics: Mapping[str, float] | None = None,
        too_large: bool = False,
    ) -> None:
        """Report what became of a job: exactly one of a value, ``diverged``, ``infeasible`` or ``lost``.

        Trials that this decides are closed, for which a model is fitted.

        Args:
            job: from :meth:`ask`.
            value: the score at ``job.stop``; finite.
            diverged: the training blew up: an observation, never the incumbent.
            infeasible: the configuration cannot be trained here, for instance for lack of memory.
            lost: the worker died; the job is handed out again and nothing is charged.
            at: fraction of the trial's full run where it diverged or proved infeasible; None: ``job.stop``.
            reason: in words, for the study.
            seconds: wall time of the trial's training so far.
            rows: what each evaluation row adds to the value, with which configurations are compared row by row. Kept of
                full-length scores only; None if it is not known.
            metrics: what is to be known beside the score, by name; it steers nothing.
            too_large: the configuration is infeasible for lack of memory: those of its variant that are at least as
                large in rank and batch size are not sampled any more.

        Raises:
            ValueError: none or several of the four, a value that is not finite, or a job that is not in flight.
        """
        if (value is not None) + diverged + infeasible + lost != 1:
            raise ValueError("tell() takes exactly one of a value, diverged=True, infeasible=True or lost=True")
        if value is not None and not math.isfinite(value):
            raise ValueError(
                f"trial {job.trial}: the score {value} is not finite; "
                "if training blew up, tell(job, diverged=True, at=...)"
            )
        if at is not None and not 0 <= at <= 1:
            raise ValueError(f"trial {job.trial}: at={at} is not a fraction of a full run, 0 to 1")
        if job.trial not in self._in_flight or job.rung != self.table.trials[job.trial].target:
            raise ValueError(
                f"trial {job.trial} is not in flight to {job.stop:.3g} of a run: it was told already, or never asked"
            )
        if value is not None:
            kept = rows if job.rung == self.plan.last else None  # shorter runs are never compared row by row
            self._record(Scored(job.trial, job.rung, float(value), seconds, kept, dict(metrics or {})))
        elif lost:
            self._record(Lost(job.trial))
        else:
            outcome: Literal["diverged", "infeasible"] = "diverged" if diverged else "infeasible"
            trained = self.table.share(job.config, job.rung)
            before = self.table.fraction(self.table.trials[job.trial])
            stopped_at = max(before, min(trained if at is None else at * job.length, trained))
            self._record(Finished(job.trial, outcome, reason or outcome, stopped_at, seconds, too_large))
        self._in_flight.discard(job.trial)
        self._settle()

    def weights_lost(self, trial: int, reason: str) -> None:
        """Report that what a completed trial has trained cannot be used any more.

        Its score stands. If its configuration wins, :meth:`ask` hands the run out again as a trial of its own, charged
        as any other, where the budget holds one more full run.

        Args:
            trial: number.
            reason: in words, for the study; empty: they can be used again.

        Raises:
            ValueError: the trial is not complete.
        """
        if not 0 <= trial < len(self.table.trials) or self.table.trials[trial].outcome != "complete":
            raise ValueError(f"trial {trial} is not complete: only a completed one has weights to lose")
        self._record(WeightsLost(trial, reason))

    def discarded(self) -> list[int]:
        """Numbers of the trials that will never be trained on: their checkpoints may go."""
        return [trial.number for trial in self.table.discarded()]

    def close(self) -> None:
        """Let another process continue the search; otherwise that comes with the end of this process or object."""
        self._recorder.close()

    def preview(self, count: int) -> list[Sampled]:
        """The first configurations that would be sampled before any score is known, without recording anything."""
        known = self.table
        table = known.emptied()
        forecast = Forecast(self._sampler, table)
        sampled: list[Sampled] = []
        while len(sampled) < count:
            action = decide(
                table, self.plan, forecast.acquisitions, forecast.paused_acquisitions, set(range(len(sampled)))
            )
            if not isinstance(action, Sample):
                break
            next_one = self._sampled(table, action)
            if next_one.origin.startswith("model: ") and table.of(next_one.variant):
                break  # what the model would choose depends on scores that are not there
            sampled.append(next_one)
            table.apply(sampled[-1])
            forecast.note(sampled[-1])
        return sampled

    def _hand_out(self, number: int) -> Job:
        trial = self.table.trials[number]
        self._in_flight.add(number)
        return Job(
            trial=number,
            variant=trial.variant,
            config=trial.config,
            seed=trial.seed,
            start=self.table.stop(trial.config, trial.reached) if trial.scores else 0.0,
            stop=self.table.stop(trial.config, trial.target),
            rung=trial.target,
            length=self.space.length(trial.config),
        )

    def _sampled(self, table: TrialTable, action: Sample) -> Sampled:
        """The trial that the action asks for."""
        variant = action.variant
        if action.config is not None:
            config, origin = action.config, action.reason
        else:
            forced = ", at alpha = rank, as it has no other" if self._sampler.traits[variant].unit_scale else ""
            config, origin = self._baseline[variant], f"the user's baseline{forced}"
        return Sampled(
            number=len(table.trials),
            variant=variant,
            config=config,
            seed=action.seed,
            purpose=action.purpose,
            target=table.rung_from(config, action.target),
            origin=origin,
            revision=self._revisions[variant],
        )

    def _outdated(self) -> tuple[str, ...]:
        """See ``outdated``."""
        found = {trial.variant for trial in self.table.trials if trial.revision != self._revisions[trial.variant]}
        if found and found == self._revisions.keys():
            raise RevisionError(
                f"another version of autolora began this search, and trained {' and '.join(sorted(found))} in another "
                "way: scores of both cannot be compared. Tune in a new directory, or go on with that version"
            )
        return tuple(name for name in self._revisions if name in found)

    def _settle(self) -> None:
        """Close the trials that are decided, so that their checkpoints can go at once.

        One after the other, each given the last, as :func:`decide` goes on where a process ended amid them.
        """
        while finish := next(self._decided(), None):
            self._record(Finished(finish.number, finish.outcome, finish.reason))

    def _decided(self) -> Iterator[Finish]:
        yield from completed(self.table, self.plan)
        yield from futile(self.table, self.plan, self._forecast.paused_acquisitions)

    def _record(self, event: Event) -> None:
        """Recorder first, table second: what the table knows is kept."""
        self._recorder.write(event)
        self.table.apply(event)
        self._forecast.note(event)


def _check_terms(
    variants: Mapping[str, Searchable],
    budget: float,
    rungs: tuple[float, ...],
    direction: str,
    confirm: int | str,
    seed: int,
) -> None:
    if not variants:
        raise ValueError("variants is empty: there is nothing to tune")
    if not (math.isfinite(budget) and budget >= 1):
        raise ValueError(f"budget={budget!r}: at least 1 full run per variant is needed")
    if not ascend_to_one(rungs):
        raise ValueError(f"rungs={rungs!r} must ascend from above 0 to 1.0")
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"direction={direction!r} must be 'minimize' or 'maximize'")
    if confirm != "auto" and not (isinstance(confirm, int) and 0 <= confirm <= budget - 1):
        raise ValueError(f"confirm={confirm!r} must be 'auto' or 0 to {int(budget - 1)}, as the budget is {budget:g}")
    if not (isinstance(seed, int) and seed >= 0):
        raise ValueError(f"seed={seed!r} must be a whole number of at least 0")
