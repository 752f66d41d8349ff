"""The Pareto front of the score with what was reported beside it, on tables written by hand."""

from __future__ import annotations

from autolora.analysis.pareto import pareto, pareto_as_dict, pareto_from_dict
from autolora.search.trials import Finished, Sampled, Scored, TrialTable
from autolora.space import Config


def config(number: int) -> Config:
    return Config(10.0 ** -(number + 2), 8, 4, 8.0)


def table(*runs: tuple[str, int, int, float, dict[str, float]], direction: str = "minimize") -> TrialTable:
    """Full runs of (variant, configuration, seed, score, what was reported)."""
    made = TrialTable((1.0,), direction)
    for number, (variant, which, seed, score, metrics) in enumerate(runs):
        purpose = "search" if seed == 0 else "confirm"
        made.apply(Sampled(number, variant, config(which), seed, purpose, 0, ""))
        made.apply(Scored(number, 0, score, metrics=metrics))
        made.apply(Finished(number, "complete", ""))
    return made


def front(found, name: str) -> list[tuple[str, float, float]]:
    return [(point.variant, point.value, point.reported) for point in found[name]]


def test_what_is_worse_in_both_is_left_out_over_all_variants():
    runs = table(("lora", 0, 0, 1.0, {"s": 9.0}), ("lora", 1, 0, 1.1, {"s": 9.5}), ("pissa", 2, 0, 1.2, {"s": 5.0}))
    assert front(pareto(runs, ["lora", "pissa"], {"s": "minimize"}), "s") == [("lora", 1.0, 9.0), ("pissa", 1.2, 5.0)]
    assert front(pareto(runs, ["lora", "pissa"], {"s": "maximize"}), "s") == [("lora", 1.0, 9.0), ("lora", 1.1, 9.5)]


def test_scores_that_are_maximized_come_with_the_highest_first():
    runs = table(("lora", 0, 0, 0.5, {"s": 1.0}), ("lora", 1, 0, 0.9, {"s": 2.0}), direction="maximize")
    assert [value for _, value, _ in front(pareto(runs, ["lora"], {"s": "minimize"}), "s")] == [0.9, 0.5]


def test_finalists_count_by_their_means():
    runs = table(("lora", 0, 0, 1.0, {"s": 4.0}), ("lora", 0, 1, 2.0, {"s": 6.0}))
    [point] = pareto(runs, ["lora"], {"s": "minimize"})["s"]
    assert (point.value, point.reported, point.seeds) == (1.5, 5.0, 2)


def test_a_single_seed_is_not_believed_to_beat_the_confirmed():
    """It was chosen for its score. What is better in the other metric stays."""
    confirmed = (("lora", 0, 0, 1.0, {"s": 5.0}), ("lora", 0, 1, 1.2, {"s": 5.0}))
    slower, faster = ("lora", 1, 0, 1.05, {"s": 6.0}), ("lora", 2, 0, 1.08, {"s": 4.0})
    found = pareto(table(*confirmed, slower), ["lora"], {"s": "minimize"})
    assert front(found, "s") == [("lora", 1.1, 5.0)]
    found = pareto(table(*confirmed, faster), ["lora"], {"s": "minimize"})
    assert front(found, "s") == [("lora", 1.08, 4.0)]


def test_runs_that_do_not_tell_are_left_out():
    """As those from before the metric was asked for."""
    runs = table(("lora", 0, 0, 1.0, {}), ("lora", 1, 0, 2.0, {"s": 3.0}))
    found = pareto(runs, ["lora"], {"s": "minimize", "t": "minimize"})
    assert front(found, "s") == [("lora", 2.0, 3.0)]
    assert found["t"] == ()


def test_it_comes_back_from_plain_data():
    found = pareto(table(("lora", 0, 0, 1.0, {"s": 9.0})), ["lora"], {"s": "minimize"})
    assert pareto_from_dict(pareto_as_dict(found)) == found
