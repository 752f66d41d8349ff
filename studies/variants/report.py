"""Makes results.md from cost.csv and compare.csv.

    python -m studies.variants.report

All three are beside this file, or in another folder with ``--dir``.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev

from scipy import stats

HERE = Path(__file__).parent
REFERENCE = "lora"
LEVEL = 0.05
START_WIDTH = 1024
PUBLISHED = {
    "lora": "1.00 (4 h 42 min, 30.1 GB)",
    "adalora": "2.59",
    "delora": "1.97",
    "denselora": "1.55",
    "dora": "+75% memory without checkpointing",
    "hira": "1.74",
    "loha": "7.55",
    "lokr": "7.63",
    "loramoe": "7.77",
    "melora": "1.45",
    "moslora": "1.24",
    "randlora": "8x the time",
    "rasa": "1.33",
}
"""The unified study's training times over plain LoRA's (arXiv 2601.22708), an 8B model on one H200."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=HERE, help="folder of the three files")
    folder = parser.parse_args().dir
    lines = [*cost_lines(folder / "cost.csv"), "", *compare_lines(folder / "compare.csv"), ""]
    (folder / "results.md").write_text("\n".join(lines))


def cost_lines(table: Path) -> list[str]:
    with table.open() as file:
        rows = list(csv.DictReader(file))
    widths = sorted({int(row["width"]) for row in rows})
    by = {(row["variant"], int(row["width"])): row for row in rows}
    heads = [f"{what} {width}" for what in ("time", "memory") for width in widths]
    lines = [
        "## What a training step costs, relative to plain LoRA",
        "",
        "Time of a step and peak memory of tensors, by width; start: seconds of the first and of a later attach to two",
        f"layers at width {START_WIDTH}. Repeats of a step differ by up to 6%. `python -m studies.variants.cost`",
        "",
        _row("variant", *heads, "start", "later", "published (8B, H200)"),
        _row(*["---"] * (len(heads) + 4)),
    ]
    for name in dict.fromkeys(row["variant"] for row in rows):
        times = [by[name, width]["step_ratio"] if (name, width) in by else "" for width in widths]
        memory = [
            f"{float(by[name, width]['peak_mb']) / float(by[REFERENCE, width]['peak_mb']):.2f}"
            if (name, width) in by
            else ""
            for width in widths
        ]
        last = by.get((name, START_WIDTH), {})
        starts = (last.get("first_start_seconds", ""), last.get("next_start_seconds", ""))
        lines.append(
            _row(name, *(f"{float(t):.2f}" if t else "" for t in times), *memory, *starts, PUBLISHED.get(name, ""))
        )
    return lines


def compare_lines(table: Path) -> list[str]:
    with table.open() as file:
        rows = list(csv.DictReader(file))
    scores: dict[str, list[float]] = defaultdict(list)
    config = {}
    for row in rows:
        scores[row["variant"]] += [float(row["test"])] if row["test"] else []
        config[row["variant"]] = row
    reference = scores[REFERENCE]
    others = {name: values for name, values in scores.items() if name != REFERENCE}
    adjusted = holm({name: float(stats.ttest_ind(v, reference, equal_var=False).pvalue) for name, v in others.items()})
    lines = [
        "## Every variant tuned at equal budget, then compared",
        "",
        f"Loss on {len(reference)} fresh seeds and unseen test rows (lower is better); difference to plain LoRA with",
        "its 95% interval (Welch), and p adjusted for the number of comparisons (Holm). The last column is the study's",
        "own mean and spread, of the seeds that chose the configuration.",
        "",
        _row("variant", "test loss", "sd", "difference", "95% interval", "p", "lr", "batch", "rank", "alpha", "tuned"),
        _row(*["---"] * 11),
    ]
    for name in sorted(scores, key=lambda name: fmean(scores[name])):
        own, row = scores[name], config[name]
        difference, interval, p = "", "", ""
        if name != REFERENCE:
            found = stats.ttest_ind(own, reference, equal_var=False)
            low, high = found.confidence_interval(0.95)
            difference, interval = f"{fmean(own) - fmean(reference):+.4f}", f"{low:+.4f} to {high:+.4f}"
            p = f"{adjusted[name]:.2g}"
        setting = (f"{float(row['learning_rate']):.2e}", row["batch_size"], row["rank"], f"{float(row['alpha']):.4g}")
        spread = f" ± {float(row['tuned_spread']):.4f}" if row["tuned_spread"] else ""
        tuned = f"{float(row['tuned_eval']):.4f}{spread}"
        lines.append(_row(name, f"{fmean(own):.4f}", f"{stdev(own):.4f}", difference, interval, p, *setting, tuned))
    better = [n for n in others if adjusted[n] < LEVEL and fmean(others[n]) < fmean(reference)]
    worse = [n for n in others if adjusted[n] < LEVEL and fmean(others[n]) > fmean(reference)]
    rest = [n for n in others if adjusted[n] >= LEVEL]
    lines += [
        "",
        f"Better than plain LoRA beyond seed noise: {_names(better)}. Worse: {_names(worse)}. Not told apart from it: "
        f"{_names(rest)}.",
        f"The means of all {len(scores)} lie within {_range(scores):.1f}% of the best.",
    ]
    return lines


def holm(values: dict[str, float]) -> dict[str, float]:
    """p adjusted by Holm's step-down method."""
    adjusted, largest = {}, 0.0
    for place, (name, p) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(values) - place) * p))
        adjusted[name] = largest
    return adjusted


def _range(scores: dict[str, list[float]]) -> float:
    means = [fmean(values) for values in scores.values()]
    return 100 * (max(means) / min(means) - 1)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
