"""Tuning with the prior, without one, and with a wrong one, replayed on the learning-curve table.

    python -m studies.curvature.replay --seeds 20

Every search is the released one, with a budget of 12 full runs a variant and nothing kept for confirmation; a trial's
score is the table's, interpolated over the learning rate. Writes ``replay.csv`` beside this file, or another with
``--out``: a row whenever a trial finished with the best full-length score so far of its variant, with the full runs
spent on it by then.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from autolora import Search, variants
from autolora.priors import Curvature, Prior, evidence
from autolora.priors.prior import uniform_sample
from autolora.search import Job
from autolora.space import Config, Space
from studies.curvature.predict import range_test_of
from studies.curves.surface import Curve, Setting, curves

HERE = Path(__file__).parent
BUDGET, EXAMPLES = 12.0, 800
MODELS = {
    "quickstart": {"variants": ("lora", "dora", "pissa"), "width": 96, "ranks": [2, 8, 32]},
    "stories260k": {"variants": ("lora", "pissa"), "width": 64, "ranks": [2, 8, 32]},
}
BATCHES = [8, 32]
FIRST_RUNG = 1
"""The table also holds scores at 1/27, which the search does not use."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--priors", nargs="+", default=list(PRIORS), choices=list(PRIORS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "replay.csv")
    arguments = parser.parse_args()
    tasks = list(product(arguments.models, arguments.priors, range(arguments.seeds)))
    with ProcessPoolExecutor(arguments.jobs) as pool, arguments.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "prior", "seed", "variant", "full_runs", "best"])
        for rows in pool.map(_replay, *zip(*tasks, strict=True)):
            writer.writerows(rows)
            file.flush()


def _informed(model: str, centre_off: float = 0.0, probed: bool = False) -> Prior:
    """Laws and fast curvature, as ``autolora tune`` has by default; its centre moved by so many decades.

    ``probed``: with plain LoRA's range test, which is charged too.
    """
    names = MODELS[model]["variants"]
    prior = Prior.from_laws(MODELS[model]["width"], EXAMPLES)
    measured = json.loads((HERE / "measured.json").read_text())
    found = {
        name: Curvature(measured[f"{model}/fast/{name}"]["value"])
        for name in names
        if name == evidence.REFERENCE or not variants.get(name).starts_as_lora
    }
    traits = {name: variants.get(name).traits for name in names}
    prior = prior.informed(evidence.from_curvature(found), traits, cost=32 / EXAMPLES)
    if probed:
        test = range_test_of(measured, model, "lora")
        told = evidence.from_range_test(test, traits["lora"], EXAMPLES // test.config.batch_size)
        prior = prior.informed([told], traits, cost=test.examples / EXAMPLES)
    return replace(prior, centre=prior.centre + centre_off)


PRIORS: Mapping[str, Callable[[str], Prior | None]] = {
    "laws and curvature": _informed,
    "laws, curvature, probe": lambda model: _informed(model, probed=True),
    "laws": lambda model: Prior.from_laws(MODELS[model]["width"], EXAMPLES),
    "none": lambda model: None,
    "10x too low": lambda model: _informed(model, -1.0),
    "10x too high": lambda model: _informed(model, 1.0),
}


def _replay(model: str, name: str, seed: int) -> list[tuple[object, ...]]:
    """One search; its improvements."""
    settings = MODELS[model]
    table = curves(HERE.parent / "curves" / f"{model}.csv", seeds=(0,))
    space = Space(batch_size=BATCHES, rank=settings["ranks"], alpha="law", hidden_size=settings["width"])
    prior = PRIORS[name](model)
    search = Search(
        variants=settings["variants"],
        space=space,
        budget=BUDGET,
        seed=seed,
        prior=prior,
        confirm=0,
        examples=EXAMPLES,
        baseline=_uniform_start(space, settings["variants"], seed) if prior is None else None,
    )
    finished: dict[str, list[tuple[float, float]]] = {variant: [] for variant in settings["variants"]}
    while (job := search.ask()) is not None:
        assert isinstance(job, Job)
        curve = _curve(table, job.variant, job.config)
        score = curve.score(job.config.learning_rate, job.rung + FIRST_RUNG)
        if math.isinf(score):
            search.tell(job, diverged=True, at=min(job.stop, curve.stop(job.config.learning_rate)))
        else:
            search.tell(job, score)
            if job.stop == 1.0:
                finished[job.variant].append((search.spent[job.variant], score))
    rows = []
    for variant, done in finished.items():
        best = math.inf
        for spent, score in done:
            if score < best:
                best = score
                rows.append((model, name, seed, variant, f"{spent:.3f}", f"{best:.4f}"))
    return rows


def _uniform_start(space: Space, names: tuple[str, ...], seed: int) -> dict[str, Config]:
    """Without a prior there is no mode to begin with: a uniform draw."""
    rng = np.random.default_rng([seed, 99])
    return {name: uniform_sample(rng, space, variants.get(name).traits) for name in names}


def _curve(table: Mapping[Setting, Curve], variant: str, config: Config) -> Curve:
    """The table's curve; its alphas are rounded."""
    of = [key for key in table if key[:3] == (variant, config.batch_size, config.rank)]
    return table[min(of, key=lambda key: abs(math.log(key.alpha / config.alpha)))]


if __name__ == "__main__":
    main()
