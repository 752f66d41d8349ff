"""Runs the benchmark: problems x methods x repeats, a row of results for every variant.

    python -m studies.search.run --jobs 2 --repeats 10
    python -m studies.search.run --jobs 2 --repeats 10 --group priors ablations

Resumable: what is in ``results.csv`` is not run again; a method whose package is missing is skipped with a line.
"""

from __future__ import annotations

import argparse
import os
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path

# Before numpy is imported: on matrices this small more threads are slower, and many times so on cores that others use.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from studies.search import problems
from studies.search.measures import GRID, outcome
from studies.search.methods import GROUPS, METHODS, in_group, traced
from studies.search.problem import family
from studies.search.rows import Key, Row, append, repair

HERE = Path(__file__).parent
TABLE = HERE / "results.csv"
BUDGET = GRID[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--problems", nargs="+", help="these, by name or family, as in curves or curves/quickstart")
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=["peers"], help="groups of methods")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), help="these methods, whatever their group")
    parser.add_argument("--paper", type=Path, help=f"learning_rate_matters.csv; by default ${problems.PAPER_VARIABLE}")
    parser.add_argument("--table", type=Path, default=TABLE, help="where results are kept")
    parser.add_argument("--budget", type=float, default=BUDGET, help="full runs a variant; one for all of a table")
    arguments = parser.parse_args()
    paper = problems.paper_path(arguments.paper)
    if paper is None:
        print(f"paper tables skipped: no file given by --paper or {problems.PAPER_VARIABLE}")
    names = chosen(problems.names(paper), arguments.problems)
    variants = {name: len(problems.get(name, paper).variants) for name in names}
    done = repair(arguments.table, variants)
    methods = available(arguments.only or [name for group in arguments.group for name in in_group(group)])
    wanted = [key for key in keys(names, methods, arguments.repeats) if key not in done]
    print(f"{len(wanted)} searches to run")
    with ProcessPoolExecutor(arguments.jobs) as pool:
        futures = [pool.submit(searched, key, paper, arguments.budget) for key in wanted]
        for number, future in enumerate(as_completed(futures), start=1):
            append(arguments.table, future.result())
            if number % 50 == 0 or number == len(wanted):
                print(f"{number} of {len(wanted)}", flush=True)


def chosen(names: list[str], wanted: list[str] | None) -> list[str]:
    """The problems that are named, or whose family is; all where none is."""
    return [name for name in names if not wanted or name in wanted or family(name) in wanted]


def keys(problems: list[str], methods: list[str], repeats: int) -> list[Key]:
    """Every method on every problem that it can be run on, repeat by repeat."""
    cases = product(range(repeats), problems, methods)
    return [(problem, method, repeat) for repeat, problem, method in cases if METHODS[method].takes(problem)]


def available(wanted: list[str]) -> list[str]:
    """The methods that can be run here; a line for each that cannot."""
    for name in wanted:
        if METHODS[name].missing:
            print(f"{name} skipped: package {METHODS[name].missing} is not installed")
    return [name for name in wanted if not METHODS[name].missing]


def seed_of(problem: str, repeat: int) -> int:
    """A different one for every problem and repeat, the same for every method."""
    return zlib.crc32(f"{problem}/{repeat}".encode())


def searched(key: Key, paper: Path | None, budget: float = BUDGET) -> list[Row]:
    """One search; a row for each variant."""
    name, method, repeat = key
    problem, seed = problems.get(name, paper), seed_of(name, repeat)
    started = time.perf_counter()
    trace = traced(method, problem, budget, seed)
    seconds = time.perf_counter() - started
    return [
        Row(name, method, repeat, seed, variant, outcome(problem, variant, trace), seconds)
        for variant in problem.variants
    ]


if __name__ == "__main__":
    main()
