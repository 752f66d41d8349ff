"""Means of runs.csv by the number of workers, and decisions.csv, as tables in results.md.

    python -m studies.workers.report

All three are beside this file, or in another folder with ``--dir``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).parent
COLUMNS = {
    "workers": "workers",
    "seeds": "seeds",
    "budget": "full runs a variant",
    "trials": "trials",
    "complete": "to the end",
    "utilisation": "busy while the budget lasts",
    "overall": "busy to the last job",
    "makespan": "time",
    "time_to_target": "time to target",
    "runs_to_target": "full runs to target",
    "reached": "variants that reached it, of 3",
    "regret": "regret at the end",
    "duplicates": "duplicates in flight",
    "nearest": "nearest in flight, decades",
    "near": "5th percentile",
    "milliseconds": "ms a decision",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=HERE, help="folder of the three files")
    folder = parser.parse_args().dir
    runs = sorted(_read(folder / "runs.csv"), key=lambda row: row["workers"])
    means = [
        {name: fmean(row[name] for row in group) for name in COLUMNS if name != "seeds"} | {"seeds": len(group)}
        for group in ([*rows] for _, rows in groupby(runs, key=lambda row: row["workers"]))
    ]
    alone = means[0]["time_to_target"]
    rows = [[_number(mean[name]) for name in COLUMNS] + [_number(alone / mean["time_to_target"])] for mean in means]
    parts = [
        "# Many workers: results",
        "Means over seeds, explained in [README.md](README.md); times in full runs at the mean pace.",
        _table([*COLUMNS.values(), "sooner than one worker"], rows),
        "Processor time of an ask and the tell that follows, under a budget that does not end:",
        _table(
            ["workers", "trials in the table", "ms a decision"],
            [[_number(row[name]) for name in row] for row in _read(folder / "decisions.csv")],
        ),
    ]
    (folder / "results.md").write_text("\n\n".join(parts) + "\n")


def _read(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
