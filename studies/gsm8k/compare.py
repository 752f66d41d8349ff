"""The search against the grid, on the same evaluation rows: values, and what each cost in full runs.

    python -m studies.gsm8k.compare studies/gsm8k/grid.csv runs/gsm8k-0 runs/gsm8k-1

The grid is read from ``grid.csv``, as recorded, or from the ``grid.json`` that grid.py writes.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from statistics import fmean

from autolora.driver.result import TuneResult
from autolora.study.directory import read_study


def grid_best(path: Path) -> dict[str, tuple[float, float, int]]:
    """Per variant the best mean over seeds of a learning rate, that rate, and the full runs of the whole grid."""
    rows = _cells(path)
    best = {}
    for variant in dict.fromkeys(name for name, _, _ in rows):
        cells: dict[float, list[float | None]] = {}
        for name, rate, value in rows:
            if name == variant:
                cells.setdefault(rate, []).append(value)
        means = {rate: fmean(values) for rate, values in cells.items() if None not in values}
        rate = min(means, key=means.__getitem__)
        best[variant] = (means[rate], rate, sum(map(len, cells.values())))
    return best


def _cells(path: Path) -> list[tuple[str, float, float | None]]:
    """Variant, learning rate and loss of every run of the grid; None means diverged."""
    if path.suffix == ".json":
        return [(row["variant"], row["learning_rate"], row["value"]) for row in json.loads(path.read_text())]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        (row["variant"], float(row["learning_rate"]), float(row["eval_loss"]) if row["eval_loss"] else None)
        for row in rows
    ]


def found_after(folder: Path, variant: str, result: TuneResult) -> float:
    """Full runs of the variant's trials up to the tuned one, a baseline included, as far as each was ever trained."""
    table, _ = read_study(folder)
    trials = table.of(variant)
    winner = next(trial for trial in trials if trial.config == result[variant].config)
    return sum(table.fraction(trial) for trial in trials if trial.number <= winner.number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="grid.csv or grid.json")
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    best = grid_best(arguments.grid)
    columns = ["run", "variant", "grid's best (rate)", "its runs", "baseline", "tuned (seeds)", "difference", "spent"]
    columns.append("found after")
    print(f"| {' | '.join(columns)} |")
    print("|" + " --- |" * len(columns))
    for folder in arguments.runs:
        result = TuneResult.load(folder)
        for variant, tuned in result.items():
            value, rate, runs = best[variant]
            baseline = "-" if tuned.baseline is None else f"{tuned.baseline:.4f}"
            print(
                f"| {folder.name} | {variant} | {value:.4f} ({rate:.2g}) | {runs} | {baseline} "
                f"| {tuned.value:.4f} ({len(tuned.seeds)}) | {tuned.value - value:+.4f} "
                f"| {result.spent[variant]:.2f} | {found_after(folder, variant, result):.2f} |"
            )
        share = result.seconds["driver"] / result.seconds["total"]
        print(f"\n{folder.name}: wall {result.seconds['total']:.0f} s, driver's own {100 * share:.2f}%\n")


if __name__ == "__main__":
    main()
