"""What is measured before the first trial, and the prior that follows from it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autolora import files, variants
from autolora.driver.result import TuneResult
from autolora.priors import Curvature, Prior, curvature, evidence, probe
from autolora.priors.evidence import REFERENCE
from autolora.priors.sharpness import affordable_blocks
from autolora.search.policy import seeds_kept
from autolora.space import Space, searchable
from autolora.spec import PriorSpec, Spec, register_variants
from autolora.study.directory import NoStudyError, read_terms, recorded_spec
from autolora.training.memory import out_of_memory
from autolora.training.workbench import Workbench

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

EXAMPLES = 16
"""Calibration examples that the curvature is measured on."""
CHARGE = 2
"""Training examples that one of them costs: it goes forward once and backward twice."""
CACHE_VERSION = 1  # raise it when the same model and data give other curvatures


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


def scout(spec: Spec, space: Space, bench: Workbench) -> Scouted:
    """Gather the evidence that a specification asks for.

    What it costs is charged to the budget, and left out where no full run of the search would be left.

    Raises:
        NoStudyError: ``prior.study`` is no run directory, or holds no tuned variant.
        ResultError: it holds no result yet.
    """
    if spec.prior is None:
        return Scouted(None, {}, None, ("prior: none; the search begins anywhere in the range",))
    return _Scout(spec, spec.prior, space, bench).run()


class _Scout:
    """One call of :func:`scout`."""

    def __init__(self, spec: Spec, asked: PriorSpec, space: Space, bench: Workbench) -> None:
        self.spec, self.asked, self.space, self.bench = spec, asked, space, bench
        self.prior = Prior.from_laws(space.hidden_size, bench.examples)
        self.traits = {name: searchable.traits_at_start(space, variants.get(name)) for name in {*spec.names, REFERENCE}}
        self.notes: list[str] = []

    def run(self) -> Scouted:
        if self.asked.study is not None:
            self._recall(Path(self.asked.study).expanduser())
        if self.asked.learning_rate is not None:
            self._listen(self.asked.learning_rate, self.asked.sd or evidence.USER_SD)
        rates = self.space.learning_rates
        searched = not isinstance(rates, list) or len(rates) > 1
        curvatures = self._measure_curvature() if self.asked.curvature and searched else {}
        test = self._run_range_test() if self.asked.probe and searched else None
        return Scouted(self.prior, curvatures, test, tuple(self.notes))

    def _recall(self, folder: Path) -> None:
        """Start from an earlier study."""
        terms, result = read_terms(folder), TuneResult.load(folder)
        register_variants(recorded_spec(folder))
        best = {name: tuned.config for name, tuned in result.items()}
        if not best:
            raise NoStudyError(f"prior.study: {folder} holds no tuned variant")
        traits = {name: variants.get(name).traits for name in best}
        context = self.bench.fingerprints()
        same = all(terms["context"].get(key) == context[key] for key in ("model", "data"))
        then = terms["space"]["hidden_size"], terms["examples"]
        found = evidence.from_study(best, traits, then, (self.space.hidden_size, self.bench.examples), same)
        wanted = [piece for piece in found if piece.about in (evidence.CENTRE, *self.spec.names)]
        self.prior = self.prior.informed(wanted, self.traits)
        self.notes.append(f"prior: starts from {folder}, which tuned {', '.join(best)}")

    def _listen(self, eta: float, sd: float) -> None:
        """The user's own expectation."""
        mode = self.prior.mode(self.space, self.traits[REFERENCE])
        self.prior = self.prior.informed([evidence.from_user(eta, sd, self.traits[REFERENCE], mode)], self.traits)
        self.notes.append(
            f"prior: you expect {eta:.2g} of plain LoRA at batch {mode.batch_size}, rank {mode.rank}, alpha "
            f"{mode.alpha:.4g}, give or take {sd:g} decades"
        )

    def _measure_curvature(self) -> dict[str, Curvature]:
        names = [name for name in self.spec.names if variants.get(name).has_own_curvature]
        if not names:
            return {}
        examples = sum(len(batch["input_ids"]) for batch in curvature_sample(self.bench))
        cost = CHARGE * examples / self.bench.examples
        if not self._leaves_a_search(cost):
            self.notes.append(f"prior: curvature is left out, since {self._share(cost)} would leave no search")
            return {}
        began = time.monotonic()
        with self._memory_for("curvature"):
            rank = self.prior.mode(self.space, self.traits[REFERENCE]).rank
            found, measured = cached_curvature(self.bench, [REFERENCE, *names], rank)
            self.prior = self.prior.informed(evidence.from_curvature(found), self.traits, cost)
            took = f"on {examples} examples took {time.monotonic() - began:.1f} s" if measured else "was known already"
            self.notes.append(f"prior: curvature of {', '.join(names)} {took}; charged as {self._share(cost)}")
            return found
        return {}

    def _run_range_test(self) -> probe.RangeTest | None:
        from autolora.training.range_test import range_test

        name = REFERENCE if REFERENCE in self.spec.names else self.spec.names[0]
        traits = self.prior.traits(name, self.traits[name])
        mode = self.prior.mode(*searchable.scope(self.space, variants.get(name), traits))
        most = probe.STEPS * mode.batch_size / self.bench.examples
        if not self._leaves_a_search(most):
            self.notes.append(f"prior: the probe is left out, since {self._share(most)} would leave no search")
            return None
        began = time.monotonic()
        with self._memory_for("the probe"):
            test = range_test(self.bench, name, probe.first_step(mode), probe.STEPS, probe.DECADES_A_STEP)
            found = [evidence.from_range_test(test, traits, self.bench.steps(mode.batch_size))]
            cost = test.examples / self.bench.examples
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


def curvature_sample(bench: Workbench) -> list[dict[str, Tensor]]:
    """The first calibration batches that make up EXAMPLES, or all there are."""
    sample: list[dict[str, Tensor]] = []
    for batch in bench.calibration_batches:
        if sum(len(part["input_ids"]) for part in sample) >= EXAMPLES:
            break
        sample.append(batch)
    return sample


def cached_curvature(bench: Workbench, names: list[str], rank: int) -> tuple[dict[str, Curvature], bool]:
    """Curvature of the variants at s = 1, measured once per model, data, sample, variant and rank.

    Kept as JSON in the folder AUTOLORA_CACHE, by default ``~/.cache/autolora``.

    Returns:
        By name; and whether anything had to be measured.
    """
    folder = Path(os.environ.get("AUTOLORA_CACHE") or Path.home() / ".cache" / "autolora") / "curvature"
    context = bench.fingerprints()
    content = [context["model"], context["data"], bench.seed, rank, EXAMPLES, CACHE_VERSION]
    paths = {
        name: folder / (hashlib.sha256(repr((*content, variants.get(name))).encode()).hexdigest()[:24] + ".json")
        for name in names
    }
    found = {name: Curvature(json.loads(path.read_text())) for name, path in paths.items() if path.is_file()}
    missing = [name for name in names if name not in found]
    if missing:
        model, start = bench.base.model, bench.calibration_batches
        blocks = affordable_blocks(model)
        fresh = curvature(
            model,
            curvature_sample(bench),
            missing,
            rank,
            alpha=None,
            method="kfac",
            blocks=blocks,
            start_batches=start,
        )
        for name, measured in fresh.items():
            _keep(paths[name], dict(measured.per_block))
        found |= fresh
    return {name: found[name] for name in names}, bool(missing)


def _keep(path: Path, per_block: dict[str, float]) -> None:
    """A cache that cannot be written is a warning, not the end of a study."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(per_block))
    except OSError as error:
        logger.warning("the curvature is not kept for the next study: %s", error)
