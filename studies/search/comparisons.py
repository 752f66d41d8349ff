"""Tables of differences paired by search: to the peers, of what a part of the search is worth, of wrong priors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from studies.search.measures import GRID, TARGET
from studies.search.methods import OWN, UNINFORMED, in_group
from studies.search.problem import family
from studies.search.rows import Row
from studies.search.summary import (
    Estimate,
    Searches,
    Statistic,
    bootstrapped,
    by_search,
    interquartile_mean,
    mean,
    ratio_of_means,
    regret_at,
    to_target,
)

Measure = Callable[[Row], float]
Form = Callable[[Estimate], str]

ALL = "all"
CONFIRM = "confirm"


def against_own(rows: Sequence[Row]) -> Iterator[str]:
    """Full runs until close that each peer needs more than this project's search, and how many times as many."""
    methods = [name for name in in_group("peers") if name != OWN and any(row.method == name for row in rows)]
    own = [row for row in rows if row.method == OWN]
    families = _families(own, [OWN])
    if not families or not methods:
        return
    yield f"## Against `{OWN}`\n"
    yield (
        f"Full runs until within {TARGET:.0%} of the best, the budget where never: how many more than `{OWN}` a method "
        "needs, and below how many times as many, on the searches that both have. **Bold** where the interval lies on "
        "one side of 0, or of 1.\n"
    )
    yield from _header(families)
    for method in methods:
        cells = []
        for name in families:
            inside, others = (
                [row for row in rows if row.method == each and name in (ALL, family(row.problem))]
                for each in (method, OWN)
            )
            cells.append(_paired(inside, others))
        yield f"| {method} | " + " | ".join(cells) + f" | {len({row.key for row in rows if row.method == method})} |"
    yield ""


def ablations(rows: Sequence[Row]) -> Iterator[str]:
    """Full runs until close, by family, each with its difference to the whole search."""
    methods = [OWN, UNINFORMED, *in_group("ablations")]
    families = _families(rows, methods)
    yield "## What the parts are worth\n"
    yield (
        f"Mean full runs until within {TARGET:.0%} of the best, the budget where never; below, by how many more than "
        f"`{OWN}` on the same searches, **bold** where the interval lies above 0. `{OWN}` has the laws' prior.\n"
    )
    yield from _header(families)
    for method in methods:
        yield from _line(rows, method, OWN, families, to_target, mean, Estimate.plain)
    yield ""


def confirmation(rows: Sequence[Row]) -> Iterator[str]:
    """What is chosen with and without further seeds."""
    families = _families(rows, [CONFIRM])
    if not families:
        return
    yield "## Further seeds of the finalists\n"
    yield (
        "Regret in percent of the configuration that the scores say is best after 12 full runs, mean over searches; "
        f"below, the difference to `{OWN}`, which spends all of them on the search.\n"
    )
    yield from _header(families)
    for method in (OWN, CONFIRM):
        yield from _line(rows, method, OWN, families, _chosen, mean, Estimate.percent)
    yield ""


def given_priors(rows: Sequence[Row]) -> Iterator[str]:
    """Regret after all full runs with priors of known quality, against none."""
    methods = [UNINFORMED, OWN, *in_group("priors")]
    families = _families(rows, methods[2:])
    if not families:
        return
    yield "## Given a right or a wrong prior\n"
    yield (
        f"Differences are to `{UNINFORMED}` on the same searches, **bold** where their interval lies above 0: worse "
        "than without a prior.\n"
    )
    after, regret = GRID[-1], regret_at(GRID[-1])
    tables: list[tuple[str, Measure, Statistic, Form]] = [
        (f"Regret in percent after {after:g} full runs, mean", regret, mean, Estimate.percent),
        ("The same, interquartile mean, of the differences too", regret, interquartile_mean, Estimate.percent),
        (f"Mean full runs until within {TARGET:.0%}", to_target, mean, Estimate.plain),
    ]
    for caption, measure, statistic, form in tables:
        yield f"{caption}:\n"
        yield from _header(families)
        for method in methods:
            yield from _line(rows, method, UNINFORMED, families, measure, statistic, form)
        yield ""


def differences(rows: Sequence[Row], others: Sequence[Row], measure: Measure) -> Searches:
    """A measure less the others', of the searches that both have: the mean over the variants that both have."""
    known = {(row.problem, row.repeat, row.variant): measure(row) for row in others}
    shared = [row for row in rows if (row.problem, row.repeat, row.variant) in known]
    return by_search(shared, lambda row: measure(row) - known[row.problem, row.repeat, row.variant])


def _paired(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """Difference and ratio of full runs until close; a dash where no search is shared."""
    paired = differences(rows, others, to_target)
    if not paired:
        return "-"
    more = bootstrapped(paired, mean)
    times = ratio_of_means(by_search(rows, to_target), by_search(others, to_target))
    sure = more.low > 0 or more.high < 0, times.low > 1 or times.high < 1
    cells = _signed(more.plain()), f"{times.plain()} times"
    return "<br>".join(f"**{cell}**" if certain else cell for cell, certain in zip(cells, sure, strict=True))


def _line(
    rows: Sequence[Row],
    method: str,
    reference: str,
    families: Sequence[str],
    measure: Measure,
    statistic: Statistic,
    form: Form,
) -> Iterator[str]:
    """A row of a table; none of a method that was not run."""
    if not any(row.method == method for row in rows):
        return
    cells = []
    for name in families:
        inside = [row for row in rows if name in (ALL, family(row.problem))]
        own = [row for row in inside if row.method == method]
        cell = form(bootstrapped(by_search(own, measure), statistic)) if own else "-"
        paired = differences(own, [row for row in inside if row.method == reference], measure)
        if paired and method != reference:
            found = bootstrapped(paired, statistic)
            cell += f"<br>{_marked(form(found), found)}"
        cells.append(cell)
    searches = len({row.key for row in rows if row.method == method})
    yield f"| {method} | " + " | ".join(cells) + f" | {searches} |"


def _marked(text: str, found: Estimate) -> str:
    """With the sign of a difference; bold where it is worse for certain."""
    return f"**{_signed(text)}**" if found.low > 0 else _signed(text)


def _signed(text: str) -> str:
    return text if text.startswith("-") else f"+{text}"


def _header(families: Sequence[str]) -> Iterator[str]:
    yield "| | " + " | ".join(families) + " | searches |"
    yield "| --- |" + " --- |" * (len(families) + 1)


def _families(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    """Those that any of the methods was run on, and all together."""
    found = dict.fromkeys(sorted(family(row.problem) for row in rows if row.method in methods))
    return [*found, ALL] if found else []


def _chosen(row: Row) -> float:
    return row.outcome.chosen
