"""What a script in Python gets from ``autolora.current_trial()``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import autolora
from autolora import quickstart
from autolora.trainers.command import current
from autolora.trainers.command.errors import CommandError, NoTrialError
from autolora.trainers.command.process import REPORT, TRIAL
from autolora.trainers.trial import Trial
from tests.support.commands import CONFIG, SCORES, command_spec, command_trainer, job

SPACE = {"rank": [2, 4], "dropout": [0, 0.1], "options": {"lora_plus.ratio": [4, 16]}}


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A trial as its command finds it, and the trainer that runs it."""
    settings = {"variants": ["lora_plus"], "space": SPACE, "model": "builtin:quickstart", "prior": "laws"}
    trainer = command_trainer(tmp_path, "cp $AUTOLORA_TRIAL {folder}/told.json; exit 1", **settings)
    segment = job(3, rung=1, variant="lora_plus", config=CONFIG.replaced(dropout=0.1, options={"ratio": 16}), seed=1)
    with pytest.raises(CommandError, match="exit code 1"):
        trainer.run(segment)
    monkeypatch.setenv(TRIAL, str(trainer.work(3) / "told.json"))
    monkeypatch.setenv(REPORT, str(tmp_path / "report.jsonl"))
    return trainer, segment


def test_it_has_all_that_a_function_that_makes_a_trainer_is_given(begun):
    trainer, segment = begun
    ours = Trial.of(trainer.spec, segment, trainer.work(3), 72)
    trial = autolora.current_trial()
    names = ("number", "variant", "seed", "folder", "start", "stop", "rung", "examples", "steps", "stop_examples")
    assert [getattr(trial, name) for name in names] == [getattr(ours, name) for name in names]
    assert dict(trial.config) == dict(ours.config)
    assert trial.config.ratio == 16
    assert trial.dropout == 0.1
    assert trial.own_variant == ours.own_variant


def test_it_attaches_the_variant_to_the_model_of_the_specification(begun):
    trial = autolora.current_trial()
    model, tokenizer = trial.base()
    adapted = trial.attach(model)
    assert adapted.peft_config["default"].r == 4
    assert len({group["lr"] for group in trial.optimizer(adapted).param_groups}) == 2  # of LoRA+
    assert tokenizer.eos_token


def test_reports_are_whole_lines_of_plain_numbers(begun, tmp_path):
    trial = autolora.current_trial()
    trial.report(step=np.int64(10), loss=torch.tensor(2.5), examples=80)
    trial.report(eval_loss=np.float32(0.5))
    trial.report(loss=float("nan"))
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert lines[:2] == [{"step": 10, "loss": 2.5, "examples": 80}, {"eval_loss": 0.5}]
    assert lines[2]["loss"] != lines[2]["loss"]
    for wrong in ("high", None, [1]):
        with pytest.raises((TypeError, ValueError)):
            trial.report(loss=wrong)


def test_reports_of_many_processes_do_not_mix(begun, tmp_path):
    program = "import autolora\ntrial = autolora.current_trial()\nfor n in range(200): trial.report(step=n, loss=1.0)"
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [each.wait() for each in running] == [0, 0, 0]
    lines = (tmp_path / "report.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 600


def test_outside_of_a_trial_it_says_what_it_is_for(monkeypatch):
    monkeypatch.delenv(TRIAL, raising=False)
    with pytest.raises(NoTrialError, match=r"AUTOLORA_TRIAL is not set.*trainer: \{command: python train\.py"):
        autolora.current_trial()


def test_a_trial_that_is_gone_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(TRIAL, str(tmp_path / "trial.json"))
    with pytest.raises(NoTrialError, match=r"trial\.json, which cannot be read"):
        autolora.current_trial()


def test_secrets_and_data_are_not_told(tmp_path):
    settings = {"storage": "postgresql+psycopg://me:hunter2@host/db", "data": "builtin:quickstart/train.jsonl"}
    trainer = command_trainer(tmp_path, **settings)
    trial = Trial.of(trainer.spec, job(), trainer.work(0), 72)
    told = json.dumps(current.told(trial, trainer.spec, job(), "study"))
    assert "hunter2" not in told
    assert "train.jsonl" not in told


def test_a_model_object_is_refused(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(quickstart.resolve("builtin:quickstart"))
    with pytest.raises(CommandError, match="cannot be given to a command"):
        command_trainer(tmp_path, model=model)


def test_a_script_trains_with_it_to_the_end(tmp_path):
    script = tmp_path / "it's a script.py"
    script.write_text(
        "import autolora\n"
        "trial = autolora.current_trial()\n"
        "trial.report(examples=trial.stop_examples, loss=trial.config.learning_rate)\n"
        "(trial.folder / 'adapter' / 'deep').mkdir(parents=True, exist_ok=True)\n"
        "(trial.folder / 'adapter' / 'deep' / 'weights').write_text(str(trial.config.rank))\n"
        "(trial.folder / 'optimizer').write_text('large')\n"
        "trial.report(eval_loss=abs(trial.config.rank - 4) + 0.5)\n"
    )
    spec = command_spec(f'{sys.executable} "{script.name}"', trainer={"cwd": str(tmp_path)}, budget=1)
    result = autolora.tune(spec=spec, dir=tmp_path / "run")
    best = Path(result["lora"].adapter_dir)
    assert sorted(path.relative_to(best).as_posix() for path in best.rglob("*") if path.is_file()) == [
        "autolora.yaml",
        "deep/weights",
    ]
    assert (best / "deep" / "weights").read_text() == str(result["lora"].config.rank)


@pytest.mark.parametrize("damage", [None, "changed", "gone", "added"])
def test_an_export_with_subfolders_stands_for_a_checkpoint_that_is_gone(tmp_path, damage):
    command = f"mkdir -p {{folder}}/deep; echo weights > {{folder}}/deep/weights; {SCORES}"
    spec = command_spec(command, budget=1, trainer={"early_stop": False})
    autolora.tune(spec=spec, dir=tmp_path)
    shutil.rmtree(tmp_path / "trials")
    deep = tmp_path / "best" / "lora" / "deep"
    if damage == "changed":
        (deep / "weights").write_text("others")
    elif damage == "gone":
        (deep / "weights").unlink()
    elif damage == "added":
        (deep / "more").write_text("more")
    result = autolora.finish(tmp_path)
    assert bool(result["lora"].adapter_dir) == (damage is None)
