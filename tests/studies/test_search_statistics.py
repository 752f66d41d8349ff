"""The statistics of the benchmark: every search weighs the same, and every table says how its problems are known."""

from __future__ import annotations

import numpy as np
import pytest

from autolora.space import Config
from studies.search import problems
from studies.search.comparisons import against_own
from studies.search.conditions import fitted_on, footnotes, noise
from studies.search.measures import GRID, Outcome
from studies.search.methods import OWN
from studies.search.problem import draw, family
from studies.search.report import FAMILIES
from studies.search.rows import Row
from studies.search.summary import bootstrapped, by_search, mean, mean_ranks, quantile, ratio_of_means, to_target


def _row(method: str, repeat: int, value: float, name: str = "edge/a", variant: str = "lora") -> Row:
    return Row(name, method, repeat, 0, variant, Outcome((value,) * len(GRID), value, value, value, 12.0), 0.0)


def _one_and_many(method: str, one: float, many: float, repeat: int = 0) -> list[Row]:
    """A search of one variant and a search of four."""
    rest = [_row(method, repeat, many, "edge/b", variant) for variant in ("lora", "dora", "pissa", "milora")]
    return [_row(method, repeat, one), *rest]


def test_a_search_weighs_the_same_however_many_variants_it_has() -> None:
    rows = _one_and_many("a", 2.0, 10.0)
    assert by_search(rows, to_target) == {"edge/a": {0: 2.0}, "edge/b": {0: 10.0}}
    assert bootstrapped(by_search(rows, to_target), mean).value == 6.0
    assert quantile(rows, to_target, 0.5) == 2.0
    assert quantile(rows, to_target, 0.51) == 10.0
    both = [*rows, *_one_and_many("b", 3.0, 9.0)]
    assert mean_ranks(both, to_target) == {"a": 1.5, "b": 1.5}


def test_intervals_are_over_the_searches_of_each_problem() -> None:
    same = {"edge/a": dict.fromkeys(range(5), 1.0), "edge/b": dict.fromkeys(range(5), 9.0)}
    assert tuple(bootstrapped(same, mean)) == (5.0, 5.0, 5.0)
    differing = {"edge/a": {repeat: float(repeat) for repeat in range(10)}}
    found = bootstrapped(differing, mean)
    assert found.low < found.value == 4.5 < found.high


def test_ratios_are_of_shared_searches_and_drawn_in_pairs() -> None:
    values = {repeat: 1.0 + repeat for repeat in range(10)}
    twice = {"edge/a": {repeat: 2 * value for repeat, value in values.items()}, "edge/b": {0: 50.0}}
    assert tuple(ratio_of_means(twice, {"edge/a": values})) == pytest.approx((2.0, 2.0, 2.0))


def test_peers_are_compared_with_this_projects_search_by_family_on_shared_searches() -> None:
    rows = [row for repeat in range(5) for row in _one_and_many(OWN, 2.0, 4.0, repeat)]
    rows += [_row("random", repeat, 6.0) for repeat in range(3)]
    rows += [_row(OWN, 0, 1.0, "hartmann/3-good")]
    head, line = (line for line in against_own(rows) if line.startswith(("| | ", "| random")))
    assert [cell.strip() for cell in head.split("|")[2:-1]] == ["edge", "hartmann", "all", "searches"]
    cell = "**+4.00 (4.00 to 4.00)**<br>**3.00 (3.00 to 3.00) times**"
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [cell, "-", cell, "3"]


def test_every_problem_says_what_was_fitted_on_its_data() -> None:
    assert all(fitted_on(name) for name in (*problems.OWN, *FAMILIES))
    with pytest.raises(KeyError, match="FITTED_ON"):
        fitted_on("new/problem")


def test_footnotes_mark_targets_that_are_narrower_than_the_noise() -> None:
    names = ["curves/quickstart", "curves/stories260k", "paper/Qwen3-0.6B-math-r8"]
    fitted, noises = footnotes(names, None)
    assert fitted_on(family(names[0])) in fitted
    assert fitted_on(family(names[2])) in fitted
    assert "**curves/quickstart 4.7**" in noises
    assert "**curves/stories260k" not in noises
    assert "paper/Qwen3-0.6B-math-r8 ?" in noises
    assert np.allclose(noise(problems.get("edge/unbiased", None)), 0.003)


def test_noise_does_not_depend_on_digits_that_processors_compute_differently() -> None:
    one, same = (Config(rate, 64, 32, 32.0) for rate in (0.0019877371285528644, 0.001987737128552791))
    other = Config(0.00198775, 64, 32, 32.0)
    assert draw(5, "lora", one, 0.1) == draw(5, "lora", same, 0.1)
    assert draw(5, "lora", one, 0.1) != draw(5, "lora", other, 0.1)
    assert draw(5, "lora", one, 0.1) != draw(6, "lora", one, 0.1)
