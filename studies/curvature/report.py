"""Compares every predictor with the best learning rates of the table, and draws the figures.

    python -m studies.curvature.report > studies/curvature/results.md

Reads ``measured.json`` (predict.py), ``replay.csv`` (replay.py) and the tables in ``studies/curves``. Figures are
written beside this file, or in another folder with ``--out``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from autolora import laws, variants
from autolora.priors import Curvature, Prior, evidence
from autolora.report.plots import curvature_boxes
from autolora.space import Config
from studies.curvature.predict import STABILITY, range_test_of
from studies.curvature.replay import MODELS as SETTINGS
from studies.curves.design import CORE_VARIANTS
from studies.curves.surface import Curve, curves

HERE = Path(__file__).parent
MODELS = ("quickstart", "stories260k")
BATCH, RANK, EXAMPLES = 8, 8, 800
STEPS = EXAMPLES // BATCH
MEASURED = json.loads((HERE / "measured.json").read_text())
NAMES = [name for name in variants.names() if name in CORE_VARIANTS]
DISTINCT = [name for name in NAMES if not variants.get(name).starts_as_lora]
"""Variants whose curvature at the start is not plain LoRA's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", type=Path, default=HERE / "replay.csv")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figures")
    arguments = parser.parse_args()
    print("# Results\n\nWritten by `python -m studies.curvature.report`. ", end="")
    print("All at batch 8, r = 8, s = 1, full runs of 800 examples; decades.\n")
    best = {model: _best(model) for model in MODELS}
    _validation()
    exponents = _exponents(best)
    _shifts(best, exponents)
    _absolute(best)
    _costs()
    _laws()
    _replay(arguments.replay, arguments.out)
    for model in MODELS:
        found = {name: _curvature(model, "fast", name) for name in ("lora", *DISTINCT)}
        curvature_boxes(arguments.out / f"curvature-{model}.png", found)


def _best(model: str) -> dict[str, float]:
    """log10 of the best learning rate of every variant, over all seeds there are."""
    found = {}
    for setting, curve in curves(HERE.parent / "curves" / f"{model}.csv").items():
        unit = variants.get(setting.variant).traits.unit_alpha(RANK)
        if setting.batch_size == BATCH and setting.rank == RANK and abs(setting.alpha - unit) < 0.01:
            found[setting.variant] = curve.best()[0]
    return {name: found[name] for name in NAMES}


def _value(model: str, method: str, name: str) -> Any:
    return MEASURED[f"{model}/{method}/{name}"]["value"]


def _curvature(model: str, method: str, name: str) -> Curvature:
    name = "lora" if variants.get(name).starts_as_lora else name
    return Curvature(_value(model, method, name))


def _log_ratio(model: str, method: str, name: str) -> float:
    return evidence.log_ratio(_curvature(model, method, name).per_type, _curvature(model, method, "lora").per_type)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    head = list(head)
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print()


def _validation() -> None:
    """Fast against exact curvature, block by block."""
    print("## Fast against exact curvature\n")
    for model in MODELS:
        pairs = [
            (_curvature(model, "exact", name).per_block[block], _curvature(model, "fast", name).per_block[block])
            for name in ("lora", *DISTINCT)
            for block in _curvature(model, "exact", name).per_block
        ]
        rank = spearmanr(*zip(*pairs, strict=True)).statistic
        ratio = [math.log10(fast / exact) for exact, fast in pairs]
        print(
            f"{model}: Spearman {rank:.2f} over {len(pairs)} blocks x variants (plain LoRA and those with "
            f"another start); fast / exact has median {10 ** median(ratio):.2f} and a spread of {np.std(ratio):.2f} "
            "decades.\n"
        )
        kinds = list(_curvature(model, "exact", "lora").per_type)
        rows = []
        for name in DISTINCT:
            cells = []
            for kind in kinds:
                exact, fast = (_type_ratio(model, method, name, kind) for method in ("exact", "fast"))
                wrong = (exact - 1) * (fast - 1) < 0 and max(abs(exact - 1), abs(fast - 1)) > 0.05
                cells.append(f"{exact:.2f} / {fast:.2f}{' (!)' if wrong else ''}")
            rows.append([name, *cells])
        _table(["exact / fast ratio to LoRA", *kinds], rows)
    print("(!): on different sides of 1, by more than 5%.\n")


def _type_ratio(model: str, method: str, name: str, kind: str) -> float:
    """Over the blocks that the exact method measured."""
    blocks = [block for block in _value(model, "exact", "lora") if block.endswith(f".{kind}")]
    own, reference = (_curvature(model, method, which).per_block for which in (name, "lora"))
    return median(own[block] for block in blocks) / median(reference[block] for block in blocks)


def _comparable() -> list[str]:
    """Variants with a start of their own, and DoRA, whose start is LoRA's."""
    return ["dora", *DISTINCT]


def _exponents(best: dict[str, dict[str, float]]) -> dict[tuple[str, str], float]:
    """p of each method by least squares through the origin: over both models, and leaving one out."""
    print("## The exponent: eta_v = eta_LoRA (lambda_LoRA / lambda_v)^p\n")
    fitted, rows = {}, []
    for method in ("exact", "fast"):
        for left_out in (*MODELS, ""):
            pairs = [
                (_log_ratio(model, method, name), best[model][name] - best[model]["lora"])
                for model in MODELS
                if model != left_out
                for name in _comparable()
            ]
            x, y = np.array(pairs).T
            fitted[method, left_out] = float(-(x @ y) / (x @ x))
        residual = np.std(y + fitted[method, ""] * x)
        ranks = [
            spearmanr(
                [_log_ratio(model, method, name) for name in ("lora", *_comparable())],
                [best[model][name] for name in ("lora", *_comparable())],
            ).statistic
            for model in MODELS
        ]
        cells = [fitted[method, ""], *(fitted[method, model] for model in MODELS), residual, *ranks]
        rows.append([method, *(f"{cell:.2f}" for cell in cells)])
    head = ["curvature", "p", *(f"p without {model}" for model in MODELS), "residual"]
    _table([*head, *(f"Spearman with best eta, {model}" for model in MODELS)], rows)
    return fitted


def _shifts(best: dict[str, dict[str, float]], exponents: dict[tuple[str, str], float]) -> None:
    """Error of each predictor relative to LoRA's best."""
    print("## Relative to LoRA's best learning rate\n")
    print("Predicted minus true shift; p of the curvatures fitted on the other model.\n")
    errors: dict[str, list[float]] = defaultdict(list)
    for model in MODELS:
        rows = []
        for name in NAMES[1:]:
            true = best[model][name] - best[model]["lora"]
            predicted = {
                "laws (registry)": variants.get(name).traits.shift,
                "Adam sharpness": math.log10(_value(model, "adam", "lora") / _value(model, "adam", name)),
                "probe": _well(model, name) - _well(model, "lora"),
            }
            if name in _comparable():
                predicted["exact"] = -exponents["exact", model] * _log_ratio(model, "exact", name)
                predicted["fast"] = -exponents["fast", model] * _log_ratio(model, "fast", name)
            prior, _ = _prior(model)
            predicted["default prior"] = prior.traits(name, variants.get(name).traits).shift
            for predictor, shift in predicted.items():
                errors[predictor].append(shift - true)
            rows.append(
                [name, f"{true:+.2f}", *(f"{predicted[p] - true:+.2f}" if p in predicted else "" for p in PREDICTORS)]
            )
        _table([model, "true shift", *PREDICTORS], rows)
    _table(
        ["over both models", "median error", "worst"],
        [[p, f"{median(map(abs, errors[p])):.2f}", f"{max(map(abs, errors[p])):.2f}"] for p in PREDICTORS],
    )


PREDICTORS = ("laws (registry)", "exact", "fast", "Adam sharpness", "probe", "default prior")


def _well(model: str, name: str) -> float:
    test = range_test_of(MEASURED, model, name)
    return 0.5 * (math.log10(test.lowest) + math.log10(test.edge))


def _prior(model: str, probe: bool = False) -> tuple[Prior, int]:
    """The default prior of ``autolora tune`` for all variants, and the model's width."""
    width = SETTINGS[model]["width"]
    traits = {name: variants.get(name).traits for name in NAMES}
    prior = Prior.from_laws(width, EXAMPLES)
    measured = {name: _curvature(model, "fast", name) for name in ("lora", *DISTINCT)}
    found = evidence.from_curvature(measured)
    if probe:
        found.append(evidence.from_range_test(range_test_of(MEASURED, model, "lora"), traits["lora"], STEPS))
    return prior.informed(found, traits), width


def _absolute(best: dict[str, dict[str, float]]) -> None:
    print("## Absolute\n")
    print(
        "log10 predicted / best. Laws, default and +probe: the prior's mode, in brackets its distance from the best in "
        "standard deviations (the central 90% is 1.64). Adam: 38 / lambda. Probe alone: each variant's own "
        "range test.\n"
    )
    errors: dict[str, list[float]] = defaultdict(list)
    outside = 0
    for model in MODELS:
        rows = []
        for name in NAMES:
            own, cells = variants.get(name).traits, []
            config = Config(1.0, BATCH, RANK, own.unit_alpha(RANK))
            laws_alone = Prior.from_laws(_prior(model)[1], EXAMPLES)
            for label, prior in (
                ("laws", laws_alone),
                ("default", _prior(model)[0]),
                ("+probe", _prior(model, True)[0]),
            ):
                traits = prior.traits(name, own)
                expected = math.log10(prior.coordinates.learning_rate(traits, 0.0, BATCH, RANK, config.alpha))
                error, sd = expected - best[model][name], prior.spread(traits, config)
                errors[label].append(error)
                outside += abs(error) > 1.645 * sd
                cells.append(f"{error:+.2f} ({abs(error) / sd:.1f})")
            alone = {
                "Adam": math.log10(STABILITY / _value(model, "adam", name)),
                "probe alone": _well(model, name) + evidence.PROBE_OFFSET,
            }
            for label, predicted in alone.items():
                errors[label].append(predicted - best[model][name])
                cells.append(f"{predicted - best[model][name]:+.2f}")
            rows.append([name, f"{10 ** best[model][name]:.1e}", *cells])
        _table([model, "best", "laws", "default", "+probe", "Adam", "probe alone"], rows)
    _table(
        ["over both models", "median error", "worst"],
        [[label, f"{median(map(abs, e)):.2f}", f"{max(map(abs, e)):.2f}"] for label, e in errors.items()],
    )
    print(f"Outside the central 90% of laws, default or +probe: {outside} of {3 * len(MODELS) * len(NAMES)}.\n")


def _costs() -> None:
    """Wall time in full runs of plain LoRA, evaluation left out."""
    print("## Cost, in full runs of 800 examples\n")
    rows = []
    for method, what in COSTS.items():
        cells = []
        for model in MODELS:
            run = STEPS * _value(model, "training", "lora")
            found = [MEASURED[key]["seconds"] for key in MEASURED if key.startswith(f"{model}/{method}/")]
            cells.append(f"{fmean(found) / run:.2f}")
        rows.append([what, *cells])
    _table(["a variant", *MODELS], rows)


GRID = [float(x) for x in np.arange(1, 12.01, 0.25)]
"""Full runs a variant at which the best so far is read."""

COSTS = {
    "exact": "exact curvature, 14 blocks, 16 examples",
    "fast": "fast curvature, all blocks, 16 examples",
    "adam": "Adam sharpness, 8 examples",
    "probe": "range test, up to 40 steps of 8",
}


def _laws() -> None:
    """Exponents of s, r and b by regression over LoRA's and DoRA's cells."""
    print("## Laws\n\nlog10 best eta = c - p log10 s + a log10 r + q log10 b, over LoRA's and DoRA's curves.\n")
    rows = []
    for model in MODELS:
        found = [
            (
                (1.0, -math.log10(key.alpha / key.rank), math.log10(key.rank), math.log10(key.batch_size)),
                curve.best()[0],
            )
            for key, curve in curves(HERE.parent / "curves" / f"{model}.csv").items()
            if key.variant in ("lora", "dora") and _complete(curve)
        ]
        x, y = np.array([row[0] for row in found]), np.array([row[1] for row in found])
        fit, *_ = np.linalg.lstsq(x, y, rcond=None)
        residual = math.sqrt(((y - x @ fit) ** 2).sum() / (len(y) - 4))
        errors = np.sqrt(np.diag(residual**2 * np.linalg.inv(x.T @ x)))
        width = _prior(model)[1]
        centre = laws.log_centre(width, EXAMPLES)
        cells = [f"{value:.2f} ± {error:.2f}" for value, error in zip(fit[1:], errors[1:], strict=True)]
        rows.append([model, len(y), *cells, f"{residual:.2f}", f"{fit[0] - centre:+.2f}"])
    _table(["model", "curves", "p", "a", "q", "residual", "c minus the laws' centre"], rows)


def _complete(curve: Curve) -> bool:
    return len(curve.log_rates) >= 7


def _replay(path: Path, out: Path) -> None:
    """Any-time curves: median over seeds and variants of the regret."""
    print("## Tuning with it, replayed\n")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    lowest: dict[tuple[str, str], float] = defaultdict(lambda: math.inf)
    for row in rows:
        best = float(row["best"])
        steps[row["model"], row["prior"], row["variant"], row["seed"]].append((float(row["full_runs"]), best))
        lowest[row["model"], row["variant"]] = min(lowest[row["model"], row["variant"]], best)
    runs: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for (model, prior, variant, _), improvements in steps.items():
        for spent in GRID:
            best = min((best for at, best in improvements if at <= spent + 1e-6), default=math.inf)
            runs[model, prior, spent].append(best / lowest[model, variant] - 1)
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    priors = list(dict.fromkeys(row["prior"] for row in rows))
    shown = (1.25, 3.5, 5, 6, 7, 8, 9, 10, 12)
    seeds = len({row["seed"] for row in rows})
    print(f"Median over {seeds} seeds and the variants of (best so far / lowest found by any) - 1, in percent.\n")
    print("README.md says with which search.\n")
    for model in models:
        _table(
            [model, *(f"{x:g} runs" for x in shown)],
            [[p, *(f"{100 * median(runs[model, p, x]):.1f}" for x in shown)] for p in priors],
        )
        _ratios(model, priors, runs)
    _draw(models, priors, runs, out / "replay.png")


def _ratios(model: str, priors: list[str], runs: dict[tuple[str, str, float], list[float]]) -> None:
    """Full runs that each prior takes to the median that the search without one reaches at 9."""
    target = median(runs[model, "none", 9.0])
    reached = {p: next((x for x in GRID if median(runs[model, p, x]) <= target), math.inf) for p in priors}
    _table(
        ["full runs to what none has at 9", *priors],
        [[model, *(f"{reached[p]:g} ({reached[p] / reached['none']:.2f}x)" for p in priors)]],
    )


def _draw(models: list[str], priors: list[str], runs: dict[tuple[str, str, float], list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(models), figsize=(6 * len(models), 4.5), constrained_layout=True, squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        for prior in priors:
            middle = [100 * median(runs[model, prior, x]) for x in GRID]
            axis.step(GRID, middle, where="post", label=prior)
        axis.set_yscale("log")
        axis.set_title(model)
        axis.set_xlabel("full runs a variant")
        axis.set_ylabel("median regret, percent")
        axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
