"""Measures what each predictor needs, for every variant, on both models of the learning-curve table.

    python -m studies.curvature.predict quickstart stories260k

Writes ``measured.json`` beside this file, or another with ``--out``; what is in it is not measured again. All at batch
8, r = 8, s = 1.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from autolora import priors, variants
from autolora import spec as specs
from autolora.adapters.targets import linear_layers
from autolora.priors import probe
from autolora.priors.hessian import hessian_product, twice_differentiable
from autolora.priors.lanczos import largest_eigenvalue
from autolora.priors.probe import RangeTest
from autolora.priors.sharpness import spread_blocks
from autolora.space import Config
from autolora.trainers.builtin.range_test import range_test
from autolora.trainers.builtin.stepping import Stepper
from autolora.trainers.builtin.workbench import Workbench
from studies.curves.design import CORE_VARIANTS

HERE = Path(__file__).parent
BATCH, RANK = 8, 8
FAST_BATCHES = 2
"""Of 8 examples each, as in scouting; the exact curvature is measured on the same."""
BLOCKS_A_TYPE = 2
WARM_UP_STEPS, WARM_UP_RATE = 4, 1e-4
"""Before Adam's second moments are read: at B = 0 the gradient of A is 0, and so would be its preconditioner."""
STABILITY = 38.0
"""Adam with beta1 = 0.9 is stable up to a preconditioned sharpness of about 38 / eta."""
PROBE_FROM = 2e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="specifications in studies/curves, without .yaml")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--only", nargs="+", default=list(CORE_VARIANTS), choices=CORE_VARIANTS, help="these variants")
    parser.add_argument("--out", type=Path, default=HERE / "measured.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for model in arguments.models:
        with TemporaryDirectory() as scratch:
            bench = Workbench.open(specs.load(HERE.parent / "curves" / f"{model}.yaml"), Path(scratch))
            _measure(bench, model, arguments)


def _measure(bench: Workbench, model: str, arguments: argparse.Namespace) -> None:
    path = arguments.out
    known = json.loads(path.read_text()) if path.is_file() else {}
    for method in arguments.methods:
        for name in arguments.only:
            key = f"{model}/{method}/{name}"
            if key in known or (method == "exact" and name != "lora" and variants.get(name).starts_as_lora):
                continue
            began = time.monotonic()
            value = METHODS[method](bench, name)
            known[key] = {"value": value, "seconds": round(time.monotonic() - began, 2)}
            _write(path, known)
            print(key, f"{known[key]['seconds']} s", flush=True)


def _write(path: Path, known: dict[str, Any]) -> None:
    """A line a measurement, four digits a number."""
    lines = [f"{json.dumps(key)}: {json.dumps(_rounded(value))}" for key, value in known.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _config(name: str) -> Config:
    return Config(PROBE_FROM, BATCH, RANK, variants.get(name).traits.unit_alpha(RANK))


def training(bench: Workbench, name: str) -> float:
    """Seconds of a step of training, the unit of the others' cost."""
    config = _config(name)
    with bench.attached(name, config, 0) as adapted:
        variant = bench.variant(name, config)
        optimizer = variant.optimizer(adapted, 1e-5)
        stepper = Stepper(bench, variant, config, 0, adapted, optimizer)
        adapted.train()
        marks = [time.monotonic()]
        for step in range(12):
            stepper.gradients(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            marks.append(time.monotonic())
    return sum(marks[i + 1] - marks[i] for i in range(2, 12)) / 10


def fast(bench: Workbench, name: str) -> dict[str, float]:
    return _curvature(bench, name, "kfac", None)


def exact(bench: Workbench, name: str) -> dict[str, float]:
    layers = list(linear_layers(bench.base.model))
    kinds = len({layer.rsplit(".", 1)[-1] for layer in layers})
    return _curvature(bench, name, "lanczos", spread_blocks(layers, BLOCKS_A_TYPE * kinds))


def _curvature(bench: Workbench, name: str, method: Any, blocks: list[str] | None) -> dict[str, float]:
    sample = bench.batches.calibration[:FAST_BATCHES]
    found = priors.curvature(bench.base.model, sample, [name], RANK, None, method, blocks)
    return dict(found[name].per_block)


def adam(bench: Workbench, name: str) -> float:
    """Largest eigenvalue of P^-1/2 H P^-1/2 over all adapters, P = sqrt(v) of Adam after a short warm-up."""
    config = _config(name)
    with bench.attached(name, config, 0) as adapted:
        variant = bench.variant(name, config)
        optimizer = variant.optimizer(adapted, WARM_UP_RATE)
        stepper = Stepper(bench, variant, config, 0, adapted, optimizer)
        adapted.train()
        for step in range(WARM_UP_STEPS):
            stepper.gradients(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        groups = [(group, p) for group in optimizer.param_groups for p in group["params"]]
        parameters = [p for _, p in groups]
        moments = [optimizer.state[p]["exp_avg_sq"] / (1 - group["betas"][1] ** WARM_UP_STEPS) for group, p in groups]
        # B's rate over A's belongs to the preconditioner.
        inverse = torch.cat(
            [
                ((group["lr"] / WARM_UP_RATE) / (v.sqrt() + group["eps"])).sqrt().flatten()
                for (group, _), v in zip(groups, moments, strict=True)
            ]
        )
        with twice_differentiable(adapted):
            product = hessian_product(adapted, bench.batches.calibration[:1], parameters)
            start = torch.randn(len(inverse), generator=torch.Generator().manual_seed(0))
            return largest_eigenvalue(lambda v: inverse * product(inverse * v), start, tolerance=1e-2).value


def range_tests(bench: Workbench, name: str) -> dict[str, Any]:
    test = range_test(bench, name, _config(name), probe.STEPS, probe.DECADES_A_STEP)
    return {"rates": list(test.rates), "losses": [loss if math.isfinite(loss) else None for loss in test.losses]}


def range_test_of(measured: dict[str, Any], model: str, name: str) -> RangeTest:
    """A recorded range test."""
    raw = measured[f"{model}/probe/{name}"]["value"]
    losses = [math.inf if loss is None else loss for loss in raw["losses"]]
    return RangeTest(raw["rates"], losses, replace(_config(name), learning_rate=raw["rates"][0]), name)


METHODS: dict[str, Callable[[Workbench, str], Any]] = {
    "training": training,
    "fast": fast,
    "probe": range_tests,
    "adam": adam,
    "exact": exact,
}


if __name__ == "__main__":
    main()
