"""Everything that touches Optuna: open a study, write events into it, read them back.

One Optuna trial per (configuration, seed), RUNNING while live or paused. Scores are its intermediate values; what
Optuna has no field for is in user attributes, so the study reads well in optuna-dashboard and in plain Optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import singledispatchmethod
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from autolora.errors import AutoloraError
from autolora.priors.prior import Prior
from autolora.result import installed_versions
from autolora.search.trials import Event, Finished, Lost, Promoted, Sampled, Scored
from autolora.space import Config, Range, Space
from autolora.spec import Direction, differences

TERMS = "autolora:terms"
PROMOTED = "promoted to rung "
STEPS_WITHOUT_EXAMPLES = 1000
"""Steps of a full run where its number of examples is not known."""


class StudyError(AutoloraError, ValueError):
    """The storage holds another search, or cannot be used."""


class Study:
    """The record of a search in an Optuna storage. The driver is its only writer.

    Args:
        study: an Optuna study that carries the terms of a search.

    Attributes:
        terms: variants, space, rungs, examples, seed and prior, as the search was started with.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.optuna_study = study
        self.terms: dict[str, Any] = study.user_attrs[TERMS]
        self._storage = study._storage
        self._space = Space(**self.terms["space"])
        self._steps = _steps(self.terms["rungs"], self.terms["examples"] or STEPS_WITHOUT_EXAMPLES)
        self._ids: list[int] = []

    @classmethod
    def open(cls, storage: str, name: str, direction: Direction, terms: Mapping[str, Any]) -> Study:
        """Create the study, or continue the one of that name.

        Raises:
            StudyError: it was made on other terms, each named with both values.
        """
        with _experimental_allowed(), _storage_errors():
            study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        known = study.user_attrs.get(TERMS)
        if known is None:
            if study.get_trials(deepcopy=False):
                raise StudyError(f"the study {name!r} in {storage} was not made by autolora: choose another name")
            study.set_user_attr("versions", installed_versions())
            study.set_user_attr(TERMS, dict(terms))
        else:
            recorded = {**known, "direction": study.direction.name.lower()}
            changed = differences(recorded, {**terms, "direction": direction})
            if changed:
                raise StudyError(f"the study {name!r} in {storage} was made on other terms: " + "; ".join(changed))
        return cls(study)

    @classmethod
    def read(cls, storage: str, name: str) -> Study:
        """The study of that name, to look at.

        Raises:
            StudyError: there is none that autolora made.
        """
        study = cls.find(storage, name)
        if study is None:
            raise StudyError(f"no study {name!r} in {storage}")
        return study

    @classmethod
    def find(cls, storage: str, name: str) -> Study | None:
        """The study of that name, or None where it has not begun.

        Raises:
            StudyError: it was not made by autolora.
        """
        try:
            with _storage_errors():
                study = optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            return None
        if TERMS not in study.user_attrs:
            if study.get_trials(deepcopy=False):
                raise StudyError(f"the study {name!r} in {storage} was not made by autolora: choose another name")
            return None  # a crash came between creating it and its terms
        return cls(study)

    @property
    def prior(self) -> Prior | None:
        """The prior that the search was started with."""
        recorded = self.terms["prior"]
        return None if recorded is None else Prior.from_dict(recorded)

    @property
    def direction(self) -> str:
        return self.optuna_study.direction.name.lower()

    def events(self, repair: bool = False) -> list[Event]:
        """The past.

        Args:
            repair: complete the end of a trial that a crash left half written. For the one writer only.
        """
        trials = sorted(self.optuna_study.get_trials(deepcopy=False), key=lambda trial: trial.number)
        self._ids = [trial._trial_id for trial in trials]
        events: list[Event] = []
        for trial in trials:
            events.extend(_events_of(trial, self._steps))
            ended = _ending(trial)
            if ended is not None:
                events.append(ended)
                if repair and not trial.state.is_finished():
                    self.write(ended)
        return events

    def write(self, event: Event) -> None:
        """Record one event. What a crash leaves half written, :meth:`events` completes.

        Raises:
            StudyError: the storage does not take it, for instance because the disk is full.
        """
        with _storage_errors():
            self._write(event)

    @singledispatchmethod
    def _write(self, event: Event) -> None:
        raise TypeError(f"not an event: {event!r}")

    @_write.register
    def _(self, event: Sampled) -> None:
        attributes = {"seed": event.seed, "purpose": event.purpose, "origin": event.origin}
        # One write, so that a crash leaves a whole trial or none.
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params=_params(event),
            distributions=self._distributions(event.variant, event.config),
            user_attrs=attributes,
            system_attrs={},
            intermediate_values={},
        )
        trial_id = self._storage.create_new_trial(self.optuna_study._study_id, template_trial=template)
        number = self._storage.get_trial_number_from_id(trial_id)
        if number != event.number:
            raise StudyError(f"the study got trial {number} where {event.number} was due: another process writes to it")
        self._ids.append(trial_id)

    @_write.register
    def _(self, event: Promoted) -> None:
        self._storage.set_trial_user_attr(self._ids[event.number], f"{PROMOTED}{event.target}", event.reason)

    @_write.register
    def _(self, event: Scored) -> None:
        trial_id = self._ids[event.number]
        self._storage.set_trial_user_attr(trial_id, "seconds", event.seconds)
        self._storage.set_trial_intermediate_value(trial_id, self._steps[event.rung], event.value)

    @_write.register
    def _(self, event: Finished) -> None:
        trial_id = self._ids[event.number]
        ending = {"outcome": event.outcome, "reason": event.reason, "at": event.at, "seconds": event.seconds}
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

    @_write.register
    def _(self, event: Lost) -> None:
        trial_id = self._ids[event.number]
        lost = self._storage.get_trial(trial_id).user_attrs.get("lost", 0)
        self._storage.set_trial_user_attr(trial_id, "lost", lost + 1)

    def _distributions(self, variant: str, config: Config) -> dict[str, BaseDistribution]:
        """Ranges of the space, widened where a baseline lies outside. Numbers, since Optuna's categories are fixed."""
        rates = self._space.learning_rates
        ends = (rates.low, rates.high) if isinstance(rates, Range) else (min(rates), max(rates))
        eta, batches = (*ends, config.learning_rate), [*self._space.batch_size, config.batch_size]
        ranks = [*self._space.rank, config.rank]
        alphas = self._space.alpha
        span = (alphas.low, alphas.high) if isinstance(alphas, Range) else (config.alpha, config.alpha)
        own: dict[str, BaseDistribution] = {}
        for option, value in config.options:
            values = [*self._space.options_of(variant).get(option, []), value]
            own[f"{variant}.{option}"] = FloatDistribution(min(values), max(values))
        return {
            "variant": CategoricalDistribution(self.terms["variants"]),
            "learning_rate": FloatDistribution(min(eta), max(eta), log=True),
            "batch_size": IntDistribution(min(batches), max(batches), log=True),
            "rank": IntDistribution(min(ranks), max(ranks), log=True),
            "alpha": FloatDistribution(min(span[0], config.alpha), max(span[1], config.alpha), log=True),
            **own,
        }


@contextmanager
def _experimental_allowed() -> Iterator[None]:
    """Constraints and storages that Optuna still marks experimental are used knowingly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextmanager
def _storage_errors() -> Iterator[None]:
    """A storage that fails, for instance on a full disk, is said in one line."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        raise StudyError(
            f"the study's storage does not work: {cause}. What is recorded is kept; mend the storage (free some "
            "space? is its URL right, as in sqlite:///study.db?) and run the same command again to continue"
        ) from error


def _steps(rungs: Sequence[float], full_run: int) -> list[int]:
    """The step at which the study shows each rung's score; no two alike, however few the examples."""
    steps: list[int] = []
    for rung in rungs:
        steps.append(max(round(rung * full_run), steps[-1] + 1 if steps else 1))
    return steps


def _params(event: Sampled) -> dict[str, Any]:
    """As Optuna shows them: a variant's own options by "variant.option", since another may call its own the same."""
    params = event.config.as_dict()
    options = params.pop("options", {})
    return {"variant": event.variant, **params, **{f"{event.variant}.{key}": options[key] for key in options}}


def _config(params: Mapping[str, Any]) -> Config:
    """The inverse of :func:`_params`."""
    prefix = f"{params['variant']}."
    options = {key.removeprefix(prefix): value for key, value in params.items() if key.startswith(prefix)}
    shared = {key: value for key, value in params.items() if key != "variant" and not key.startswith(prefix)}
    return Config(**shared, options=tuple(options.items()))


def _events_of(trial: FrozenTrial, steps: Sequence[int]) -> Iterator[Event]:
    attributes = trial.user_attrs
    yield Sampled(
        number=trial.number,
        variant=trial.params["variant"],
        config=_config(trial.params),
        seed=attributes["seed"],
        purpose=attributes["purpose"],
        target=len(steps) - 1 if attributes["purpose"] == "confirm" else 0,
        origin=attributes["origin"],
    )
    for step, value in sorted(trial.intermediate_values.items()):
        yield Scored(trial.number, steps.index(step), value, attributes.get("seconds", 0.0))
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
