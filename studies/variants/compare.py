"""Trains each variant's tuned configuration anew with seeds and test rows that the search has not seen.

    autolora tune studies/variants/demo.yaml --dir runs/variants
    python -m studies.variants.compare runs/variants

The study's own means are of the seeds by which a configuration was chosen, and so flatter it. Resumable: a row a
variant and seed is appended to ``compare.csv`` beside this file, or another with ``--out``; ``report.py`` makes the
table.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from autolora import spec as specs
from autolora.driver.result import TuneResult
from autolora.search import Job
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.workbench import Workbench

HERE = Path(__file__).parent
FIRST_SEED, SEEDS = 1001, 8
FIRST_TRIAL = 100_000
COLUMNS = ("variant", "seed", "test", "learning_rate", "batch_size", "rank", "alpha", "tuned_eval", "tuned_spread")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of finished studies; a later one wins")
    parser.add_argument("--only", nargs="+", help="these variants")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many, from {FIRST_SEED}")
    parser.add_argument("--spec", type=Path, default=HERE / "demo.yaml", help="of the studies")
    parser.add_argument("--dir", type=Path, default=Path("runs/variants-compare"), help="for checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "compare.csv")
    arguments = parser.parse_args()
    result = {name: tuned for run in arguments.runs for name, tuned in TuneResult.load(run).items()}
    bench = Workbench.open(specs.load(arguments.spec), arguments.dir)
    done = _done(arguments.out)
    for place, (name, tuned) in enumerate(result.items()):
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            if (name, seed) in done or name not in (arguments.only or result):
                continue
            trial = FIRST_TRIAL + 100 * place + seed - FIRST_SEED
            outcome = segment.run(bench, Job(trial, name, tuned.config, seed, start=0.0, stop=1.0, rung=0))
            with bench.trained(trial) as (_, adapted):
                test = bench.evaluator.scores(adapted, bench.data.test).value if outcome.kind == "scored" else None
            config = tuned.config
            setting = (config.learning_rate, config.batch_size, config.rank, config.alpha)
            row = (name, seed, "" if test is None else f"{test:.5f}", *setting, tuned.value, tuned.spread)
            _append(arguments.out, row)
            print(*row, flush=True)


def _done(table: Path) -> set[tuple[str, int]]:
    if not table.exists():
        return set()
    with table.open() as file:
        return {(row["variant"], int(row["seed"])) for row in csv.DictReader(file)}


def _append(table: Path, row: tuple[object, ...]) -> None:
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(row)


if __name__ == "__main__":
    main()
