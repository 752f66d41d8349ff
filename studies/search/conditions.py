"""What a reader of a table must know of its problems: what of this project's search was fitted on them; their noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from studies.search import problems
from studies.search.measures import TARGET
from studies.search.problem import Problem, family, within_noise

LR_MATTERS = (
    "the laws (two of the 23 models and tasks of their fit; not so in the row with unseen laws), the shifts of DoRA, "
    "PiSSA, MiLoRA and Init[AB], the surrogate's `SHAPE` and the spread of levels between variants come from these "
    "tables"
)

FITTED_ON: Mapping[str, str] = {
    "curves": "the laws (four of the 23 models and tasks of their fit; not so in the row with unseen laws) and, from "
    "the first two models, the shifts of most variants beyond LR-matters' five, how far short runs lie off "
    "(`SHORT_RUN_SD`), the opening, and that what a choice costs has no bound; the later two were only looked at",
    "paper": LR_MATTERS,
    "paper-wide": LR_MATTERS,
    "edge": "nothing; but the surface was written with the form that the surrogate assumes (plateau, decline, cliff), "
    "and with exponents and shifts near those of the laws",
    "hartmann": "nothing",
}
"""By family: which numbers in autolora/laws.py, the variants' traits and autolora/search came from its data."""


def fitted_on(name: str) -> str:
    """What of the search was fitted on the data of a problem or family.

    Raises:
        KeyError: a new family has to say it.
    """
    try:
        return FITTED_ON[family(name)]
    except KeyError:
        raise KeyError(f"{name}: say in FITTED_ON what of the search was fitted on its data") from None


def noise(problem: Problem) -> tuple[float, float]:
    """The least and the largest regret that one standard deviation over seeds amounts to, among the variants."""
    found = [within_noise(problem, variant) for variant in problem.variants]
    return min(found), max(found)


def footnotes(names: Sequence[str], paper: Path | None) -> Iterator[str]:
    """Lines under a table of these problems.

    Args:
        names: of problems.
        paper: the paper's tables, without which the noise of their problems is not known here.
    """
    families = list(dict.fromkeys(family(name) for name in sorted(names)))
    by_statement: dict[str, list[str]] = {}
    for each in families:
        by_statement.setdefault(fitted_on(each), []).append(f"`{each}/`")
    stated = "; ".join(f"{', '.join(each)}: {statement}" for statement, each in by_statement.items())
    yield f"Fitted on the same data: {stated}.\n"
    known = set(problems.names(paper))
    cells = [_noise(problems.get(name, paper)) if name in known else f"{name} ?" for name in sorted(names)]
    yield (
        f"Seed noise, one standard deviation of a full run in percent of the best (range over variants; **bold**: the "
        f"target of {TARGET:.0%} is narrower than the noise, so that one score does not tell what is within it): "
        f"{', '.join(cells)}.\n"
    )


def _noise(problem: Problem) -> str:
    low, high = (f"{100 * value:.2g}" for value in noise(problem))
    text = f"{problem.name} {low}" + (f" to {high}" if high != low else "")
    return f"**{text}**" if noise(problem)[1] > TARGET else text
