"""What is recommended: the best, the smallest rank and the cheapest within noise, and the verdict in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from autolora.analysis.best import best, spare
from autolora.analysis.verdict import Verdict, judge
from autolora.report.recommended import alternatives
from autolora.scores import Scores
from autolora.search.policy import Plan
from autolora.search.trials import Finished, Sampled, Scored, TrialTable
from autolora.space import Config
from autolora.variants.registry import simple

ROWS = 60


class Past:
    """A made-up study: full-length runs of configurations that differ in rank."""

    def __init__(self, direction: str = "minimize") -> None:
        self.table = TrialTable((1.0,), direction)

    def run(
        self, value: float, rank: int = 8, variant: str = "lora", seconds: float = 10.0, seed: int = 0, rows=None
    ) -> Past:
        number = len(self.table.trials)
        config = Config(1e-3, 8, rank, float(rank))
        self.table.apply(Sampled(number, variant, config, seed, "confirm" if seed else "search", 0, ""))
        scores = None if rows is None else Scores.of(value + rows - rows.mean())
        self.table.apply(Scored(number, 0, value, seconds, scores))
        self.table.apply(Finished(number, "complete", "", seconds=seconds))
        return self

    def seeds(self, *values: float, **settings) -> Past:
        for seed, value in enumerate(values):
            self.run(value, seed=seed, **settings)
        return self

    def best(self, variant: str = "lora"):
        return best(self.table, [variant])[variant]

    def spare(self, keep: int, confirm: int = 0) -> list[int]:
        return spare(self.table, Plan(("lora",), (1.0,), 8.0, confirm), keep)

    def judge(self, shortfalls=None) -> Verdict:
        variants = list(dict.fromkeys(trial.variant for trial in self.table.trials))
        return judge(self.table, best(self.table, variants), simple(variants), shortfalls)


def test_the_smallest_rank_within_the_noise_of_seeds_is_named():
    # The spread is 0.0707, so one seed against two is 0.0866 give or take.
    found = Past().seeds(1.0, 1.1, rank=16).run(1.13, rank=4).run(1.14, rank=2).best()
    assert found.config.rank == 16
    assert found.noise == "seeds"
    assert found.smallest.config.rank == 4
    assert found.smallest.difference == pytest.approx(0.08)
    assert found.smallest.seconds == 10.0


def test_smaller_ranks_of_the_space_that_no_full_run_had_are_named():
    past = Past().seeds(1.0, 1.1, rank=16).run(1.13, rank=8).run(9.0, rank=2)
    assert best(past.table, ["lora"], ranks=[32, 16, 8, 4, 2, 1])["lora"].untried_ranks == (1, 4)
    assert past.best().untried_ranks == ()


def test_what_smaller_ranks_would_cost_is_said():
    tuned = dict.fromkeys(("lora", "dora"), best(Past().seeds(1.0, 1.1, rank=16).table, ["lora"], [4, 8, 16])["lora"])
    console = Console(width=200)
    with console.capture() as captured:
        console.print(*alternatives(tuned))
    text = "Ranks 4, 8 were never trained to the end with lora, dora; one more full run each would tell."
    assert text in captured.get()


def test_of_two_configurations_of_the_smallest_rank_the_better_one_is_named():
    past = Past().seeds(1.0, 1.1, rank=16).run(1.1, rank=4)
    past.table.apply(Sampled(3, "lora", Config(2e-3, 8, 4, 4.0), 0, "search", 0, ""))
    past.table.apply(Scored(3, 0, 1.06, 10.0))
    assert past.best().smallest.value == 1.06


def test_the_cheapest_within_noise_must_save_more_than_times_vary_by():
    past = Past().seeds(1.0, 1.1, rank=16).run(1.1, rank=4, seconds=9.7)
    assert past.best().cheapest.config.rank == 16
    assert past.run(1.1, rank=32, seconds=7.0).best().cheapest.config.rank == 32
    assert past.run(1.3, rank=2, seconds=1.0).best().cheapest.seconds == 7.0


def test_configurations_that_differ_in_learning_rate_alone_cost_the_same():
    past = Past().seeds(1.0, 1.1, rank=16)
    past.table.apply(Sampled(2, "lora", Config(2e-3, 8, 16, 16.0), 0, "search", 0, ""))
    past.table.apply(Scored(2, 0, 1.06, 4.0))
    assert past.best().cheapest.config == past.best().config
    assert past.best().run_seconds == 8.0


def test_they_are_the_best_itself_where_nothing_smaller_or_cheaper_does_as_well():
    found = Past().seeds(1.0, 1.1, rank=4).run(1.05, rank=8).best()
    assert found.smallest.config == found.cheapest.config == found.config
    assert found.smallest.difference == 0.0


def test_without_repeats_noise_is_that_of_evaluation_examples():
    rows = np.random.default_rng(0).normal(0, 1, ROWS)
    near, far = rows + np.tile([0.5, -0.5], ROWS // 2), rows
    past = Past().run(1.0, rank=16, rows=rows).run(1.05, rank=4, rows=near).run(1.05, rank=2, rows=far)
    assert past.best().noise == "examples"
    assert past.best().smallest.config.rank == 4  # rank 2 is worse on every single example


def test_with_neither_repeats_nor_examples_noise_is_unknown():
    found = Past().run(1.0, rank=16).run(1.0, rank=4).best()
    assert (found.noise, found.smallest, found.cheapest) == (None, None, None)


def test_accuracies_are_compared_upwards():
    found = Past("maximize").seeds(0.8, 0.7, rank=16).run(0.7, rank=4).run(0.5, rank=2).best()
    assert found.smallest.config.rank == 4
    assert found.smallest.difference == pytest.approx(-0.05)


def test_without_wall_times_none_is_the_cheapest():
    found = Past().seeds(1.0, 1.1, rank=16, seconds=0.0).run(1.0, rank=4, seconds=0.0).best()
    assert found.cheapest is None
    assert found.smallest.config.rank == 4


def test_a_configuration_that_diverged_on_a_seed_is_not_recommended():
    past = Past().seeds(1.0, 1.1, rank=16).run(1.0, rank=4)
    past.table.apply(Sampled(3, "lora", Config(1e-3, 8, 4, 4.0), 1, "confirm", 0, ""))
    past.table.apply(Finished(3, "diverged", "", 0.5))
    assert past.best().smallest.config.rank == 16


def test_examples_that_belong_to_another_score_are_not_used():
    past = Past().run(1.0, rank=16, rows=np.arange(4.0)).run(1.0, rank=4, rows=np.arange(4.0))
    past.table.recall_rows({0: Scores.of([7.0, 8.0])})
    assert past.best().noise is None


def pair(gap: float, direction: str = "minimize") -> Past:
    past = Past(direction).seeds(1.0, 1.1, 1.05).seeds(1.0 + gap, 1.1 + gap, 1.05 + gap, variant="pissa")
    return past.seeds(1.02, 1.12, 1.07, variant="dora")


def test_plain_lora_is_enough_where_nothing_exceeds_noise():
    verdict = pair(-0.01).judge()
    assert verdict.standings == {"pissa": "within noise", "dora": "within noise"}
    assert verdict.text.startswith(
        "plain LoRA is enough here: no variant's difference exceeds what seeds explain "
        "(largest: dora +0.02, 95% interval "
    )
    assert "a gain of up to" in verdict.text
    assert "is not ruled out" in verdict.text


def test_a_better_variant_is_named_with_by_how_much():
    verdict = pair(-0.5).judge()
    assert verdict.standings["pissa"] == "better"
    assert verdict.text.startswith("pissa is better than plain LoRA by 0.5 (95% interval 0.4")
    assert verdict.text.endswith("; no difference beyond what seeds explain: dora.")


def test_a_worse_variant_is_named_and_plain_lora_still_enough():
    verdict = pair(0.5).judge()
    assert verdict.text.startswith("plain LoRA is enough here: no variant is better beyond what seeds explain (")
    assert "; pissa is worse than plain LoRA by 0.5 (95% interval 0.4" in verdict.text


def test_better_and_worse_follow_the_direction():
    assert pair(0.5, "maximize").judge().standings["pissa"] == "better"
    assert pair(-0.5, "maximize").judge().standings["pissa"] == "worse"


def test_one_seed_each_leaves_the_question_open_and_says_what_to_do():
    verdict = Past().run(1.0).run(0.5, variant="pissa").judge()
    assert verdict.standings == {"pissa": "unknown"}
    assert verdict.noise is None
    assert "cannot be told from seed noise" in verdict.text
    assert "budget of 4" in verdict.text
    assert "`confirm`" in verdict.text


def test_examples_are_part_of_the_noise_where_they_are_known():
    rows = np.random.default_rng(1).normal(0, 1, (4, ROWS))
    past = Past()
    for place, variant in enumerate(["lora", "pissa"]):
        for seed in range(2):
            past.run(1.0 - 0.1 * place + 0.001 * seed, variant=variant, seed=seed, rows=rows[2 * place + seed])
    by_seeds = Past().seeds(1.0, 1.001).seeds(0.9, 0.901, variant="pissa").judge()
    assert by_seeds.standings == {"pissa": "better"}
    verdict = past.judge()
    assert verdict.noise == "seeds and examples"
    assert verdict.standings == {"pissa": "within noise"}


def test_a_variant_is_not_called_worse_where_more_search_may_gain_as_much():
    far = {"lora": 0.01, "dora": 0.01, "pissa": 0.4}
    assert pair(0.5).judge({**far, "pissa": 0.01}).standings["pissa"] == "worse"
    verdict = pair(0.5).judge(far)
    assert verdict.standings["pissa"] == "within noise"
    assert verdict.noise == "seeds and tuning"
    assert verdict.text.startswith(
        "plain LoRA is enough here: no variant's difference exceeds what seeds and tuning explain (largest: pissa +0.5"
    )


def test_a_variant_is_not_called_better_where_more_search_may_gain_plain_lora_as_much():
    far = {"lora": 0.4, "dora": 0.01, "pissa": 0.01}
    assert pair(-0.5).judge({**far, "lora": 0.01}).standings["pissa"] == "better"
    assert pair(-0.5).judge(far).standings["pissa"] == "within noise"
    assert pair(0.5, "maximize").judge(far).standings["pissa"] == "within noise"


def test_how_many_seeds_speak_is_said():
    assert pair(-0.5).judge().text.startswith("pissa is better than plain LoRA by 0.5 (95% interval 0.4")
    assert ", from 3 seeds each)" in pair(-0.5).judge().text
    uneven = Past().seeds(1.0, 1.1).seeds(0.5, 0.6, 0.55, variant="pissa").judge()
    assert ", from 2 and 3 seeds)" in uneven.text


def test_alone_a_variant_is_compared_with_nothing():
    assert "nothing to compare" in Past().seeds(1.0, 1.1).judge().text


def test_before_any_full_run_there_is_no_verdict():
    assert Past().judge().reference is None


@pytest.mark.parametrize(
    ("scores", "reference"),
    [
        ({"pissa": 0.5, "lora": 1.0}, "lora"),
        ({"pissa": 0.5, "rslora": 1.0, "lora_plus": 0.9}, "lora_plus"),
        ({"pissa": 0.5, "dora": 0.4}, "dora"),
    ],
)
def test_the_reference_is_plain_lora_or_the_best_of_the_simple_or_the_best(scores, reference):
    past = Past()
    for variant, value in scores.items():
        past.seeds(value, value + 0.1, variant=variant)
    verdict = past.judge()
    assert verdict.reference == reference
    assert set(verdict.differences) == set(scores) - {reference}


def test_a_verdict_is_read_back_as_it_was_written():
    verdict = pair(-0.5).judge({"lora": 0.1, "dora": 0.01, "pissa": 0.01})
    assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))) == verdict


def test_weights_stay_of_what_is_best_by_its_mean_though_newer_first_seeds_are_better():
    past = Past().seeds(1.0, 1.0, rank=16).run(0.95, rank=1).run(0.96, rank=2).run(0.97, rank=4).run(0.98, rank=8)
    past.run(1.1, rank=1, seed=1)
    assert past.best().config.rank == 16
    assert past.spare(keep=2) == [4, 5]


def test_weights_stay_of_what_becomes_best_where_better_ones_turn_out_unstable():
    past = Past().run(0.9, rank=1).run(0.91, rank=2).run(0.92, rank=4).run(0.93, rank=8).run(0.94, rank=16)
    assert past.spare(keep=0, confirm=2) == [4]
    assert past.spare(keep=5) == []
