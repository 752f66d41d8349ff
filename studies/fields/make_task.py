"""A generated task on which training too well does harm: few rows of the shipped task, a part with wrong answers.

    python -m studies.fields.make_task --out runs/fields/task

Completions of that part are swapped among its rows. Evaluation and test rows are sound: what memorizes wrong answers
is worse there, so that the way of regularizing decides.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from autolora import files, quickstart

ROWS, WRONG, SEED = 24, 0.5, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--wrong", type=float, default=WRONG, help="share of the rows whose answers are wrong")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = read("train.jsonl")[: arguments.rows]
    write(arguments.out / "train.jsonl", with_wrong_answers(rows, arguments.wrong))
    sound = read("test.jsonl")
    write(arguments.out / "eval.jsonl", sound[: len(sound) // 2])
    write(arguments.out / "test.jsonl", sound[len(sound) // 2 :])


def read(name: str) -> list[dict[str, str]]:
    """Rows of the shipped task."""
    text = Path(quickstart.resolve(f"{quickstart.PREFIX}/{name}")).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def with_wrong_answers(rows: list[dict[str, str]], share: float) -> list[dict[str, str]]:
    """The rows with completions of a random part of them handed on around that part."""
    chosen = np.random.default_rng(SEED).permutation(len(rows))[: round(share * len(rows))].tolist()
    found = [dict(row) for row in rows]
    for place, row in enumerate(chosen):
        found[row]["completion"] = rows[chosen[place - 1]]["completion"]
    return found


def write(path: Path, rows: list[dict[str, str]]) -> None:
    files.write(path, "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
