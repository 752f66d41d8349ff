"""Fits the laws to all tables, and again with each model left out to see what they say of it.

    export AUTOLORA_SFT_SWEEP=path/to/tinker_sft_sweep.csv AUTOLORA_PAPER_TABLES=path/to/learning_rate_matters.csv
    python -m studies.laws.fit

Writes ``fitted.json``, whose fits "without" a source or table the search's benchmark takes, and ``results.md``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from autolora import laws
from autolora.priors import Prior
from studies.laws import tables
from studies.laws.model import BELIEFS, Fitted, fit, predicted, spread
from studies.laws.tables import Best

HERE = Path(__file__).parent
FITTED, RESULTS = HERE / "fitted.json", HERE / "results.md"

CONSTANT = math.log10(3e-4)
"""What the laws have to beat: the sweep's own authors advise near it."""
WIDTH_90 = 1.645
"""Standard deviations to either side that hold 90% of a normal."""

LAWS = {
    "centre": ("LOG_RATE", None),
    "width": ("WIDTH_EXPONENT", "WIDTH_SD"),
    "length": ("LENGTH_EXPONENT", "LENGTH_SD"),
    "batch": ("BATCH_EXPONENT", "BATCH_SD"),
    "rank": ("RANK_EXPONENT", "RANK_SD"),
    "scale": ("SCALE_EXPONENT", "SCALE_SD"),
}
"""Terms of the fit by the constants of autolora/laws.py that state them."""


SOURCES = {"sweep": "sweep", "paper": "LR-matters", "curves": "own curves"}
HEADER = (
    "| | settings | mean error | sd | inside | regret | by laws.py | at 3e-4 |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


class Verdict(NamedTuple):
    """What a fit without a model says of one of its settings.

    Attributes:
        best: of the setting.
        error, sd: decades that the best lies above what is expected, and how far off it may lie.
        regret, stated, constant: percent lost at the expected rate, at that of autolora/laws.py, and at CONSTANT.
    """

    best: Best
    error: float
    sd: float
    regret: float
    stated: float
    constant: float

    @property
    def inside(self) -> bool:
        return abs(self.error) <= WIDTH_90 * self.sd


def main() -> None:
    bests = tables.load()
    everything = fit(bests)
    verdicts = [verdict for model in tables.models(bests) for verdict in judged(bests, [model])]
    sources = {name: judged(bests, of_source(bests, source)) for source, name in SOURCES.items()}
    without = {f"without {name}": fit(rest) for name, rest in benchmarks(bests)}
    fits = {"all": everything, **without}
    FITTED.write_text(json.dumps({name: plain(found) for name, found in fits.items()}, indent=1) + "\n")
    RESULTS.write_text("\n".join(report(bests, fits, verdicts, sources)) + "\n")
    print(RESULTS.read_text())


def benchmarks(bests: Sequence[Best]) -> Iterable[tuple[str, list[Best]]]:
    """What the problems of studies/search must not have seen: LR-matters' tables, and each table of curves."""
    yield "paper", [best for best in bests if best.source != "paper"]
    for name in tables.models([best for best in bests if best.source == "curves"]):
        yield f"curves/{name}", [best for best in bests if best.model != name]


def of_source(bests: Sequence[Best], source: str) -> list[str]:
    """The models of a source."""
    return tables.models([best for best in bests if best.source == source])


def judged(bests: Sequence[Best], models: Sequence[str]) -> list[Verdict]:
    """The settings of some models, bounds left out, by a fit that saw none of them."""
    fitted = fit([best for best in bests if best.model not in models])
    found = []
    for best in bests:
        if best.model in models and best.kind == "exact":
            log_rate = predicted(fitted, best)
            found.append(
                Verdict(
                    best,
                    best.log_rate - log_rate,
                    spread(fitted, best),
                    best.regret(log_rate),
                    best.regret(stated(best)),
                    best.regret(CONSTANT),
                )
            )
    return found


def stated(best: Best) -> float:
    """log10 of the learning rate that autolora/laws.py expects to be best at a setting."""
    return Prior.from_laws(best.width, best.examples).belief(best.traits, best.config).mean


def plain(found: Fitted) -> dict[str, dict[str, float]]:
    """As JSON has it, to four digits."""
    return {
        "means": {name: round(value, 4) for name, value in found.means.items()},
        "sds": {name: round(value, 4) for name, value in found.sds.items()},
    }


def report(
    bests: Sequence[Best],
    fits: Mapping[str, Fitted],
    verdicts: Sequence[Verdict],
    sources: Mapping[str, Sequence[Verdict]],
) -> list[str]:
    """The lines of results.md."""
    lines = ["# Results", "", "Written by `python -m studies.laws.fit`. Decades, except for regrets.", ""]
    lines += ["## The fit", "", *_terms(fits), ""]
    counts = {kind: sum(best.kind == kind for best in bests) for kind in ("exact", "at least", "at most")}
    lines += [
        f"{len(bests)} settings of {len(tables.models(bests))} models and tasks: {counts['exact']} bests, "
        f"{counts['at least']} lower and {counts['at most']} upper bounds.",
        "",
        "## Each model left out",
        "",
        "Error: the best less what is expected, by a fit to all other models. Inside: share in the 90% interval. "
        "Regret at the expected rate, at that of laws.py, which has seen the tables, and at 3e-4 for everything, "
        "in percent of the best score.",
        "",
        *HEADER,
    ]
    for source, title in SOURCES.items():
        of = [verdict for verdict in verdicts if verdict.best.source == source]
        lines.append(_row(f"**{title}**", of))
        lines += [_row(model, [each for each in of if each.best.model == model]) for model in _models(of)]
    lines += ["", "## Each source left out", "", "The same by a fit to the other sources.", "", *HEADER]
    lines += [_row(title, of) for title, of in sources.items()]
    return lines


def _terms(fits: Mapping[str, Fitted]) -> list[str]:
    names = list(fits)
    lines = ["| | belief | laws.py | " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) + 2)]
    for term in fits["all"].means:
        believed = f"{BELIEFS[term][0]:.2f} ± {BELIEFS[term][1]:.2f}" if term in BELIEFS else ""
        own = [f"{found.means[term]:.2f} ± {found.sds[term]:.2f}" for found in fits.values()]
        lines.append(f"| {term} | {believed} | {_stated(term)} | " + " | ".join(own) + " |")
    between = [f"{found.between_models:.2f}" for found in fits.values()]
    lines.append(f"| sd of a new model | | {laws.MODEL_AND_TASK_SD:.2f} | " + " | ".join(between) + " |")
    return lines


def _stated(term: str) -> str:
    if term not in LAWS:
        return ""
    mean, sd = LAWS[term]
    value = f"{getattr(laws, mean):.2f}"
    return value if sd is None else f"{value} ± {getattr(laws, sd):.2f}"


def _models(verdicts: Sequence[Verdict]) -> list[str]:
    return tables.models([verdict.best for verdict in verdicts])


def _row(name: str, of: Sequence[Verdict]) -> str:
    def mean(value: Callable[[Verdict], float]) -> float:
        return fmean(map(value, of))

    sd = f"{stdev(verdict.error for verdict in of):.2f}" if len(of) > 1 else ""
    return (
        f"| {name} | {len(of)} | {mean(lambda each: each.error):+.2f} | {sd} | "
        f"{mean(lambda each: each.inside):.0%} | {mean(lambda each: each.regret):.2f} | "
        f"{mean(lambda each: each.stated):.2f} | {mean(lambda each: each.constant):.2f} |"
    )


if __name__ == "__main__":
    main()
