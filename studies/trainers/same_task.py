"""Are tuned settings the same whoever trains? One SFT task through the builtin trainer, TRL and a command.

    OMP_NUM_THREADS=1 python -m studies.trainers.same_task        # same_task.md beside this file; a quarter of an hour

Every study is kept in a folder of its own, so that the same command goes on where it was stopped. Their adapters are
scored in one way: the builtin trainer's loss on the rows of the test file that steered no search.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import autolora
from autolora.driver.result import TunedVariant
from studies.throughput.commit import commit
from studies.trainers.task import DATA, EVALUATED, TRAINERS, specification

HERE = Path(__file__).parent
EXAMPLES, BUDGET = 640, 6


class Row(NamedTuple):
    """One study: the tuned setting, and the loss of its adapter on the rows left over."""

    trainer: str
    seed: int
    tuned: TunedVariant
    loss: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("runs/same_task"), help="where the studies are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "same_task.md")
    options = parser.parse_args()
    judge = Judge()
    rows = []
    for seed in range(options.seeds):
        for trainer in TRAINERS:
            folder = options.dir / f"{trainer}-{seed}"
            spec = specification(trainer, options.dir / "files", EXAMPLES, budget=BUDGET, seed=seed)
            result = autolora.tune(spec=spec, dir=folder)
            rows.append(Row(trainer, seed, result["lora"], judge.loss(folder / "best" / "lora")))
            print(_line(rows[-1]), flush=True)
    options.out.write_text("\n".join(_table(rows, options)) + "\n")


class Judge:
    """The shipped model with the rows that steered no search."""

    def __init__(self) -> None:
        from autolora.trainers.builtin.trainer import BuiltinTrainer

        with tempfile.TemporaryDirectory() as folder:
            spec = specification("builtin", Path(folder), EXAMPLES, data={**DATA, "eval_size": None})
            opened = BuiltinTrainer.open(spec, Path(folder))
        self._bench = opened.bench
        every = self._bench.data.eval
        self._rows = every.of(range(EVALUATED, len(every)))

    def loss(self, adapter: Path) -> float:
        """The loss of an exported adapter."""
        model = autolora.load_adapter(self._bench.base.model, adapter)
        try:
            return float(self._bench.evaluator.scores(model, self._rows).value)
        finally:
            model.unload()


def _line(row: Row) -> str:
    config = row.tuned.config
    return (
        f"| {row.trainer} | {row.seed} | {config.learning_rate:.2e} | {config.batch_size} | {config.rank} | "
        f"{config.alpha:.0f} | {row.tuned.value:.4f} | {row.loss:.4f} |"
    )


def _table(rows: list[Row], options: argparse.Namespace) -> list[str]:
    lines = [
        f"# One task, three trainers, at commit {commit(HERE.parents[1])}",
        "",
        f"`OMP_NUM_THREADS=1 python -m studies.trainers.same_task --seeds {options.seeds}`: plain LoRA on the shipped "
        f"model, {EXAMPLES} examples, a budget of {BUDGET} full runs for each study; see [README.md](README.md).",
        "",
        "| trainer | seed | learning rate | batch | rank | alpha | its own loss | loss on the rows left over |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *map(_line, rows),
        "",
        "| trainer | learning rate, geometric mean | a standard deviation, as a factor | loss, mean | its deviation |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for trainer in TRAINERS:
        own = [row for row in rows if row.trainer == trainer]
        rates = [math.log(row.tuned.config.learning_rate) for row in own]
        losses = [row.loss for row in own]
        lines.append(
            f"| {trainer} | {math.exp(fmean(rates)):.2e} | {math.exp(_spread(rates)):.2f} | {fmean(losses):.4f} | "
            f"{_spread(losses):.4f} |"
        )
    return lines


def _spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else math.nan


if __name__ == "__main__":
    main()
