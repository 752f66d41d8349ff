"""On how many rows each rung is scored: a function of token counts; the rows are nested and the same for all trials."""

from __future__ import annotations

import numpy as np
import pytest

from autolora.search import Job
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.evaluation import Evaluator
from autolora.trainers.builtin.subsets import FEWEST, FORWARD, GENERATED, SHARE, chosen, rows_of_rungs, share_of_run

RUNGS = (1 / 9, 1 / 3, 1.0)
DEAR, CHEAP = SHARE, SHARE / len(RUNGS)
CONFIG = Config(2e-3, 8, 4, 4.0)


def piece(rung: int, trial: int = 0, config: Config = CONFIG, seed: int = 0) -> Job:
    return Job(trial, "lora", config, seed=seed, start=0.0, stop=RUNGS[rung], rung=rung)


@pytest.mark.parametrize(
    ("rows", "share", "expected"),
    [
        (256, CHEAP, (256, 256, 256)),
        (256, CHEAP * 1.01, (FEWEST, 85, 256)),
        (9000, DEAR, (1000, 3000, 9000)),
        (FEWEST + 1, DEAR, (FEWEST, FEWEST, FEWEST + 1)),
        (FEWEST, DEAR, (FEWEST, FEWEST, FEWEST)),
        (3, DEAR, (3, 3, 3)),
    ],
)
def test_rows_grow_with_the_run_where_evaluating_all_costs_too_much(rows, share, expected):
    assert rows_of_rungs("auto", RUNGS, rows, share) == expected


def test_that_all_rungs_are_evaluated_is_what_counts():
    assert rows_of_rungs("auto", (0.5, 1.0), 256, SHARE / 2) == (256, 256)
    assert rows_of_rungs("auto", (0.2, 0.5, 1.0), 256, SHARE / 2) == (FEWEST, 128, 256)
    assert rows_of_rungs("auto", (1.0,), 256, 1.0) == (256,)


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        (False, (256, 256, 256)),
        (1, (1, 1, 256)),
        (100, (100, 100, 256)),
        (1000, (256, 256, 256)),
        ((10, 20), (10, 20, 256)),
        ([10, 1000], (10, 256, 256)),
    ],
)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_the_user_says_holds_whatever_it_costs(subset, expected, share):
    assert rows_of_rungs(subset, RUNGS, 256, share) == expected


def test_costs_are_counted_in_tokens_of_training():
    assert share_of_run(evaluated=1000, generated=0, trained=10_000) == pytest.approx(FORWARD / 10)
    assert share_of_run(evaluated=1000, generated=100, trained=10_000) == pytest.approx((FORWARD + GENERATED / 10) / 10)


@pytest.mark.parametrize("rows", [1, 65, 1000])
def test_chosen_rows_are_nested_in_order_and_without_repetition(rows):
    before: set[int] = set()
    for count in range(1, rows + 1, max(1, rows // 7)):
        found = chosen(np.random.default_rng(3), count, rows)
        assert len(found) == count == len(set(found.tolist()))
        assert (np.diff(found) > 0).all()
        assert before <= set(found.tolist()) <= set(range(rows))
        before = set(found.tolist())


def test_a_part_of_a_split_has_the_tokens_and_texts_of_its_rows(make_bench):
    whole = make_bench().data.eval
    part = whole.of([5, 2, 23])
    for place, row in enumerate((5, 2, 23)):
        assert part.prompt_tokens(place).tolist() == whole.prompt_tokens(row).tolist()
        assert part.answer_tokens(place).tolist() == whole.answer_tokens(row).tolist()
    assert part.rows == [whole.rows[row] for row in (5, 2, 23)]
    assert part.indices.tolist() == whole.indices[[5, 2, 23]].tolist()
    assert part.lengths.tolist() == whole.lengths[[5, 2, 23]].tolist()
    assert make_bench().data.train.of([1, 0]).rows == []


@pytest.fixture
def scored(monkeypatch):
    """Places in the table of the rows that each evaluation saw."""
    seen: list[list[int]] = []
    scores = Evaluator.scores

    def watched(self, adapted, split):
        assert split.indices.tolist() == sorted(split.indices.tolist())
        seen.append(split.indices.tolist())
        return scores(self, adapted, split)

    monkeypatch.setattr(Evaluator, "scores", watched)
    return seen


def test_every_trial_is_scored_on_the_same_nested_rows_and_on_all_at_full_length(make_bench, scored):
    for trial, config in enumerate([CONFIG, CONFIG.replaced(batch_size=4, learning_rate=1e-4)]):
        bench = make_bench(**{"evaluation.subset": (5, 9)})  # as another process opens it
        for rung in range(3):
            segment.run(bench, piece(rung, trial, config, seed=trial))
    first, second, last = scored[:3]
    assert scored[3:] == [first, second, last]
    assert (len(first), len(second)) == (5, 9)
    assert set(first) < set(second) < set(last)
    assert last == bench.data.eval.indices.tolist()


def test_another_seed_of_the_study_has_other_rows(make_bench, scored):
    for seed in (0, 1):
        bench = make_bench(seed=seed, data={"train": "builtin:quickstart/train.jsonl", "eval_size": 24})
        bench.scored_rows = (5, 9, 24)
        segment.run(bench, piece(0, trial=seed))
    assert scored[0] != scored[1]


def test_the_score_of_a_rung_is_that_of_its_rows(make_bench):
    bench = make_bench(**{"evaluation.subset": 6})
    rows = bench.evaluated(piece(0))
    whole = make_bench(bench.checkpoints / "whole", **{"evaluation.subset": False})
    assert bench.evaluated(piece(2)) is bench.data.eval
    assert whole.evaluated(piece(0)) is whole.data.eval
    with bench.attached("lora", CONFIG, 0) as adapted:
        scores = bench.evaluator.scores(adapted, bench.data.eval)
        found = bench.evaluator.scores(adapted, rows)
    places = [bench.data.eval.indices.tolist().index(index) for index in rows.indices]
    assert found.totals == pytest.approx(scores.totals[places], rel=1e-5)
    assert found.weights.tolist() == scores.weights[places].tolist()


def test_a_run_that_is_cut_at_rungs_of_fewer_rows_equals_the_uncut_one_bit_for_bit(make_bench, tmp_path):
    cut = make_bench(tmp_path / "cut", **{"evaluation.subset": 6})
    whole = make_bench(tmp_path / "whole", **{"evaluation.subset": False})
    outcomes = [segment.run(cut, piece(rung)) for rung in range(3)]
    assert outcomes[2].rows == segment.run(whole, piece(2)).rows
    assert outcomes[2].value == segment.run(whole, piece(2)).value
    assert segment.run(cut, piece(2)).value == outcomes[2].value  # from the manifest


def test_studies_without_fewer_rows_keep_the_identity_of_their_checkpoints(make_bench, tmp_path):
    benches = [
        make_bench(tmp_path / str(number), **{"evaluation.subset": subset})
        for number, subset in enumerate([False, "auto", 24, 6, (6, 9)])
    ]
    assert len({bench.identity for bench in benches[:3]}) == 1
    assert len({bench.identity for bench in benches}) == 3
    assert "rows" not in benches[0].fingerprints()
    assert benches[4].fingerprints()["rows"] == "6, 9, 24"


def test_rows_for_each_rung_are_said(make_trainer):
    few = make_trainer(**{"evaluation.subset": (6, 9)})
    assert few.about()["evaluation"] == ["rungs 1/9 and 1/3 are scored on 6 and 9 of 24 evaluation rows"]
    assert make_trainer(**{"evaluation.subset": 24}).about()["evaluation"] == []


def test_answers_that_are_generated_make_evaluation_dearer(make_bench):
    """As long as the longest reference, at most as many tokens as the metric generates."""
    assert make_bench().evaluator.generated_tokens(make_bench().data.eval) == 0
    short, long = (make_bench(metric={"name": "exact_match", "max_new_tokens": most}) for most in (3, 100))
    longest = max(len(long.evaluator.stops.cut(long.data.eval.answer_tokens(row).tolist())) for row in range(24))
    assert 3 < longest < 100
    assert short.evaluator.generated_tokens(short.data.eval) == 24 * 3
    assert long.evaluator.generated_tokens(long.data.eval) == 24 * longest


def test_by_default_the_shipped_task_is_scored_on_fewer_rows(make_bench):
    data = {"train": "builtin:quickstart/train.jsonl", "eval": "builtin:quickstart/test.jsonl", "eval_size": 256}
    assert make_bench(data=data).scored_rows == (FEWEST, 85, 256)
    assert make_bench(data=data, **{"training.examples": 20_000}).scored_rows == (256, 256, 256)


def test_a_metric_of_the_user_s_sees_the_rows_of_the_rung(make_bench, tmp_path, monkeypatch):
    (tmp_path / "counting_rows.py").write_text("def count(model, tokenizer, rows):\n    return len(rows)\n")
    monkeypatch.syspath_prepend(tmp_path)
    metric = {"name": "counting_rows:count", "direction": "maximize"}
    bench = make_bench(metric=metric, **{"evaluation.subset": (6, 9)})
    assert [segment.run(bench, piece(rung)).value for rung in range(3)] == [6, 9, 24]
