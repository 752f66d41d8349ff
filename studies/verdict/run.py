"""Does the verdict claim what is not so, and does it find what is?

    python -m studies.verdict.run --repeats 20 --jobs 1      # resumable: claims.csv; about four minutes a repeat
    python -m studies.verdict.run --repeats 0                # results.md alone, from what is there

Whole studies of four variants are simulated, in which none is better, or one is better and one worse than plain LoRA by
a known share; see ``worlds.py``. Each ends in a verdict, and in one without the part of tuning, as it was before.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

# Before numpy is imported: on matrices this small more threads are slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import autolora
from autolora.analysis.verdict import Verdict, judge
from autolora.search import Job
from autolora.variants import registry
from studies.throughput.commit import commit
from studies.verdict.worlds import EXAMPLES, FLOOR, SHAPES, SPACE, VARIANTS, World

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GAINS = (0.0, 0.02, 0.04)
"""Share by which one variant is better than plain LoRA, and another worse."""
BUDGETS = (4, 5, 6, 8, 12)
BETTER, WORSE = "pissa", "milora"
COLUMNS = (
    *("gain", "shape", "budget", "repeat", "variant", "true", "seeds", "shortfall", "reference_shortfall"),
    *("difference", "low", "high", "p", "standing", "without_tuning", "commit"),
)


class Key(NamedTuple):
    """One study."""

    gain: float
    shape: str
    budget: int
    repeat: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--table", type=Path, default=HERE / "claims.csv")
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    options = parser.parse_args()
    done = {key_of(row) for row in read(options.table)}
    cases = product(range(options.repeats), GAINS, SHAPES, BUDGETS)
    keys = [Key(gain, shape, budget, repeat) for repeat, gain, shape, budget in cases]
    wanted = [key for key in keys if key not in done]
    at = commit(ROOT)
    with ProcessPoolExecutor(options.jobs) as pool:
        for future in as_completed([pool.submit(judged, key) for key in wanted]):
            append(options.table, [{**row, "commit": at} for row in future.result()])
    options.out.write_text("\n".join(report(read(options.table))) + "\n", encoding="utf-8")


def judged(key: Key) -> list[dict[str, object]]:
    """One study, and what its verdict says of each variant; a row for each."""
    gains = {BETTER: key.gain, WORSE: -key.gain} if key.gain else {}
    world = World(key.shape, key.repeat, gains)
    search = tuned(world, key.budget, key.repeat)
    verdict = search.verdict()
    without = judge(search.table, search.best(), registry.simple(search.plan.variants))
    return list(rows(key, world, verdict, without))


def tuned(world: World, budget: int, seed: int) -> autolora.Search:
    """A search that has used its budget."""
    search = autolora.Search(list(VARIANTS), SPACE, budget=budget, seed=seed, examples=EXAMPLES)
    while (job := search.ask()) is not None:
        assert isinstance(job, Job)
        score = world.score(job.variant, job.config, job.stop, job.seed)
        if score is None:
            search.tell(job, diverged=True, at=min(job.stop, job.start + 0.02))
        else:
            search.tell(job, score)
    return search


def rows(key: Key, world: World, verdict: Verdict, without: Verdict) -> Iterator[dict[str, object]]:
    for variant, one in verdict.differences.items():
        shortfalls = one.shortfalls or ("", "")
        numbers = {
            "true": world.difference(variant),
            "difference": one.value,
            "low": one.low,
            "high": one.high,
            "p": one.p,
        }
        yield {
            **key._asdict(),
            "variant": variant,
            **{name: "" if value is None else f"{value:.4g}" for name, value in numbers.items()},
            "seeds": "" if one.seeds is None else "/".join(map(str, one.seeds)),
            "shortfall": shortfalls[0] and f"{shortfalls[0]:.4g}",
            "reference_shortfall": shortfalls[1] and f"{shortfalls[1]:.4g}",
            "standing": verdict.standings[variant],
            "without_tuning": without.standings[variant],
        }


def key_of(row: dict[str, str]) -> Key:
    return Key(float(row["gain"]), row["shape"], int(row["budget"]), int(row["repeat"]))


def append(file: Path, found: list[dict[str, object]]) -> None:
    """All rows of one study in one write."""
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(found)


def read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as opened:
        return [row for row in csv.DictReader(opened) if None not in row.values()]


def report(found: list[dict[str, str]]) -> Iterator[str]:
    """The table of false claims and of power."""
    commits = ", ".join(sorted({row["commit"] for row in found}))
    yield "# What verdicts claim"
    yield ""
    yield f"`python -m studies.verdict.run`, at {commits}; see [README.md](README.md)."
    yield ""
    yield (
        "| gain | budget | studies | with a false claim | before | differences found | before | in their interval | "
        "half width of the interval, share of the score |"
    )
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for gain, budget in product(GAINS, BUDGETS):
        here = [row for row in found if float(row["gain"]) == gain and int(row["budget"]) == budget]
        if here:
            yield _line(gain, budget, here)


def _line(gain: float, budget: int, here: list[dict[str, str]]) -> str:
    studies = {key_of(row) for row in here}

    def false(column: str) -> float:
        return len({key_of(row) for row in here if row[column] in _false(row)}) / len(studies)

    def power(column: str) -> str:
        real = [row for row in here if float(row["true"])]
        return f"{fmean(row[column] == _truth(row) for row in real):.0%}" if real else ""

    known = [row for row in here if row["low"]]
    inside = fmean(float(row["low"]) <= float(row["true"]) <= float(row["high"]) for row in known)
    half = fmean((float(row["high"]) - float(row["low"])) / 2 for row in known) / FLOOR
    return (
        f"| {gain:.0%} | {budget} | {len(studies)} | {false('standing'):.1%} | {false('without_tuning'):.1%} | "
        f"{power('standing')} | {power('without_tuning')} | {inside:.1%} | {half:.1%} |"
    )


def _truth(row: dict[str, str]) -> str:
    true = float(row["true"])
    return "better" if true < 0 else "worse" if true > 0 else "within noise"


def _false(row: dict[str, str]) -> set[str]:
    return {"better", "worse"} - {_truth(row)}


if __name__ == "__main__":
    main()
