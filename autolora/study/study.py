"""Everything that touches Optuna: open a study, write events into it, read them back.

One Optuna trial per (configuration, seed), RUNNING while live or paused. Scores are its intermediate values; what
Optuna has no field for is in user attributes, so the study reads well in optuna-dashboard and in plain Optuna.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from autolora.files import Document
from autolora.priors.prior import Prior
from autolora.search.trials import Direction, Event, Finished, Lost, Promoted, Sampled, Scored, WeightsLost
from autolora.space import Config, Space, registry
from autolora.space.config import Value
from autolora.space.dimension import Category, Parameter
from autolora.space.named import Scalar
from autolora.study import integrity
from autolora.study.lock import Ownership
from autolora.study.rows import decode, encode
from autolora.study.storage import OtherTermsError, Storage, StudyError, connect, failures, patiently, shown, unlocked
from autolora.study.terms import differences
from autolora.study.versions import installed_versions

TERMS = "autolora:terms"
PROMOTED = "promoted to rung "
ROWS = "rows"
"""User attribute of a trial with what each evaluation row adds to its full-length score."""
METRICS = "metrics"
"""User attribute of a trial with what was reported beside its scores: by the rung's index, then by name."""
REVISION = "revision"
"""User attribute of a trial with its variant's revision, where that is above 1."""
TARGET = "target"
"""User attribute of a trial with the rung that it was sent to at first, where its run ends before the first one."""
TO_THE_END = ("confirm", "repeat")
"""Purposes whose trials are sent to the last rung at once."""
WEIGHTS_LOST = "autolora:weights lost"
"""User attribute of the study with the reason by trial number: Optuna takes nothing more of a trial that has ended."""
STEPS_WITHOUT_EXAMPLES = 1000
"""Steps of a full run where its number of examples is not known."""


class Study:
    """The record of a search in an Optuna storage. The driver is its only writer.

    Args:
        study: an Optuna study that carries the terms of a search.
        storage: where it is, as the user wrote it.
        ownership: the right to write it; None: to look at.

    Attributes:
        terms: variants, space, rungs, examples, seed and prior, as the search was started with.
    """

    def __init__(self, study: optuna.Study, storage: Storage = "", ownership: Ownership | None = None) -> None:
        self.optuna_study = study
        self._url = storage
        self._ownership = ownership
        self.terms: Document = integrity.terms_of(study, storage, TERMS) or {}
        self._storage = study._storage
        self._direction = study.direction
        self.space = Space(**self.terms["space"])
        self._steps = _steps(self.terms["rungs"], self.terms["examples"] or STEPS_WITHOUT_EXAMPLES)
        self._ids: list[int] = []
        self._lost: Counter[int] = Counter()

    @classmethod
    def open(cls, storage: Storage, name: str, direction: Direction, terms: Mapping[str, object]) -> Study:
        """Create the study, or continue the one of that name, as its one writer; see :class:`Ownership`.

        Raises:
            StudyInUseError: another process writes it.
            OtherTermsError: it was made on other terms, each named with both values.
            StudyError: the storage cannot be used.
        """
        integrity.check_file(storage)

        def attempt() -> Study:
            with _experimental_allowed(), failures(storage):
                study = optuna.create_study(
                    storage=connect(storage), study_name=name, direction=direction, load_if_exists=True
                )
                _begun_on(study, storage, direction, terms)  # what is refused takes nothing over
                ownership = Ownership(storage, name)
                if not _begun_on(study, storage, direction, terms):
                    study.set_user_attr("versions", installed_versions())
                    study.set_user_attr(TERMS, dict(terms))
                return cls(study, storage, ownership)

        return unlocked(attempt, storage)

    @classmethod
    def read(cls, storage: Storage, name: str) -> Study:
        """The study of that name, to look at.

        Raises:
            StudyError: there is none that autolora made, or the storage cannot be used.
        """
        study = cls.find(storage, name)
        if study is None:
            raise StudyError(f"no study {name!r} in {shown(storage)}")
        return study

    @classmethod
    def find(cls, storage: Storage, name: str) -> Study | None:
        """The study of that name, or None where it has not begun.

        Raises:
            StudyError: it was not made by autolora, or the storage cannot be used.
        """
        if not integrity.check_file(storage):
            return None

        def attempt() -> Study | None:
            with failures(storage):
                try:
                    study = optuna.load_study(storage=connect(storage), study_name=name)
                except KeyError:
                    return None
                # A crash may have come between creating it and its terms.
                return cls(study, storage) if _begun(study, storage) else None

        return unlocked(attempt, storage)

    def close(self) -> None:
        """Let another process write; otherwise that comes with the end of this one, or of this object."""
        if self._ownership is not None:
            self._ownership.release()

    @property
    def prior(self) -> Prior | None:
        """The prior that the search was started with."""
        recorded = self.terms["prior"]
        return None if recorded is None else Prior.from_dict(recorded)

    @property
    def direction(self) -> str:
        return self._direction.name.lower()

    def events(self, repair: bool = False) -> list[Event]:
        """The past.

        Args:
            repair: complete the end of a trial that a crash left half written. For the one writer only.

        Raises:
            StudyError: the storage cannot be read.
        """
        with failures(self._url):
            trials, weights_lost = unlocked(self._recorded, self._url)
        self._ids = [trial._trial_id for trial in trials]
        self._lost = Counter({trial.number: trial.user_attrs.get("lost", 0) for trial in trials})
        events: list[Event] = []
        for trial in trials:
            events.extend(_events_of(trial, self._steps))
            ended = _ending(trial)
            if ended is not None:
                events.append(ended)
                if repair and not trial.state.is_finished():
                    self.write(ended)
        return [*events, *(WeightsLost(number, reason) for number, reason in weights_lost.items())]

    def _recorded(self) -> tuple[list[FrozenTrial], dict[int, str]]:
        """All trials in order, and why weights are lost, by trial."""
        trials = integrity.trials_of(self.optuna_study, self._url, self.terms, self._steps)
        return trials, integrity.reasons_of(self.optuna_study, self._url, WEIGHTS_LOST, len(trials))

    def write(self, event: Event) -> None:
        """Record one event. What a crash leaves half written, :meth:`events` completes.

        A connection that is lost is waited for, and the event recorded once all the same.

        Raises:
            StudyInUseError: another process writes the study, or another search of this one.
            StudyError: the storage does not take it, for instance because the disk is full, or the study was opened to
                be looked at.
        """
        owned = self._ownership
        if owned is None:
            raise StudyError("this study was opened to be looked at: Study.open() is the way in for its one writer")

        def attempt(again: bool) -> None:
            owned.ensure()
            if not (again and self._took_effect(event)):
                self._write(event)

        with failures(self._url):
            patiently(attempt, self._url)

    def _took_effect(self, event: Event) -> bool:
        """Whether the event was recorded although the answer was lost. Not asked of what may be written twice."""
        if isinstance(event, Finished):
            return self._storage.get_trial(self._ids[event.number]).state.is_finished()
        if not isinstance(event, Sampled):
            return False
        try:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self.optuna_study._study_id, event.number)
        except KeyError:
            return False
        found, wanted = self._storage.get_trial(trial_id), self._template(event)
        if (found.params, found.user_attrs) != (wanted.params, wanted.user_attrs):
            raise StudyError(f"the study holds another trial {event.number}: another process writes to it")
        self._ids.append(trial_id)
        return True

    # By match, since functools.singledispatchmethod of Python 3.13.0 to 3.13.2 keeps every object alive that it was
    # called on (CPython issue 127750): here the study with its connections.
    def _write(self, event: Event) -> None:
        match event:
            case Sampled():
                self._write_sampled(event)
            case Promoted():
                self._write_promoted(event)
            case Scored():
                self._write_scored(event)
            case Finished():
                self._write_finished(event)
            case Lost():
                self._write_lost(event)
            case WeightsLost():
                known = self.optuna_study.user_attrs.get(WEIGHTS_LOST, {})
                self.optuna_study.set_user_attr(WEIGHTS_LOST, {**known, str(event.number): event.reason})
            case _:
                raise TypeError(f"not an event: {event!r}")

    def _write_sampled(self, event: Sampled) -> None:
        # One write, so that a crash leaves a whole trial or none.
        template = self._template(event)
        trial_id = self._storage.create_new_trial(self.optuna_study._study_id, template_trial=template)
        number = self._storage.get_trial_number_from_id(trial_id)
        if number != event.number:
            raise StudyError(f"the study got trial {number} where {event.number} was due: another process writes to it")
        self._ids.append(trial_id)

    def _write_promoted(self, event: Promoted) -> None:
        self._storage.set_trial_user_attr(self._ids[event.number], f"{PROMOTED}{event.target}", event.reason)

    def _write_scored(self, event: Scored) -> None:
        trial_id = self._ids[event.number]
        self._storage.set_trial_user_attr(trial_id, "seconds", event.seconds)
        if event.rows is not None:  # before the score: with it the event counts as recorded
            self._storage.set_trial_user_attr(trial_id, ROWS, encode(event.rows))
        if event.metrics:  # likewise
            known = self._storage.get_trial(trial_id).user_attrs.get(METRICS, {})
            self._storage.set_trial_user_attr(trial_id, METRICS, {**known, str(event.rung): dict(event.metrics)})
        self._storage.set_trial_intermediate_value(trial_id, self._steps[event.rung], event.value)

    def _write_finished(self, event: Finished) -> None:
        trial_id = self._ids[event.number]
        ending = {"outcome": event.outcome, "reason": event.reason, "at": event.at, "seconds": event.seconds}
        if event.too_large:  # earlier versions read no other
            ending["too_large"] = True
        self._storage.set_trial_user_attr(trial_id, "ending", ending)
        if event.outcome in ("diverged", "infeasible"):
            trial = optuna.trial.Trial(self.optuna_study, trial_id)
            if event.outcome not in self._storage.get_trial(trial_id).constraints:
                trial.set_constraint(event.outcome, 1.0)
        if event.outcome == "complete":
            scores = self._storage.get_trial(trial_id).intermediate_values
            self.optuna_study.tell(event.number, scores[self._steps[-1]])
        else:
            self.optuna_study.tell(event.number, state=TrialState.PRUNED)

    def _write_lost(self, event: Lost) -> None:
        lost = self._lost[event.number] + 1
        self._storage.set_trial_user_attr(self._ids[event.number], "lost", lost)
        self._lost[event.number] = lost  # only now: writing it again counts it once

    def _template(self, event: Sampled) -> FrozenTrial:
        """The trial as it begins."""
        return FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params=self._params(event),
            distributions=self._distributions(event.variant, event.config),
            user_attrs=_attributes(event),
            system_attrs={},
            intermediate_values={},
        )

    def _params(self, event: Sampled) -> dict[str, Scalar]:
        """As Optuna shows them."""
        found: dict[str, Scalar] = {"variant": event.variant}
        for dimension in registry():
            parameters = dimension.parameters(self.space, event.variant, event.config)
            found |= {name: parameter.value for name, parameter in parameters.items()}
        return found

    def _distributions(self, variant: str, config: Config) -> dict[str, BaseDistribution]:
        """Ranges of the space, widened where a baseline lies outside. Numbers where they can be, since Optuna's
        categories are fixed.
        """
        found: dict[str, BaseDistribution] = {"variant": CategoricalDistribution(self.terms["variants"])}
        for dimension in registry():
            for name, parameter in dimension.parameters(self.space, variant, config).items():
                found[name] = _distribution(parameter)
        return found


@contextmanager
def _experimental_allowed() -> Iterator[None]:
    """Constraints and storages that Optuna still marks experimental are used knowingly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _begun(study: optuna.Study, storage: Storage) -> bool:
    """Whether a search has begun in the study.

    Raises:
        StudyError: somebody else has.
    """
    if integrity.terms_of(study, storage, TERMS) is not None:
        return True
    if study.get_trials(deepcopy=False):
        raise StudyError(
            f"the study {study.study_name!r} in {shown(storage)} was not made by autolora: choose another name"
        )
    return False


def _begun_on(study: optuna.Study, storage: Storage, direction: Direction, terms: Mapping[str, object]) -> bool:
    """Whether a search has begun in the study, on these terms.

    Raises:
        OtherTermsError: on others.
        StudyError: somebody else has.
    """
    if not _begun(study, storage):
        return False
    recorded = {**study.user_attrs[TERMS], "direction": study.direction.name.lower()}
    changed = differences(recorded, {**terms, "direction": direction})
    if changed:
        raise OtherTermsError(
            f"the study {study.study_name!r} in {shown(storage)} was made on other terms: " + "; ".join(changed)
        )
    return True


def _steps(rungs: Sequence[float], full_run: int) -> list[int]:
    """The step at which the study shows each rung's score; no two alike, however few the examples."""
    steps: list[int] = []
    for rung in rungs:
        steps.append(max(round(rung * full_run), steps[-1] + 1 if steps else 1))
    return steps


def _distribution(parameter: Parameter | Category) -> BaseDistribution:
    if isinstance(parameter, Category):
        return CategoricalDistribution(parameter.choices)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _config(params: Mapping[str, Any]) -> Config:
    """The configuration of a trial's parameters."""
    values: dict[str, Value] = {}
    for dimension in registry():
        values |= dimension.read(params, params["variant"])
    return Config.of(**values)


def _attributes(event: Sampled) -> dict[str, Any]:
    """The user attributes that a trial begins with."""
    revision = {REVISION: event.revision} if event.revision > 1 else {}
    target = {TARGET: event.target} if event.target and event.purpose not in TO_THE_END else {}
    return {"seed": event.seed, "purpose": event.purpose, "origin": event.origin, **revision, **target}


def _events_of(trial: FrozenTrial, steps: Sequence[int]) -> Iterator[Event]:
    attributes = trial.user_attrs
    yield Sampled(
        number=trial.number,
        variant=trial.params["variant"],
        config=_config(trial.params),
        seed=attributes["seed"],
        purpose=attributes["purpose"],
        target=len(steps) - 1 if attributes["purpose"] in TO_THE_END else attributes.get(TARGET, 0),
        origin=attributes["origin"],
        revision=attributes.get(REVISION, 1),
    )
    for step, value in sorted(trial.intermediate_values.items()):
        rung, rows = steps.index(step), None
        if rung == len(steps) - 1 and ROWS in attributes:  # studies of earlier versions lack it
            rows = decode(value, attributes[ROWS])
        metrics = attributes.get(METRICS, {}).get(str(rung), {})
        yield Scored(trial.number, rung, value, attributes.get("seconds", 0.0), rows, metrics)
    for target in range(len(steps)):
        if f"{PROMOTED}{target}" in attributes:
            yield Promoted(trial.number, target, attributes[f"{PROMOTED}{target}"])
    for _ in range(attributes.get("lost", 0)):
        yield Lost(trial.number)


def _ending(trial: FrozenTrial) -> Finished | None:
    ending = trial.user_attrs.get("ending")
    if ending is None:
        return None
    return Finished(trial.number, **ending)
