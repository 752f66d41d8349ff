"""What is reported beside the metric, through whole studies."""

from __future__ import annotations

import json

import pytest

import autolora
from autolora.driver.result import TuneResult
from autolora.study.directory import read_study
from autolora.trainers import Interrupted, checkpoint
from tests.support.commands import TRAINS, command_trainer, job
from tests.support.specs import small_spec
from tests.support.trainer_contract import piece

MEASURED = ("tokens_per_second", "examples_per_second", "train_loss", "trainable_parameters", "adapter_size", "seconds")
STEERING = {"data.eval_size": 8, "training.examples": 24, "budget": 2, "rungs": [1 / 3, 1.0]}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A study without metrics, and the same with them."""
    folder = tmp_path_factory.mktemp("metrics")
    plain = autolora.tune(spec=small_spec(**STEERING), dir=folder / "plain")
    asked = [*MEASURED, "peak_memory", "token_accuracy"]
    return plain, autolora.tune(spec=small_spec(**STEERING, metrics=asked), dir=folder / "asked"), folder


def test_metrics_change_nothing_that_a_study_computes(tuned):
    plain, _, folder = tuned
    tables = [read_study(folder / name)[0] for name in ("plain", "asked")]
    seen = [[(trial.config, trial.scores, trial.outcome) for trial in table.trials] for table in tables]
    assert seen[0] == seen[1]
    complete = tables[0].complete("lora")[0].number
    manifests = [checkpoint.read_manifest(folder / name / f"trials/{complete}") for name in ("plain", "asked")]
    assert manifests[0].study == manifests[1].study
    assert not plain["lora"].metrics
    assert not plain.pareto


def test_they_are_in_the_study_the_result_and_best_json(tuned):
    _, asked, folder = tuned
    assert asked["lora"].metrics.keys() == {*MEASURED, "peak_memory", "token_accuracy"}
    raw = json.loads((folder / "asked" / "best.json").read_text(encoding="utf-8"))
    assert raw["variants"]["lora"]["metrics"] == dict(asked["lora"].metrics)
    assert {name for name, front in raw["pareto"].items() if front} == set(asked["lora"].metrics)
    assert TuneResult.load(folder / "asked").pareto == asked.pareto
    first = read_study(folder / "asked")[0].trials[0]
    assert set(MEASURED) <= first.metrics[0].keys()
    assert "token_accuracy" not in first.metrics[0], "adapters are scored by it where they are trained to the end"


def test_a_metric_that_is_added_to_a_study_is_lacking_before(tuned):
    plain, _, folder = tuned
    with pytest.warns(UserWarning, match=r"metrics: not reported of \d+ full runs so far: seconds by \d"):
        again = autolora.tune(spec=small_spec(**STEERING, metrics="seconds"), dir=folder / "plain")
    assert again["lora"].value == plain["lora"].value
    assert again.pareto == {"seconds": ()}


def test_a_resumed_trial_reports_the_whole_of_it(make_trainer):
    """Seconds and examples of steps that were taken twice count once, whichever segments they were taken in."""
    trainer = make_trainer(rungs=[1 / 3, 1.0], metrics=[*MEASURED])

    def stop(progress):
        if progress.step == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        trainer.run(piece(0, rung=1), stop)
    between = checkpoint.read_manifest(trainer.bench.trial_folder(0))
    outcome = trainer.run(piece(0, rung=1))
    after = checkpoint.read_manifest(trainer.bench.trial_folder(0))
    assert outcome.metrics == after.metrics[1]
    assert outcome.metrics["seconds"] >= between.seconds
    steps = len(after.losses)
    firsts = 2  # segments
    assert after.timing["examples"] + after.timing["first_examples"] == trainer.examples
    assert after.timing["first_examples"] == firsts * 8
    assert steps == 9


def test_what_was_committed_with_a_score_is_reported_without_computing_it_again(make_trainer):
    """As after a crash between the commit and the report."""
    trainer = make_trainer(rungs=[1 / 3, 1.0], metrics="token_accuracy, seconds")
    first = trainer.run(piece(0, rung=1))
    trainer.bench.reporters["token_accuracy"].scores = lambda *_: pytest.fail("scored again")
    assert trainer.run(piece(0, rung=1)).metrics == first.metrics
    assert first.metrics.keys() == {"token_accuracy", "seconds"}


REPORTS = """echo '{{"eval_loss": 2.5, "reward": 3}}' >> "$AUTOLORA_REPORT" """


def test_a_command_reports_what_it_likes_and_is_measured_besides(tmp_path):
    asked = [{"name": "reward", "direction": "maximize"}, "seconds", "peak_memory", "examples_per_second"]
    command = f"{TRAINS.removeprefix('exec ')} --pause 0.02; {REPORTS}"
    trainer = command_trainer(tmp_path, command, metrics=asked)
    outcome = trainer.run(job())
    assert outcome.metrics["reward"] == 3
    assert outcome.metrics["peak_memory"] > 10**6
    assert outcome.metrics["examples_per_second"] > 0


def test_a_file_of_scores_has_metrics_too(tmp_path):
    command = """echo '{{"eval_loss": 2.5, "accuracy": 0.5}}' > {folder}/scores.json"""
    asked = {
        "trainer": {"metric_file": "{folder}/scores.json"},
        "metrics": [{"name": "accuracy", "direction": "maximize"}],
    }
    assert command_trainer(tmp_path, command, **asked).run(job()).metrics == {"accuracy": 0.5}
