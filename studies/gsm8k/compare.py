"""The search against the grid, on the same evaluation rows: values, and what each cost in full runs.

python -m studies.gsm8k.compare runs/gsm8k-grid/grid.json runs/gsm8k [runs/another-seed ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

from autolora.driver.result import TuneResult
from autolora.study.directory import read_study


def grid_best(path: Path) -> dict[str, tuple[float, float, int]]:
    """Per variant the best mean over seeds of a learning rate, that rate, and the full runs of the whole grid."""
    rows = json.loads(path.read_text())
    best = {}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        cells: dict[float, list[float | None]] = {}
        for row in rows:
            if row["variant"] == variant:
                cells.setdefault(row["learning_rate"], []).append(row["value"])
        means = {rate: fmean(values) for rate, values in cells.items() if None not in values}
        rate = min(means, key=means.__getitem__)
        best[variant] = (means[rate], rate, sum(map(len, cells.values())))
    return best


def found_after(folder: Path, variant: str, result: TuneResult) -> float:
    """Full runs of the variant's trials up to the tuned one, baseline included, as far as each was ever trained."""
    table, _ = read_study(folder)
    trials = table.of(variant)
    winner = next(trial for trial in trials if trial.config == result[variant].config)
    return sum(table.fraction(trial) for trial in trials if trial.number <= winner.number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
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
            print(
                f"| {folder.name} | {variant} | {value:.4f} ({rate:.2g}) | {runs} | {tuned.baseline:.4f} "
                f"| {tuned.value:.4f} ({len(tuned.seeds)}) | {tuned.value - value:+.4f} "
                f"| {result.spent[variant]:.2f} | {found_after(folder, variant, result):.2f} |"
            )
        share = result.seconds["driver"] / result.seconds["total"]
        print(f"\n{folder.name}: wall {result.seconds['total']:.0f} s, driver's own {100 * share:.2f}%\n")


if __name__ == "__main__":
    main()
