"""What is measured before the first trial, and the prior that follows from it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autolora import variants
from autolora.assembly import read_terms
from autolora.priors import Curvature, Prior, curvature, evidence, probe
from autolora.priors.evidence import REFERENCE
from autolora.priors.sharpness import affordable_blocks
from autolora.result import TuneResult
from autolora.space import Space
from autolora.spec import PriorSpec, Spec
from autolora.training.workbench import CALIBRATION_BATCH, Workbench

logger = logging.getLogger(__name__)

BATCHES = 2
"""Calibration batches that the curvature is measured on: 16 examples, forward once and backward twice, cost about as
much as training on 32."""
CHARGED_EXAMPLES = 32
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

    What it costs is charged to the budget, and what the budget cannot hold beside the baseline is left out.

    Raises:
        NoStudyError: ``prior.study`` is no run directory, or holds no result.
    """
    if spec.prior is None:
        return Scouted(None, {}, None, ("prior: none; learning rates are sampled uniformly on a log scale",))
    return _Scout(spec, spec.prior, space, bench).run()


class _Scout:
    """One call of :func:`scout`."""

    def __init__(self, spec: Spec, asked: PriorSpec, space: Space, bench: Workbench) -> None:
        self.spec, self.asked, self.space, self.bench = spec, asked, space, bench
        self.prior = Prior.from_laws(space.hidden_size, bench.examples)
        self.traits = {name: variants.get(name).traits for name in {*spec.variants, REFERENCE}}
        self.notes: list[str] = []

    def run(self) -> Scouted:
        if self.asked.study is not None:
            self._recall(Path(self.asked.study).expanduser())
        if self.asked.learning_rate is not None:
            config = self.prior.mode(self.space, self.traits[REFERENCE])
            told = evidence.from_user(self.asked.learning_rate, self.asked.sd, self.traits[REFERENCE], config)
            self.prior = self.prior.informed([told], self.traits)
        curvatures = self._measure_curvature() if self.asked.curvature else {}
        test = self._run_range_test() if self.asked.probe else None
        return Scouted(self.prior, curvatures, test, tuple(self.notes))

    def _recall(self, folder: Path) -> None:
        terms, result = read_terms(folder), TuneResult.load(folder)
        best = {name: tuned.config for name, tuned in result.items()}
        traits = {name: variants.get(name).traits for name in best}
        then = terms["space"]["hidden_size"], terms["examples"]
        found = evidence.from_study(best, traits, then, (self.space.hidden_size, self.bench.examples))
        wanted = [piece for piece in found if piece.about in (evidence.CENTRE, *self.spec.variants)]
        self.prior = self.prior.informed(wanted, self.traits)
        self.notes.append(f"prior: starts from {folder}, which tuned {', '.join(best)}")

    def _measure_curvature(self) -> dict[str, Curvature]:
        comparable = [name for name in self.spec.variants if name != REFERENCE and variants.get(name).ratio == 1.0]
        if not comparable:
            return {}
        cost = CHARGED_EXAMPLES / self.bench.examples
        if not self._affordable(cost, "the curvature"):
            return {}
        began = time.monotonic()
        found = cached_curvature(self.bench, [REFERENCE, *comparable], self._middle_rank())
        self.prior = self.prior.informed(evidence.from_curvature(found), self.traits, cost)
        self.notes.append(
            f"prior: curvature of {len(comparable)} variants on {BATCHES * CALIBRATION_BATCH} examples took "
            f"{time.monotonic() - began:.1f} s, charged as {self._share(cost)}"
        )
        return found

    def _run_range_test(self) -> probe.RangeTest | None:
        from autolora.training.range_test import range_test

        name = REFERENCE if REFERENCE in self.spec.variants else self.spec.variants[0]
        traits = self.prior.traits(name, self.traits[name])
        mode = self.prior.mode(self.space, traits)
        if not self._affordable(probe.STEPS * mode.batch_size / self.bench.examples, "the probe"):
            return None
        began = time.monotonic()
        test = range_test(self.bench, name, probe.first_step(mode), probe.STEPS, probe.DECADES_A_STEP)
        cost = test.examples / self.bench.examples
        found = evidence.from_range_test(test, traits, self.bench.steps(mode.batch_size))
        self.prior = self.prior.informed([found], self.traits, cost)
        self.notes.append(
            f"prior: range test of {name}, {len(test.rates)} steps in {time.monotonic() - began:.1f} s, charged as "
            f"{self._share(cost)}: lowest loss at {test.lowest:.1e}, edge at {test.edge:.1e}"
        )
        return test

    def _affordable(self, cost: float, what: str) -> bool:
        """Whether the budget holds it beside the baseline; the note says where it does not."""
        room = self.spec.budget - 1.0 - self.prior.cost / len(self.spec.variants)
        if cost / len(self.spec.variants) <= room:
            return True
        self.notes.append(f"prior: {what} is left out, as {self._share(cost)} exceeds what the budget leaves")
        return False

    def _share(self, cost: float) -> str:
        return f"{cost / len(self.spec.variants):.3f} full runs a variant"

    def _middle_rank(self) -> int:
        return self.space.rank[(len(self.space.rank) - 1) // 2]


def cached_curvature(bench: Workbench, names: list[str], rank: int) -> dict[str, Curvature]:
    """Curvature of the variants at s = 1, measured once per model, data, sample, variant and rank.

    Kept as JSON in the folder AUTOLORA_CACHE, by default ``~/.cache/autolora``.
    """
    folder = Path(os.environ.get("AUTOLORA_CACHE") or Path.home() / ".cache" / "autolora") / "curvature"
    content = {**bench.fingerprints(), "seed": bench.seed, "rank": rank, "batches": BATCHES, "version": CACHE_VERSION}
    paths = {
        name: folder / (hashlib.sha256(json.dumps({**content, "variant": name}).encode()).hexdigest()[:24] + ".json")
        for name in names
    }
    found = {name: Curvature(json.loads(path.read_text())) for name, path in paths.items() if path.is_file()}
    missing = [name for name in names if name not in found]
    if missing:
        model = bench.base.model
        blocks = affordable_blocks(model)
        fresh = curvature(model, bench.calibration_batches[:BATCHES], missing, rank, None, "kfac", blocks)
        for name, measured in fresh.items():
            _keep(paths[name], dict(measured.per_block))
        found |= fresh
    return {name: found[name] for name in names}


def _keep(path: Path, per_block: dict[str, float]) -> None:
    """Written beside and renamed; a cache that cannot be written is a warning, not the end of a study."""
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(per_block))
        beside.replace(path)
    except OSError as error:
        logger.warning("the curvature is not kept for the next study: %s", error)
