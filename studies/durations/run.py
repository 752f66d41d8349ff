"""Does longer training gain what a study says, and does a rate that was tuned short hold on long runs?

    OMP_NUM_THREADS=1 python -m studies.durations.run --dir runs/durations     # results.md and runs.csv

Studies of the shipped task search the duration along with the learning rate, three seeds of them. What each says longer
training gains is compared with runs of fresh seeds at the best setting of each duration; the longest of these runs is
longer than any that the study trained. And the rate that `autolora export --examples` carries to a run four times as
long as the longest, from the configuration that the study recommends, is compared with a grid of rates at that length.
Resumable: what has been trained is kept.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

import autolora
from autolora.analysis.carrying import Carried
from autolora.analysis.durations import Gain, pays_until
from autolora.search.runs import runs_by_config
from autolora.space import Config
from autolora.study.directory import read_study
from studies.throughput.commit import commit

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DURATIONS = (160, 320, 640)
LONGER = 1280
"""Twice the longest that is searched, up to where a study says what is to gain."""
FAR = 2560
GRID = (0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.83)
"""Times the rate that is carried to FAR by the first study."""
STUDY = {
    "model": "builtin:quickstart",
    "data.train": "builtin:quickstart/train.jsonl",
    "data.eval": "builtin:quickstart/test.jsonl",
    "data.eval_size": 400,
    "training.max_length": 64,
    "variants": ["lora"],
    "space.batch_size": [8],
    "space.rank": [8],
    "space.alpha": "law",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="fresh ones, of each run that is compared")
    parser.add_argument("--budget", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    options = parser.parse_args()
    now = commit(ROOT)
    runs = Runs(options.dir, options.seeds)
    studies = [Study.of(options.dir / f"study-{seed}", seed, options.budget) for seed in range(options.studies)]
    lines = [
        f"# What longer training gains, at commit {now}",
        "",
        f"`OMP_NUM_THREADS=1 python -m studies.durations.run --dir runs/durations --studies {options.studies} "
        f"--seeds {options.seeds} --budget {options.budget:g}`; see [README.md](README.md).",
        "",
        *advice(studies, runs),
        "",
        *carried(studies, runs),
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with options.out.with_name("runs.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("examples", "learning_rate", "seed", "eval_loss", "commit"))
        rows.writerows((*run, score, now) for run, score in sorted(runs.known.items()))
    print("\n".join(lines))


class Runs:
    """Runs of one configuration and length, each a study of its own with a budget of one: kept in a folder.

    Args:
        folder: where they are kept.
        seeds: how many of each; none is a seed of a study that searches.

    Attributes:
        known: scores so far, by examples, learning rate and seed.
    """

    def __init__(self, folder: Path, seeds: int) -> None:
        self._folder, self._seeds = folder, seeds
        self.known: dict[tuple[int, float, int], float] = {}

    def scores(self, rate: float, examples: int) -> list[float]:
        """One a seed."""
        return [self._score(rate, examples, seed) for seed in range(100, 100 + self._seeds)]

    def _score(self, rate: float, examples: int, seed: int) -> float:
        folder = self._folder / f"run-{examples}-{rate:.4g}-{seed}"
        fixed = {"space.learning_rate": [rate], "training.examples": examples, "budget": 1, "confirm": 0}
        result = autolora.tune(**STUDY, **fixed, dir=folder, seed=seed, callbacks=[])
        self.known[examples, rate, seed] = result["lora"].value
        return result["lora"].value


class Study:
    """One study that searched the duration, ended.

    Attributes:
        gains: what it says longer training gains.
        best: the configuration of each duration that they are about.
        tuned: the configuration that it recommends, which is what `autolora export` carries.
    """

    def __init__(self, gains: Sequence[Gain], best: dict[int, Config], tuned: Config) -> None:
        self.gains, self.best, self.tuned = gains, best, tuned

    @classmethod
    def of(cls, folder: Path, seed: int, budget: float) -> Study:
        """Run it, or read it where it has ended."""
        searched = {"space.duration": {"examples": list(DURATIONS)}, "budget": budget}
        result = autolora.tune(**STUDY, **searched, dir=folder, seed=seed, callbacks=[])
        table, _ = read_study(folder)
        best: dict[int, tuple[float, Config]] = {}
        for config, trials in runs_by_config(table, "lora").items():
            score = fmean(trial.scores[len(table.rungs) - 1] for trial in trials)
            length = int(config.value("duration"))  # type: ignore[call-overload]
            best[length] = min(best.get(length, (float("inf"), config)), (score, config), key=lambda pair: pair[0])
        configs = {length: config for length, (_, config) in best.items()}
        return cls(result.durations.get("lora", ()), configs, result["lora"].config)

    def rate(self, examples: int) -> float:
        """Its best rate at a length; where it trained none as long, the one that it carries there."""
        return self.best[examples].learning_rate if examples in self.best else self.carried(examples).learning_rate

    def carried(self, examples: int) -> Carried:
        """The rate that it recommends, at another length."""
        return Carried.of(self.tuned.learning_rate, int(self.tuned.value("duration")), examples)  # type: ignore[call-overload]


def advice(studies: Sequence[Study], runs: Runs) -> Iterator[str]:
    """What the studies say that longer training gains, beside what it does gain."""
    yield "| study | examples | gain, as the study says (95% interval) | measured on fresh seeds | in it | pays until |"
    yield "| ---: | --- | --- | ---: | --- | ---: |"
    for number, study in enumerate(studies):
        until = pays_until([gain for gain in study.gains if gain.searched])
        for gain in study.gains:
            start, stop = int(gain.start), int(gain.stop)
            shorter, longer = runs.scores(study.rate(start), start), runs.scores(study.rate(stop), stop)
            measured = fmean(shorter) - fmean(longer)
            held = "-" if gain.low is None or gain.high is None else _yes(gain.low <= measured <= gain.high)
            interval = "" if gain.low is None else f" ({gain.low:.3f} to {gain.high:.3f})"
            kind = "" if gain.searched else ", by power laws"
            yield (
                f"| {number} | {start} to {stop}{kind} | {gain.expected:.3f}{interval} | {measured:.3f} | {held} | "
                f"{until:g} |"
            )


def carried(studies: Sequence[Study], runs: Runs) -> Iterator[str]:
    """The rates that are carried to FAR examples, beside a grid of rates there."""
    found = [study.carried(FAR) for study in studies]
    grid = {rate: fmean(runs.scores(rate, FAR)) for rate in [factor * found[0].learning_rate for factor in GRID]}
    every = grid | {each.learning_rate: fmean(runs.scores(each.learning_rate, FAR)) for each in found}
    yield f"| learning rate at {FAR} examples | eval_loss, mean of fresh seeds | sd | |"
    yield "| ---: | ---: | ---: | --- |"
    for rate, score in sorted(every.items()):
        spread, kind = stdev(runs.scores(rate, FAR)), "grid" if rate in grid else "carried"
        yield f"| {rate:.2e} | {score:.4f} | {spread:.4f} | {kind} |"
    best, lowest = min(grid, key=lambda rate: grid[rate]), min(every.values())
    yield ""
    yield (
        f"| study | tuned | carried to {FAR} (90% interval) | best of the grid in it | loss there, to the best of the "
        "grid | to the best of all |"
    )
    yield "| ---: | ---: | --- | --- | ---: | ---: |"
    for number, each in enumerate(found):
        score = every[each.learning_rate]
        yield (
            f"| {number} | {each.tuned:.2e} | {each.learning_rate:.2e} ({each.low:.2e} to {each.high:.2e}) | "
            f"{_yes(each.low <= best <= each.high)} | {score - grid[best]:+.4f} | {score - lowest:+.4f} |"
        )


def _yes(true: bool) -> str:
    return "yes" if true else "no"


if __name__ == "__main__":
    main()
