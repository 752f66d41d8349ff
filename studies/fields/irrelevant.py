"""What fields that do not matter cost: full runs until a search is within 2% of the best, with them and without.

    python -m studies.fields.irrelevant --repeats 20 --jobs 2
    python -m studies.fields.irrelevant --report

Real learning curves (studies/curves) and synthetic ones of the benchmark (studies/search) are replayed. A score does
not depend on the fields, but for its noise: the same setting with another value of a field is another training.
Resumable: what is in ``irrelevant.csv`` is not run again.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported: more are slower on matrices this small

import numpy as np

from autolora.space import Space
from studies.search import problems
from studies.search.ledger import Ledger
from studies.search.measures import GRID, outcome
from studies.search.own_methods import with_laws
from studies.search.problem import Problem, family
from studies.search.run import seed_of

HERE = Path(__file__).parent
TABLE, RESULTS = HERE / "irrelevant.csv", HERE / "irrelevant.md"
BUDGET = 8.0
ALIKE = {"adam_beta2": {"choices": [0.95, 0.99, 0.999], "prefer": 0.999}}
CATEGORY = {"optimizer": {"choices": ["adamw", "nadam", "radam"], "prefer": "adamw"}}
SCALE = {"adam_epsilon": {"low": 1e-9, "high": 1e-6, "log": True, "prefer": 1e-8}}
CASES: Mapping[str, dict[str, object]] = {
    "none": {},
    "a number": ALIKE,
    "a choice": CATEGORY,
    "three": {**ALIKE, **CATEGORY, **SCALE},
}
"""Fields by case, each with what a trainer does if nothing is said, as a study finds it out by itself."""
PROBLEMS = [
    *(name for name in problems.OWN if family(name) == "curves" and not name.endswith("-variants")),
    "edge/unbiased",
]
DRAWS = 4000


class Row(NamedTuple):
    """One search: means over its variants."""

    problem: str
    case: str
    repeat: int
    to_target: float
    regret_4: float
    regret_8: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--report", action="store_true", help="write the report of what is there, and run nothing")
    arguments = parser.parse_args()
    rows = list(read(arguments.table))
    done = {row[:3] for row in rows}
    wanted = [
        (name, case, repeat)
        for repeat, name, case in product(range(arguments.repeats), arguments.problems, arguments.cases)
        if (name, case, repeat) not in done
    ]
    if not arguments.report:
        print(f"{len(wanted)} searches to run", flush=True)
        with (
            ProcessPoolExecutor(arguments.jobs) as pool,
            arguments.table.open("a", newline="", encoding="utf-8") as file,
        ):
            for future in as_completed([pool.submit(searched, *key) for key in wanted]):
                rows.append(future.result())
                csv.writer(file).writerow(rows[-1])
                file.flush()
    text = report(rows)
    if arguments.table == TABLE:
        RESULTS.write_text(text, encoding="utf-8")
    print(text)


def read(table: Path) -> Iterator[Row]:
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            for problem, case, repeat, *numbers in csv.reader(file):
                yield Row(problem, case, int(repeat), *map(float, numbers))


def searched(name: str, case: str, repeat: int) -> Row:
    """One search of the released kind, with the prior of the laws, nothing kept to confirm."""
    problem = with_fields(problems.get(name, None), CASES[case])
    ledger = Ledger(problem, BUDGET, seed_of(name, repeat))
    with_laws(ledger)
    found = [outcome(problem, variant, ledger.trace) for variant in problem.variants]
    return Row(
        name,
        case,
        repeat,
        fmean(min(each.to_target, BUDGET) for each in found),
        fmean(each.regrets[GRID.index(4.0)] for each in found),
        fmean(each.regrets[GRID.index(BUDGET)] for each in found),
    )


def with_fields(problem: Problem, fields: Mapping[str, object]) -> Problem:
    """The problem with fields in its space on which no score depends."""
    if not fields:
        return problem
    found = copy.copy(problem)
    object.__setattr__(found, "space", Space(**{**problem.space.model_dump(), "fields": fields}))  # may be frozen
    return found


def report(rows: list[Row]) -> str:
    """Means by family, and their ratios to the searches without fields, paired by problem and repeat."""
    cases = [case for case in CASES if any(row.case == case for row in rows)]
    lines = [
        "# What fields that do not matter cost",
        "",
        "Full runs a variant until within 2% of the best (those that never were count as the budget of 8), their ratio "
        "to the same searches without fields with its 95% interval (bootstrap over searches, paired), and the mean "
        "regret after 4 and after 8 full runs.",
        "",
        "| problems | fields | searches | full runs | ratio | regret at 4 | regret at 8 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for group in [*dict.fromkeys(family(row.problem) for row in rows), "all"]:
        own = [row for row in rows if group in ("all", family(row.problem))]
        without = {(row.problem, row.repeat): row for row in own if row.case == "none"}
        for case in cases:
            pairs = [
                (row, without[key]) for row in own if row.case == case and (key := (row.problem, row.repeat)) in without
            ]
            if not pairs:
                continue
            runs, base = (np.array([pair[side].to_target for pair in pairs]) for side in (0, 1))
            ratio = "" if case == "none" else _ratio(runs, base)
            regrets = [
                f"{100 * fmean(getattr(pair[0], key) for pair in pairs):.2f}%" for key in ("regret_4", "regret_8")
            ]
            lines.append(f"| {group} | {case} | {len(pairs)} | {runs.mean():.2f} | {ratio} | {' | '.join(regrets)} |")
    return "\n".join(lines) + "\n"


def _ratio(runs: np.ndarray, base: np.ndarray) -> str:
    drawn = np.random.default_rng(0).integers(len(runs), size=(DRAWS, len(runs)))
    ratios = runs[drawn].mean(axis=1) / base[drawn].mean(axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return f"{runs.mean() / base.mean():.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
