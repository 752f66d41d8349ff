"""The file of results: a row for every problem, method, repeat and variant, appended when a repeat is done."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from studies.search.measures import GRID, Outcome

Key = tuple[str, str, int]
COLUMNS = (
    *("problem", "method", "repeat", "seed", "variant", "spent", "to_target", "to_noise", "chosen"),
    *(f"regret@{at:g}" for at in GRID),
    "seconds",
)


class Row(NamedTuple):
    """``seconds`` are those of the whole repeat, all variants."""

    problem: str
    method: str
    repeat: int
    seed: int
    variant: str
    outcome: Outcome
    seconds: float

    @property
    def key(self) -> Key:
        return self.problem, self.method, self.repeat

    def cells(self) -> list[str]:
        own = self.outcome
        numbers = (own.spent, own.to_target, own.to_noise, own.chosen, *own.regrets)
        head = (self.problem, self.method, str(self.repeat), str(self.seed), self.variant)
        return [*head, *("" if math.isinf(number) else f"{number:.3g}" for number in numbers), f"{self.seconds:.3g}"]


def append(file: Path, rows: Iterable[Row]) -> None:
    """All rows of one repeat in one write."""
    new = not file.exists()
    with file.open("a", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerows([row.cells() for row in rows])


def read(file: Path) -> list[Row]:
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        return [_row(cells) for cells in csv.DictReader(opened) if None not in cells.values()]


def repair(file: Path, variants: Mapping[str, int]) -> set[Key]:
    """Drop what an interrupted write left of a repeat; which repeats are there in full.

    Args:
        file: of results.
        variants: how many each problem has; rows of other problems are kept as they are.
    """
    rows = read(file)
    counted = Counter(row.key for row in rows)
    whole = {key for key, count in counted.items() if count == variants.get(key[0], count)}
    kept = [row for row in rows if row.key in whole]
    if file.exists() and len(kept) < sum(1 for _ in file.open()) - 1:
        file.unlink()
        append(file, kept)
    return whole


def _row(cells: Mapping[str, str]) -> Row:
    def number(column: str) -> float:
        return float(cells[column]) if cells[column] else math.inf

    own = Outcome(
        regrets=tuple(number(f"regret@{at:g}") for at in GRID),
        chosen=number("chosen"),
        to_target=number("to_target"),
        to_noise=number("to_noise"),
        spent=number("spent"),
    )
    head = (cells["problem"], cells["method"], int(cells["repeat"]), int(cells["seed"]), cells["variant"])
    return Row(*head, own, float(cells["seconds"]))
