"""Every example runs as it is shipped, with a small budget, and does what its header says."""

from __future__ import annotations

import math
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import Trainer, TrainingArguments

from autolora import Config, driver
from autolora import spec as specs
from autolora.integrations.optuna import LoraSampler

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {"variants": ["lora"], "budget": 1, "data.eval_size": 8, "training.examples": 16, "training.device": "cpu"}
MOST_LINES = 59


def run(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def functions(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_an_example_is_short_and_opens_with_its_command(path):
    if path.is_dir():
        pytest.skip("no example")
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    assert text.startswith(("#", '"""'))


@pytest.mark.parametrize("name", ["own_dataset.yaml", "plain_pytorch.yaml", "quickstart.yaml", "ray_cluster.yaml"])
def test_a_specification_is_valid_as_it_is(name):
    assert specs.load(EXAMPLES / name).model == "builtin:quickstart"


def test_own_dataset_names_every_section_of_a_specification():
    given = yaml.safe_load((EXAMPLES / "own_dataset.yaml").read_text())
    cluster = {"storage", "checkpoints", "keep", "resources"}
    internal = {"rungs", "confirm", "prior", "revision", "trust_remote_code"} | cluster
    assert given.keys() == specs.Spec.model_fields.keys() - internal


@pytest.mark.slow
def test_own_dataset_runs(tmp_path):
    spec = specs.load(EXAMPLES / "own_dataset.yaml", **SMALL)
    result = driver.tune(spec=spec, dir=tmp_path)
    assert result["lora"].config == Config(2e-4, 16, 8, 16.0)
    assert math.isfinite(result["lora"].value)


@pytest.mark.slow
def test_own_metric_is_found_in_the_working_directory_and_steers(tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    metric = {"metric.name": "own_metric:right_numbers", "metric.direction": "maximize"}
    spec = specs.load("quickstart.yaml", **SMALL, **metric, **{"data.test": None})
    result = driver.tune(spec=spec, dir=tmp_path)
    assert (result.metric, result.direction) == ("own_metric:right_numbers", "maximize")
    assert 0 <= result["lora"].value <= 1


def tune_here(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, **overrides: Any) -> driver.TuneResult:
    """Tune an example from its own folder, with a budget of two runs of 32 examples."""
    monkeypatch.chdir(EXAMPLES)
    small = {"budget": 2, "confirm": 0, "variants": ["lora"], "training.device": "cpu", "training.examples": 32}
    return driver.tune(spec=specs.load(name, **{**small, **overrides}), dir=folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "needs"),
    [
        ("sft.yaml", "eval_loss", "trl"),
        ("grpo.yaml", "reward", "trl"),
        ("classifier.yaml", "accuracy", "transformers"),
        ("embeddings.yaml", "eval_loss", "sentence_transformers"),
    ],
)
def test_other_people_s_trainers_are_tuned(name, metric, needs, tmp_path, monkeypatch):
    pytest.importorskip(needs)
    rows = {"data.eval_size": 8} if needs == "trl" else {}
    result = tune_here(monkeypatch, tmp_path, name, **rows)
    assert result.metric == metric
    assert math.isfinite(result["lora"].value)
    assert (tmp_path / "best" / "lora" / "adapter_config.json").is_file()


@pytest.mark.slow
def test_dpo_is_tuned_on_pairs_that_a_script_makes(tmp_path, monkeypatch):
    pytest.importorskip("trl")
    pairs = tmp_path / "pairs.jsonl"
    run("preference_pairs.py", str(pairs), monkeypatch=monkeypatch)
    data = {"data.train": str(pairs), "data.eval_size": 8}
    result = tune_here(monkeypatch, tmp_path / "run", "dpo.yaml", **data)
    assert 0 <= result["lora"].value <= 1


def test_a_rejected_answer_has_miscounted_by_one():
    rejected = functions("preference_pairs.py")["rejected"]
    assert rejected("Eva, apples, school +3, 13 left") == "Eva, apples, school +3, 14 left"


def test_a_reward_is_a_half_for_the_question_and_a_half_for_the_number():
    counts = functions("own_reward.py")["counts"]
    texts = ["", "Question: how many? Answer: many", "Question: how many? Answer: There are 16."]
    assert counts(texts) == [0.0, 0.5, 1.0]


def test_own_metric_compares_the_numbers_alone():
    numbers = functions("own_metric.py")["numbers"]
    assert numbers("Ben has 12 apples, 3 left") == numbers("12 ... 3") == ["12", "3"]


def test_plain_pytorch_is_tuned_as_a_command(tmp_path):
    command = f"{sys.executable} {EXAMPLES / 'plain_pytorch.py'}"
    small = {"budget": 1, "rungs": [0.5, 1.0], "trainer.command": command, "trainer.examples": 48}
    result = driver.tune(spec=specs.load(EXAMPLES / "plain_pytorch.yaml", **small), dir=tmp_path)
    assert math.isfinite(result["lora"].value)
    assert (tmp_path / "best" / "lora" / "adapter_config.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchrun_ddp", "torchrun_fsdp2"])
def test_two_processes_train_a_trial(name, tmp_path):
    spec = specs.load(EXAMPLES / f"{name}.yaml")
    line = spec.trainer.command.replace("torchrun", f"{sys.executable} -m torch.distributed.run", 1)
    command = line.replace("examples/", f"{EXAMPLES}/")
    small = {"budget": 1, "rungs": [0.5, 1.0], "trainer.command": command, "trainer.examples": 32}
    result = driver.tune(spec=specs.load(EXAMPLES / f"{name}.yaml", **small), dir=tmp_path)
    assert math.isfinite(result["lora"].value)


@pytest.mark.slow
def test_own_trainer_finds_a_learning_rate_that_learns(monkeypatch, capsys):
    run("own_trainer.py", "4", monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert re.search(r"trial \d+ 0\.33-1\.00", shown)
    assert "after" in shown.splitlines()[-1]


def test_own_trainer_goes_on_where_a_trial_was_paused_and_reports_divergence():
    example = functions("own_trainer.py")
    config = Config(learning_rate=3e-2, batch_size=8, rank=4, alpha=4.0)
    halves, whole = example["Trial"](config, seed=1), example["Trial"](config, seed=1)
    halves.train(0.5)
    assert halves.train(1.0) == whole.train(1.0) < example["LIMIT"] / 10
    search = example["main"](budget=6.0)
    best = search.best()["lora"]
    assert best.value < example["LIMIT"] / 10
    assert search.spent["lora"] <= 6.0
    wild = example["Trial"](Config(3.0, 8, 4, 4.0), seed=1)
    assert wild.train(1 / 9) > example["LIMIT"]


@pytest.mark.slow
def test_python_api_tunes_and_shows_the_result(tmp_path, monkeypatch, capsys):
    run("python_api.py", str(tmp_path / "run"), "2", "24", monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert "learning rate" in shown
    assert (tmp_path / "run" / "best" / "lora" / "adapter_config.json").is_file()


@pytest.mark.slow
def test_optuna_trainer_tunes_and_shows_the_best(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("optuna_trainer.py", "2", monkeypatch=monkeypatch)
    shown = capsys.readouterr().out.splitlines()[-1]
    assert float(shown.split()[0]) < 3
    assert all(name in shown for name in ("'r'", "'lora_alpha'", "'per_device_train_batch_size'", "'learning_rate'"))


@pytest.mark.slow
def test_optuna_trainer_s_rank_and_alpha_reach_the_model_in_hyperparameter_search(tmp_path, monkeypatch):
    example = functions("optuna_trainer.py")
    ranks = []

    def model_init(trial=None):
        model = example["model_init"](trial)
        if trial is not None:
            ranks.append((trial.params["r"], model.peft_config["default"].r))
        return model

    data = list(example["rows"]("train", 16))
    searching = Trainer(
        args=TrainingArguments(str(tmp_path), **example["FIXED"]),
        model_init=model_init,
        train_dataset=data,
        eval_dataset=data,
        data_collator=example["DataCollatorForSeq2Seq"](example["tokenizer"]),
        callbacks=[example["divergence"]],
    )
    sampler = LoraSampler(hidden_size=96, seed=1)
    best = searching.hyperparameter_search(example["hp_space"], n_trials=3, backend="optuna", sampler=sampler)
    assert best.hyperparameters.keys() == {"r", "lora_alpha", "per_device_train_batch_size", "learning_rate"}
    assert len(ranks) == 3
    assert all(suggested == used for suggested, used in ranks)
