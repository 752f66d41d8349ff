"""Tables and figures of the benchmark.

    python -m studies.search.report

Reads ``results.csv``, writes ``results.md`` and a figure for every family of problems beside this file, or elsewhere
with ``--table`` and ``--out``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from studies.search import problems
from studies.search.comparisons import ablations, against_own, confirmation, given_priors
from studies.search.conditions import footnotes
from studies.search.measures import GRID, TARGET
from studies.search.methods import OWN, UNINFORMED, in_group
from studies.search.problem import family
from studies.search.rows import Row, read
from studies.search.summary import (
    bootstrapped,
    by_search,
    interquartile_mean,
    mean,
    mean_ranks,
    quantile,
    ratio_of_means,
    regret_at,
    to_noise,
    to_target,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
SHOWN = (1.0, 2.0, 3.0, 3.5, 4.5, 6.0, 8.0, 12.0)
REFERENCE = "Optuna TPE"
FAMILIES = {
    "curves": "Learning-curve table",
    "paper": "Paper tables, learning rates of the table",
    "paper-wide": "Paper tables, five decades of learning rates",
    "edge": "Learning-rate edge",
    "hartmann": "MF-Hartmann",
}
PEERS = in_group("peers")
FLOOR = 1e-4
"""The figures' log axis ends here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=HERE / "results.csv")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.md and the figures")
    parser.add_argument("--paper", type=Path, help=f"learning_rate_matters.csv; by default ${problems.PAPER_VARIABLE}")
    arguments = parser.parse_args()
    rows = read(arguments.table)
    paper = problems.paper_path(arguments.paper)
    (arguments.out / "results.md").write_text("\n".join(_lines(rows, paper)) + "\n")
    for name in FAMILIES:
        own = [row for row in rows if family(row.problem) == name and row.method in PEERS]
        if own:
            _figure(arguments.out / f"{name}.png", FAMILIES[name], own)


def _lines(rows: list[Row], paper: Path | None) -> Iterator[str]:
    yield "# Results\n"
    yield (
        "Written by `python -m studies.search.report`. Full runs are per variant, partial ones at their share; regret "
        "is that of the best configuration trained at full length so far, without noise, relative to the best of the "
        f"problem. Where a variant never came within {TARGET:.0%} it counts as the budget, {GRID[-1]:g}, in the means "
        "below: they are then too low, most for the methods with the most such. One repeat of one problem is one "
        "search, its value the mean over its variants: every search weighs the same, however many variants it has. "
        "Intervals: 95%, bootstrap over the searches of each problem.\n"
    )
    peers = [row for row in rows if row.method in PEERS]
    for name, title in FAMILIES.items():
        own = [row for row in peers if family(row.problem) == name]
        if own:
            yield from _family(title, own, paper)
            yield f"![Any-time regret]({name}.png)\n"
    names = sorted({row.problem for row in rows})
    notes = [*footnotes(names, paper)]
    yield "## By problem\n"
    yield from _by_problem(peers)
    yield ""
    yield from notes
    for table in (against_own, ablations, confirmation, given_priors):
        lines = [*table(rows)]
        yield from lines
        yield from notes if lines else ()


def _family(title: str, rows: list[Row], paper: Path | None) -> Iterator[str]:
    names = sorted({row.problem for row in rows})
    notes = [*footnotes(names, paper)]
    yield f"## {title}\n"
    yield f"{', '.join(names)}.\n"
    for table in (_regrets, _targets):
        yield from table(rows)
        yield from notes


def _methods(rows: Sequence[Row]) -> list[str]:
    return [name for name in PEERS if any(row.method == name for row in rows)]


def _of(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row.method == method]


def _regrets(rows: list[Row]) -> Iterator[str]:
    yield (
        "Regret in percent after so many full runs: interquartile mean over searches with its interval, and median "
        "over variants, those of a search sharing its weight.\n"
    )
    yield "| | " + " | ".join(f"{at:g}" for at in SHOWN) + " | searches |"
    yield "| --- |" + " --- |" * (len(SHOWN) + 1)
    for method in _methods(rows):
        own = _of(rows, method)
        cells = []
        for at in SHOWN:
            values = by_search(own, regret_at(at))
            middle = 100 * quantile(own, regret_at(at), 0.5)
            cells.append(f"{bootstrapped(values, interquartile_mean).percent()}; {middle:.2g}")
        count = len({row.key for row in own}), len({row.problem for row in own})
        yield f"| {method} | " + " | ".join(cells) + f" | {count[0]} of {count[1]} problems |"
    yield ""


def _targets(rows: list[Row]) -> Iterator[str]:
    yield (
        f"Full runs until within {TARGET:.0%} of the best: mean, 90th percentile over variants (those of a search "
        f"sharing its weight), share that never was; how many times as many {REFERENCE} needs on the same searches, "
        "with its interval; the same mean for within one standard deviation over seeds; "
        "the mean rank by regret after 3 and after 12 (1 is best, among the methods with all repeats); and the "
        "interquartile mean of the regret, in percent, of what the scores say is best at the end.\n"
    )
    yield "| | mean | 90% | never | ratio | within noise | rank at 3 | rank at 12 | chosen |"
    yield "| --- |" + " --- |" * 8
    early, late = mean_ranks(rows, regret_at(3.0)), mean_ranks(rows, regret_at(GRID[-1]))
    for method in _methods(rows):
        own = _of(rows, method)
        target = bootstrapped(by_search(own, to_target), mean)
        noise = bootstrapped(by_search(own, to_noise), mean)
        chosen = bootstrapped(by_search(own, lambda row: row.outcome.chosen), interquartile_mean)
        high = quantile(own, to_target, 0.9)
        never = bootstrapped(by_search(own, _never), mean).value
        keys = {(row.problem, row.repeat) for row in own}
        reference = [row for row in _of(rows, REFERENCE) if (row.problem, row.repeat) in keys]
        ratio = ratio_of_means(by_search(reference, to_target), by_search(own, to_target)).plain() if reference else "-"
        yield (
            f"| {method} | {target.plain()} | {high:.1f} | {never:.0%} | {ratio} | {noise.plain()} "
            f"| {_rank(early, method)} | {_rank(late, method)} | {chosen.percent()} |"
        )
    yield ""


def _by_problem(rows: list[Row]) -> Iterator[str]:
    names = sorted({row.problem for row in rows})
    yield (
        f"Mean full runs until within {TARGET:.0%}, and within one standard deviation over seeds; the budget where "
        "never.\n"
    )
    methods = _methods(rows)
    yield "| | " + " | ".join(methods) + " |"
    yield "| --- |" + " --- |" * len(methods)
    for name in names:
        cells = []
        for method in methods:
            own = [row for row in rows if row.problem == name and row.method == method]
            times = (np.mean([measure(row) for row in own]) for measure in (to_target, to_noise))
            cells.append("; ".join(f"{time:.1f}" for time in times) if own else "-")
        yield f"| {name} | " + " | ".join(cells) + " |"


def _never(row: Row) -> float:
    return float(math.isinf(row.outcome.to_target))


def _rank(ranks: dict[str, float], method: str) -> str:
    return f"{ranks[method]:.1f}" if method in ranks else "-"


def _figure(file: Path, title: str, rows: list[Row]) -> None:
    """A panel for each problem: interquartile mean of the regret against full runs, and its band."""
    names = sorted({row.problem for row in rows})
    methods = _methods(rows)
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure, panels = plt.subplots(lines, columns, figsize=(4.6 * columns, 3.6 * lines + 0.9), squeeze=False)
    colors = dict(zip(PEERS, plt.get_cmap("tab20").colors[::2] + plt.get_cmap("tab20").colors[1::2], strict=False))
    for panel, problem in zip(panels.flat, names, strict=False):
        for method in methods:
            own = [row for row in rows if row.problem == problem and row.method == method]
            if own:
                _band(panel, own, method, colors[method])
        panel.axhline(100 * TARGET, color="gray", linewidth=0.6, linestyle=":")
        panel.set_yscale("log")
        panel.set_title(problem, fontsize=9)
        panel.set_xlabel("full runs per variant", fontsize=8)
        panel.set_ylabel("regret, percent", fontsize=8)
        panel.tick_params(labelsize=7)
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    columns = min(6, len(labels))
    figure.legend(handles, labels, loc="lower center", ncols=columns, fontsize=7, frameon=False)
    figure.suptitle(f"{title}: interquartile mean regret, 95% bootstrap band", fontsize=10)
    inches = 0.15 + 0.17 * math.ceil(len(labels) / columns)  # of the legend
    figure.tight_layout(rect=(0, inches / (3.6 * lines + 0.9), 1, 1))
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _band(panel: plt.Axes, rows: list[Row], method: str, color: tuple[float, ...]) -> None:
    found = [bootstrapped(by_search(rows, regret_at(at)), interquartile_mean) for at in GRID]
    own = method in (OWN, UNINFORMED)
    curve = [100 * max(FLOOR, point.value) for point in found]
    panel.step(GRID, curve, where="post", color=color, label=method, linewidth=2.0 if own else 1.0)
    low = [100 * max(FLOOR, point.low) for point in found]
    high = [100 * max(FLOOR, point.high) for point in found]
    panel.fill_between(GRID, low, high, step="post", color=color, alpha=0.12, linewidth=0)


if __name__ == "__main__":
    main()
