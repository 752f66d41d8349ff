"""Metrics: weighted by tokens, generated greedily, the user's own, never replaced."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

from autolora.metrics import MetricError, MetricSpec, find
from autolora.scores import Scores
from autolora.search import Job
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.evaluation import Evaluator


def score(bench, split=None) -> float:
    with bench.attached("lora", Config(1e-3, 8, 4, 4.0), 0) as adapted:
        return bench.evaluator.scores(adapted, split or bench.data.eval).value


def rows_one_by_one(bench):
    for row in range(len(bench.data.eval)):
        batch = bench.data.eval.batch([row], bench.base.pad_token_id)
        with torch.no_grad():
            logits = bench.base.model(batch["input_ids"]).logits[0, :-1]
        labels = batch["labels"][0, 1:]
        yield logits[labels != -100], labels[labels != -100]


def test_eval_loss_is_the_mean_over_all_target_tokens_not_over_batches(make_bench):
    bench = make_bench()
    rows = list(rows_one_by_one(bench))
    logits, labels = torch.cat([row for row, _ in rows]), torch.cat([row for _, row in rows])
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert score(bench) == pytest.approx(float(losses.mean()), rel=1e-5)


def test_eval_loss_tells_what_each_row_contributes_in_the_order_of_the_rows(make_bench):
    bench = make_bench()
    with bench.attached("lora", Config(1e-3, 8, 4, 4.0), 0) as adapted:
        scores = bench.evaluator.scores(adapted, bench.data.eval)
    rows = list(rows_one_by_one(bench))
    expected = [torch.nn.functional.cross_entropy(*row, reduction="sum").item() for row in rows]
    assert scores.totals == pytest.approx(expected, rel=1e-5)
    assert scores.weights.tolist() == [len(labels) for _, labels in rows]


def test_token_accuracy_counts_completion_tokens_only(make_bench):
    bench = make_bench(metric="token_accuracy")
    right = torch.cat([logits.argmax(-1) == labels for logits, labels in rows_one_by_one(bench)])
    assert score(bench) == pytest.approx(float(right.float().mean()))


def test_exact_match_equals_generating_row_by_row(make_bench, monkeypatch):
    """References are replaced by what the model says to every second prompt, so the score must be near a half."""
    bench = make_bench(metric={"name": "exact_match", "max_new_tokens": 12}, **{"data.eval_size": 8})
    expected = 0
    for row, content in enumerate(bench.data.eval.rows):
        prompt = torch.from_numpy(bench.data.eval.prompt_tokens(row)).long()[None]
        generated = bench.base.model.generate(prompt, max_new_tokens=12, do_sample=False)
        answer = bench.base.tokenizer.decode(generated[0, prompt.shape[1] :], skip_special_tokens=True)
        if row % 2 == 0:
            monkeypatch.setitem(content, "completion", f" {answer}\n")
            expected += 1
    assert score(bench) == expected / 8


def test_exact_match_on_plain_text_is_an_error_before_training(make_bench, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(f'{{"text": "Anna has {i} apples."}}' for i in range(40)))
    with pytest.raises(MetricError, match=r"exact_match needs prompts.*rows of the eval split have none.*plain text"):
        make_bench(metric="exact_match", data={"train": str(text), "eval_size": 4}, **{"training.examples": 8})


def test_exact_match_needs_prompts_in_the_test_split_too(make_bench, tmp_path):
    rows = [{"prompt": f"p{i}", "completion": "c"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test.jsonl").write_text('{"text": "no prompt here"}')
    data = {"train": str(tmp_path / "rows.jsonl"), "test": str(tmp_path / "test.jsonl"), "eval_size": 4}
    with pytest.raises(MetricError, match="rows of the test split have none"):
        make_bench(metric="exact_match", data=data, **{"training.examples": 8})


@pytest.fixture
def own_metrics(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text(
        "def rows(model, tokenizer, rows):\n    return len(rows)\n"
        "def nan(model, tokenizer, rows):\n    return float('nan')\n"
        "def each(model, tokenizer, rows):\n    import numpy\n    return numpy.arange(len(rows))\n"
        "def some(model, tokenizer, rows):\n    return [1.0, 0.0]\n"
        "def nothing(model, tokenizer, rows):\n    pass\n"
        "def tested(model, tokenizer, rows):\n"
        "    return [float(eval(row['tests'][0], {'x': int(row['completion'])})) for row in rows]\n"
    )
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_metrics", None)


@pytest.mark.usefixtures("own_metrics")
def test_the_users_metric_sees_the_rows(make_bench):
    bench = make_bench(metric={"name": "own_metrics:rows", "direction": "maximize"})
    assert score(bench) == 24


@pytest.mark.usefixtures("own_metrics")
@pytest.mark.parametrize("source", ["eval", "train"])
def test_the_users_metric_sees_all_columns_of_the_rows_also_when_tokens_are_kept(make_bench, tmp_path, source):
    rows = [
        {"question": f"{i} + 1?", "answer": f"{i + 1}", "tests": [f"x == {i + 1}"], "completion": i} for i in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = {"train": str(path), "prompt": "question", "completion": "answer", "eval_size": 5}
    if source == "eval":  # the same rows in another order
        rows.reverse()
        for place, row in enumerate(rows):
            row["completion"] = place
        other = tmp_path / "other.jsonl"
        other.write_text("\n".join(map(json.dumps, rows)))
        data |= {"eval": str(other)}
    for _ in range(2):  # tokenized, and found again
        bench = make_bench(data=data, metric={"name": "own_metrics:tested", "direction": "maximize"})
        assert score(bench) == 1.0
        for row in bench.data.eval.rows:
            found = rows[row.columns["completion"]]
            assert row.columns == found
            assert (row["tests"], row["question"], row["completion"]) == (
                found["tests"],
                found["question"],
                found["answer"],
            )
    plain = make_bench(data=data)
    assert all(set(row) == {"prompt", "completion"} for row in plain.data.eval.rows)


@pytest.mark.usefixtures("own_metrics")
def test_the_users_metric_may_give_a_number_for_each_row(make_bench):
    bench = make_bench(metric={"name": "own_metrics:each", "direction": "maximize"})
    with bench.attached("lora", Config(1e-3, 8, 4, 4.0), 0) as adapted:
        scores = bench.evaluator.scores(adapted, bench.data.eval)
    assert scores.value == 11.5
    assert scores.contributions().tolist() == list(range(24))


@pytest.mark.usefixtures("own_metrics")
def test_the_users_metric_may_not_leave_rows_out(make_bench):
    bench = make_bench(metric={"name": "own_metrics:some", "direction": "maximize"})
    with pytest.raises(MetricError, match="2 numbers for 24 rows"):
        score(bench)


@pytest.mark.usefixtures("own_metrics")
def test_the_users_metric_must_return_a_number(make_bench):
    bench = make_bench(metric={"name": "own_metrics:nothing", "direction": "maximize"})
    with pytest.raises(MetricError, match="returned None; it must return a number"):
        score(bench)


@pytest.mark.usefixtures("own_metrics")
def test_a_metric_of_the_users_that_is_not_finite_ends_the_trial_as_diverged(make_bench):
    bench = make_bench(metric={"name": "own_metrics:nan", "direction": "maximize"})
    outcome = segment.run(bench, Job(0, "lora", Config(1e-3, 8, 4, 4.0), seed=0, start=0.0, stop=1 / 9, rung=0))
    assert outcome.kind == "diverged"
    assert "evaluation metric became nan" in outcome.reason


@pytest.mark.usefixtures("own_metrics")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent:f", r"No module named 'absent' \(looked in .* and the installed packages\)$"),
        ("own_metrics:absent", "the module 'own_metrics' has no 'absent'$"),
        ("broken_metrics:f", r"importing broken_metrics failed \(ZeroDivisionError.*\)$"),
        ("ending_metrics:f", r"importing ending_metrics failed \(SystemExit\(1\)\)$"),
    ],
)
def test_a_metric_that_is_not_there_is_named(tmp_path, name, message):
    (tmp_path / "broken_metrics.py").write_text("1 / 0\n")
    (tmp_path / "ending_metrics.py").write_text("raise SystemExit(1)\n")
    message = f"^metric '{name}': {message}"
    with pytest.raises(MetricError, match=message):
        find(MetricSpec(name=name, direction="maximize"))


def test_a_loss_that_is_not_finite_is_divergence_not_a_score(make_bench, monkeypatch):
    bench = make_bench()
    monkeypatch.setattr(Evaluator, "scores", lambda *_: Scores(math.nan))
    outcome = segment.run(bench, Job(0, "lora", Config(1e-3, 8, 4, 4.0), seed=0, start=0.0, stop=1 / 9, rung=0))
    assert outcome.kind == "diverged"
    assert "evaluation metric became nan" in outcome.reason
