"""Trains the cells of the learning-curve table and records the score at every rung.

    python -m studies.curves.collect quickstart --jobs 2
    python -m studies.curves.collect stories260k --jobs 2 --parts core seeds grid

The parts are made one after the other, and each until it adds nothing: what is in one may depend on the rows so far.
Resumable: a cell that is in the table is not trained again. One row a cell is appended to ``<name>.csv`` beside the
specification; scores are empty where the run had diverged, and ``stopped_at`` is then the fraction of the run it
reached.
"""

from __future__ import annotations

import argparse
import csv
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import count
from pathlib import Path
from typing import Any

from autolora import spec as specs
from autolora import variants
from studies.curves.design import Cell, cells, design

HERE = Path(__file__).parent
CELL_COLUMNS = Cell._fields

_bench: Any = None
_rungs: tuple[float, ...] = ()
_numbers = count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of a specification beside this file, without .yaml; or a path with it")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--parts", nargs="+", help="of the table's design, these")
    parser.add_argument("--only", nargs="+", help="of the variants, these")
    parser.add_argument("--limit", type=int, help="most cells to train")
    parser.add_argument("--dir", type=Path, default=Path("runs/curves"), help="for the workers' checkpoints")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    spec_file = Path(arguments.name) if arguments.name.endswith(".yaml") else HERE / f"{arguments.name}.yaml"
    table = spec_file.with_suffix(".csv")
    spec = specs.load(spec_file)
    columns = [*CELL_COLUMNS, *(f"score@{rung:.3g}" for rung in spec.rungs), "stopped_at", "seconds"]
    known = design(table.stem)
    if unknown := sorted({*(arguments.parts or ())} - {*known}):
        parser.error(f"{table.stem} has no part {', '.join(unknown)}; its parts: {', '.join(known)}")
    left = arguments.limit
    with ProcessPoolExecutor(arguments.jobs, initializer=_open, initargs=(spec_file, arguments.dir)) as pool:
        for part in arguments.parts or known:
            while todo := _todo(spec, table, part, arguments.only)[:left]:
                print(f"{part}: {len(todo)} cells to train")
                # Each row goes out as it is done, so that stopping loses what is in flight and no more.
                futures = [pool.submit(_train, cell) for cell in todo]
                for number, future in enumerate(as_completed(futures), start=1):
                    row = future.result()
                    _append(table, columns, row)
                    print(f"{number}/{len(todo)}", *row, flush=True)
                left = None if left is None else left - len(todo)


def _todo(spec: specs.Spec, table: Path, part: str, only: list[str] | None) -> list[Cell]:
    from autolora.driver.opening import resolved_space

    width = resolved_space(spec).hidden_size
    assert width is not None
    done = read(table) if table.is_file() else []
    trained = {tuple(row[column] for column in CELL_COLUMNS[1:]) for row in done}
    wanted = only or variants.names()
    return [
        cell
        for cell in cells(width, (part,), table.stem, done)
        if cell.variant in wanted and cell.variant in variants.names() and tuple(cell[1:]) not in trained
    ]


def read(table: Path) -> list[dict[str, Any]]:
    """Rows of a table with their numbers as numbers; None where a score is empty."""
    kinds: dict[str, Any] = {"part": str, "variant": str, "batch_size": int, "rank": int, "seed": int}
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: kinds.get(key, float)(value) if value else None for key, value in row.items()} for row in rows]


def _append(table: Path, columns: list[str], row: list[Any]) -> None:
    new = not table.is_file()
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(columns)
        writer.writerow(row)


def _open(spec_file: Path, folder: Path) -> None:
    """Load model and data, once a worker."""
    global _bench, _rungs
    from autolora.trainers.builtin.workbench import Workbench

    spec = specs.load(spec_file, **{"evaluation.subset": False})  # rungs are compared on all rows
    _rungs = spec.rungs
    _bench = Workbench.open(spec, folder / spec_file.stem / str(os.getpid()))


def _train(cell: Cell) -> list[Any]:
    from autolora.search import Job
    from autolora.space import Config
    from autolora.trainers import checkpoint
    from autolora.trainers.builtin import segment

    config = Config(cell.learning_rate, cell.batch_size, cell.rank, cell.alpha)
    number, scores, stopped, seconds = next(_numbers), [], "", 0.0
    for rung, stop in enumerate(_rungs):
        outcome = segment.run(_bench, Job(number, cell.variant, config, cell.seed, start=0.0, stop=stop, rung=rung))
        seconds = outcome.seconds
        if outcome.value is None:
            stopped = f"{outcome.at:.4g}"
            break
        scores.append(f"{outcome.value:.5f}")
    checkpoint.discard(_bench.trial_folder(number))
    return [*cell, *scores, *[""] * (len(_rungs) - len(scores)), stopped, f"{seconds:.2f}"]


if __name__ == "__main__":
    main()
