"""Where the best learning rate lies, read off every table at hand.

A best at the end of a table's learning rates is a bound. Where training came apart at the next rate, it lies below.
"""

from __future__ import annotations

import csv
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np

from autolora import variants
from autolora.space import Config, Traits
from studies.curves.collect import HERE as CURVES
from studies.curves.design import TABLES
from studies.curves.surface import WITHIN, Curve, curves
from studies.search.paper_tables import EXAMPLES, VARIANTS, WIDTHS

SWEEP_VARIABLE, PAPER_VARIABLE = "AUTOLORA_SFT_SWEEP", "AUTOLORA_PAPER_TABLES"
"""Environment variables with the paths of tables that are not part of the project."""

SWEEP_ALPHA, SWEEP_EXAMPLES = 32.0, 99_840
"""The hosted service of the sweep does not tell its alpha; 32 is believed."""

FEWEST_STEPS = 100
"""Runs of fewer optimizer steps are left out: batch laws hold where noise is averaged over many steps, and of a warm-up
of 3% they have two steps at most."""

Kind = Literal["exact", "at least", "at most"]


@dataclass(frozen=True)
class Best:
    """A setting's best learning rate, and how its score depends on the rate.

    Attributes:
        source: "sweep", "paper" or "curves".
        model: with its task; what is left out as a whole.
        width, examples: hidden size, and training examples of a run.
        variant: registered name.
        batch_size, rank, alpha: of the setting.
        log_rate: log10 of the best learning rate, or its bound.
        kind: whether it is the best, or a bound.
        regret: of a log10 learning rate, in percent of the best score.
        below: log10 of a rate that the best lies below, as training came apart there; infinite if there is none.
    """

    source: str
    model: str
    width: int
    examples: int
    variant: str
    batch_size: int
    rank: int
    alpha: float
    log_rate: float
    kind: Kind
    regret: Callable[[float], float] = field(compare=False, repr=False)
    below: float = math.inf

    @property
    def traits(self) -> Traits:
        return variants.get(self.variant).traits

    @property
    def config(self) -> Config:
        """The setting at its best learning rate."""
        return Config(10**self.log_rate, self.batch_size, self.rank, self.alpha)

    @property
    def scale(self) -> float:
        """s of ``y = W x + s B A x``."""
        return self.traits.scale(self.alpha, self.rank)


def sweep(path: Path) -> Iterator[Best]:
    """The fine-tuning sweep of 17 large models: mean test loss over learning rate and rank, four rates or so.

    The best is the vertex of the parabola through the lowest score and its neighbors.
    """
    cells: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    about: dict[str, tuple[int, int]] = {}
    diverged: dict[tuple[str, int], list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            about[row["model"]] = int(row["hidden_size"]), int(row["batch_size"])
            key, rate = (row["model"], int(row["rank"])), float(row["learning_rate"])
            if row["diverged"] == "0":
                cells[key][rate].append(float(row["test_nll"]))
            else:
                diverged[key].append(rate)
    for (model, rank), scores in cells.items():
        rates = sorted(scores)
        x, losses = np.log10(rates), np.array([fmean(scores[rate]) for rate in rates])
        log_rate, kind = vertex(x, losses)
        width, batch = about[model]
        yield Best(
            *("sweep", model.rpartition("/")[2], width, SWEEP_EXAMPLES, "lora", batch, rank, SWEEP_ALPHA),
            *(log_rate, kind, _interpolated(x, losses)),
            below=min((math.log10(rate) for rate in diverged[model, rank] if rate > rates[-1]), default=math.inf),
        )


def paper(path: Path) -> Iterator[Best]:
    """LR-matters' tables 6 to 8: accuracy over learning rate and batch; the best is the middle of the plateau."""
    cells: dict[tuple[str, int, str, int], dict[float, float]] = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            setting = row["model"], int(row["rank"]), VARIANTS[row["method"]], int(row["batch"])
            cells[setting][float(row["lr"])] = float(row["score"])
    for (model, rank, variant, batch), by_rate in cells.items():
        rates = sorted(by_rate)
        x, losses = np.log10(rates), -np.array([by_rate[rate] for rate in rates])
        flat = np.flatnonzero(losses <= losses.min() * (1 - WITHIN))
        ends: Kind = "at least" if flat[-1] == len(x) - 1 else "at most" if flat[0] == 0 else "exact"
        yield Best(
            *("paper", model, WIDTHS[model], EXAMPLES, variant, batch, rank, float(rank)),
            *(float(x[flat[0]] + x[flat[-1]]) / 2, ends, _interpolated(x, losses)),
        )


def own(names: Iterable[str]) -> Iterator[Best]:
    """The learning-curve tables of studies/curves, of the variants that the public tables have."""
    for name in names:
        examples = TABLES[name].examples
        for setting, curve in curves(CURVES / f"{name}.csv").items():
            if setting.variant in VARIANTS.values() and examples >= FEWEST_STEPS * setting.batch_size:
                log_rate, lowest = curve.best()
                yield Best(
                    *("curves", name, TABLES[name].width, examples, *setting, log_rate, _end(curve)),
                    _of_curve(curve, lowest),
                )


def vertex(x: np.ndarray, losses: np.ndarray) -> tuple[float, Kind]:
    """Where the lowest loss lies; of one at an end, half-way to its neighbor, as a bound."""
    place = int(losses.argmin())
    if place == len(x) - 1:
        return float(x[-2:].mean()), "at least"
    if place == 0:
        return float(x[:2].mean()), "at most"
    square, slope, _ = np.polyfit(x[place - 1 : place + 2], losses[place - 1 : place + 2], 2)
    return float(-slope / (2 * square)), "exact"


def paths() -> dict[str, Path]:
    """The tables from the environment that are there."""
    given = {name: os.environ.get(name) for name in (SWEEP_VARIABLE, PAPER_VARIABLE)}
    return {name: Path(path) for name, path in given.items() if path and Path(path).is_file()}


def load() -> list[Best]:
    """Everything at hand.

    Raises:
        SystemExit: a public table is missing.
    """
    found = paths()
    missing = [name for name in (SWEEP_VARIABLE, PAPER_VARIABLE) if name not in found]
    if missing:
        raise SystemExit(f"{missing[0]} names no file: set it to the path of the table")
    return [*sweep(found[SWEEP_VARIABLE]), *paper(found[PAPER_VARIABLE]), *own(TABLES)]


def models(bests: Sequence[Best]) -> list[str]:
    """In the order of the tables."""
    return list(dict.fromkeys(best.model for best in bests))


def _end(curve: Curve) -> Kind:
    """Whether a curve's plateau reaches an end of its rates, beyond which nothing was trained."""
    finite = np.isfinite(curve.scores[:, -1])
    scores = np.where(finite, curve.scores[:, -1], np.inf)
    flat = np.flatnonzero(scores <= scores.min() * (1 + WITHIN))
    if flat[-1] == len(scores) - 1:
        return "at least"
    return "at most" if flat[0] == 0 else "exact"


def _interpolated(x: np.ndarray, losses: np.ndarray) -> Callable[[float], float]:
    """Percent above the lowest loss, monotone cubic between cells, as at the end beyond them."""
    from scipy.interpolate import PchipInterpolator

    between = PchipInterpolator(x, losses)
    lowest = float(between(np.linspace(x[0], x[-1], 401)).min())
    return lambda log_rate: 100 * float((between(np.clip(log_rate, x[0], x[-1])) - lowest) / abs(lowest))


def _of_curve(curve: Curve, lowest: float) -> Callable[[float], float]:
    """The same of a curve; a rate at which training comes apart has the untrained model's score."""

    def regret(log_rate: float) -> float:
        score = curve.score(10**log_rate, -1)
        return 100 * (min(score, curve.untrained) if math.isfinite(score) else curve.untrained) / lowest - 100

    return regret
