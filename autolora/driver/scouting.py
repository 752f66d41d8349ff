"""What is measured before the first trial, and the prior that follows from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autolora import files, variants
from autolora.driver.result import TuneResult
from autolora.files import Document
from autolora.priors import Curvature, Prior, evidence, probe
from autolora.priors.evidence import REFERENCE
from autolora.priors.prior import CENTRE
from autolora.search.policy import seeds_kept
from autolora.space import Config, Space, searchable
from autolora.spec import PriorSpec, Spec, register_variants_as_found
from autolora.study.directory import NoStudyError, read_terms, recorded_spec
from autolora.trainers import Measurable, Trainer, horizon
from autolora.trainers.memory import out_of_memory

CHARGE = 2
"""Training examples that one of them costs: it goes forward once and backward twice."""


@dataclass(frozen=True)
class Scouted:
    """What scouting found.

    Attributes:
        prior: None where the specification wants none.
        curvatures: by variant; empty where none were measured.
        range_test: None where none was run.
        notes: a line on each measurement: what it cost, or why it was left out.
    """

    prior: Prior | None
    curvatures: Mapping[str, Curvature]
    range_test: probe.RangeTest | None
    notes: tuple[str, ...]


def scout(spec: Spec, space: Space, trainer: Trainer) -> Scouted:
    """Gather the evidence that a specification asks for.

    What it costs is charged to the budget, and left out where no full run of the search would be left.

    Raises:
        NoStudyError: ``prior.study`` is no run directory, or holds no tuned variant.
        ResultError: it holds no result yet.
    """
    if spec.prior is None:
        return Scouted(None, {}, None, ("prior: none; the search begins anywhere in the range",))
    return _Scout(spec, spec.prior, space, trainer).run()


def recalled(folder: Path) -> tuple[Document, Mapping[str, Config]]:
    """The terms and the tuned configurations, by variant, of an earlier study; its variants are registered.

    Raises:
        NoStudyError: ``folder`` is not a run directory, or holds no tuned variant.
        ResultError: it holds no result yet.
        DocumentError: a file of it is damaged.
    """
    terms, result = read_terms(folder), TuneResult.load(folder)
    register_variants_as_found(recorded_spec(folder))
    if not result:
        raise NoStudyError(f"prior.study: {files.shown(folder)} holds no tuned variant")
    return terms, {name: tuned.config for name, tuned in result.items()}


class _Scout:
    """One call of :func:`scout`."""

    def __init__(self, spec: Spec, asked: PriorSpec, space: Space, trainer: Trainer) -> None:
        self.spec, self.asked, self.space, self.trainer = spec, asked, space, trainer
        self.prior = Prior.from_laws(space.hidden_size, trainer.examples)
        self.traits = {name: searchable.traits_at_start(space, variants.get(name)) for name in {*spec.names, REFERENCE}}
        self.notes: list[str] = []

    def run(self) -> Scouted:
        if self.asked.study is not None:
            self._recall(files.expanded(self.asked.study))
        if self.asked.learning_rate is not None:
            self._listen(self.asked.learning_rate, self.asked.sd or evidence.USER_SD)
        rates = self.space.learning_rates
        searched = not isinstance(rates, list) or len(rates) > 1
        curvatures = self._measure_curvature() if self.asked.curvature and searched else {}
        test = self._run_range_test() if self.asked.probe and searched else None
        return Scouted(self.prior, curvatures, test, tuple(self.notes))

    def _recall(self, folder: Path) -> None:
        """Start from an earlier study."""
        terms, best = recalled(folder)
        traits = {name: variants.get(name).traits for name in best}
        context = self.trainer.fingerprints()
        same = all(terms["context"].get(key) == context[key] for key in ("model", "data"))
        then = terms["space"]["hidden_size"], terms["examples"]
        found = evidence.from_study(best, traits, then, (self.space.hidden_size, self.trainer.examples), same)
        wanted = [piece for piece in found if piece.about in (CENTRE, *self.spec.names)]
        self.prior = self.prior.informed(wanted, self.traits)
        self.notes.append(f"prior: starts from {files.shown(folder)}, which tuned {', '.join(best)}")

    def _listen(self, eta: float, sd: float) -> None:
        """The user's own expectation."""
        mode = self.prior.mode(self.space, self.traits[REFERENCE])
        self.prior = self.prior.informed([evidence.from_user(eta, sd, self.traits[REFERENCE], mode)], self.traits)
        self.notes.append(
            f"prior: you expect {eta:.2g} of plain LoRA at batch {mode.batch_size}, rank {mode.rank}, alpha "
            f"{mode.alpha:.4g}, give or take {sd:g} decades"
        )

    def _measure_curvature(self) -> Mapping[str, Curvature]:
        names = [name for name in self.spec.names if variants.get(name).has_own_curvature]
        trainer = self._measurable("curvature") if names else None
        if trainer is None:
            return {}
        examples = trainer.curvature_examples()
        cost = CHARGE * examples / self.trainer.examples
        if not self._leaves_a_search(cost):
            self.notes.append(f"prior: curvature is left out, since {self._share(cost)} would leave no search")
            return {}
        began = time.monotonic()
        with self._memory_for("curvature"):
            rank = self.prior.mode(self.space, self.traits[REFERENCE]).rank
            found, measured = trainer.curvature([REFERENCE, *names], rank)
            self.prior = self.prior.informed(evidence.from_curvature(found), self.traits, cost)
            took = f"on {examples} examples took {time.monotonic() - began:.1f} s" if measured else "was known already"
            self.notes.append(f"prior: curvature of {', '.join(names)} {took}; charged as {self._share(cost)}")
            return found
        return {}

    def _run_range_test(self) -> probe.RangeTest | None:
        trainer = self._measurable("the probe")
        if trainer is None:
            return None
        name = REFERENCE if REFERENCE in self.spec.names else self.spec.names[0]
        traits = self.prior.traits(name, self.traits[name])
        mode = self.prior.mode(*searchable.scope(self.space, variants.get(name), traits))
        most = probe.STEPS * mode.batch_size / self.trainer.examples
        if not self._leaves_a_search(most):
            self.notes.append(f"prior: the probe is left out, since {self._share(most)} would leave no search")
            return None
        began = time.monotonic()
        with self._memory_for("the probe"):
            test = trainer.range_test(name, probe.first_step(mode), probe.STEPS, probe.DECADES_A_STEP)
            found = [evidence.from_range_test(test, traits, horizon(self.trainer.examples, mode.batch_size))]
            cost = test.examples / self.trainer.examples
            self.prior = self.prior.informed(found if test.conclusive else [], self.traits, cost)
            readings = (
                f"steepest at {test.steepest:.1e}, lowest loss at {test.lowest:.1e}, edge at {test.edge:.1e}"
                if test.conclusive
                else f"the loss did not fall and rise again up to {test.rates[-1]:.1e}, which says nothing"
            )
            self.notes.append(
                f"prior: range test of {name}, {len(test.rates)} steps in {time.monotonic() - began:.1f} s, charged "
                f"as {self._share(cost)}: {readings}"
            )
            return test
        return None

    def _measurable(self, what: str) -> Measurable | None:
        if isinstance(self.trainer, Measurable):
            return self.trainer
        self.notes.append(f"prior: {what} is left out, since the trainer cannot measure it")
        return None

    @contextmanager
    def _memory_for(self, what: str) -> Iterator[None]:
        """Where memory runs out, a measurement is left out: trials halve their micro-batches and may still fit."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self.notes.append(f"prior: {what} is left out, as it does not fit into memory")

    def _leaves_a_search(self, cost: float) -> bool:
        """Whether the budget holds a full run beside the baseline, the seeds kept, and a further cost."""
        spec = self.spec
        upfront = (self.prior.cost + cost) / len(spec.names)
        return spec.budget - 1.0 - seeds_kept(spec.confirm, spec.budget) - upfront >= 1.0

    def _share(self, cost: float) -> str:
        return f"{cost / len(self.spec.names):.3f} of a full run for each variant"
