"""``~`` is the home in every path that a user gives."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import autolora
from autolora import files, quickstart, recipes
from autolora import spec as specs
from autolora.cli import cli
from autolora.driver.result import ResultError, TuneResult
from autolora.study.storage import resolved
from autolora.trackers.json_lines import JsonLines
from autolora.trainers.checkpoint import root_of
from tests.support.specs import SMALL_SPEC


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_an_unknown_user_has_no_home():
    assert files.expanded("~nobody_of_that_name/x") == Path("~nobody_of_that_name/x")


def test_a_model_and_a_specification(home):
    shutil.copytree(quickstart.resolve("builtin:quickstart"), home / "model")
    (home / "study.yaml").write_text("model: ~/model\ndata: owner/set\n", encoding="utf-8")
    assert specs.load("~/study.yaml").model == str(home / "model")
    assert specs.load(model=Path("~/model"), data="owner/set").model == str(home / "model")
    with pytest.raises(
        specs.SpecError, match=rf"no such model directory: {home}/modle \(did you mean {home}/model\?\)"
    ):
        specs.load(model="~/modle", data="owner/set")


def test_a_storage_and_checkpoints(home):
    assert resolved("sqlite:///~/study.db").database == f"{home}/study.db"
    assert resolved("postgresql+psycopg://host/~name").database == "~name"
    assert root_of("~/checkpoints", Path("run")) == home / "checkpoints"


def test_events_and_results(home):
    assert JsonLines("~/events.jsonl").path == home / "events.jsonl"
    with pytest.raises(ResultError, match=f"{home}/run/best.json is not there"):
        TuneResult.load("~/run")


def test_a_study_from_python(home):
    shutil.copy(quickstart.resolve("builtin:quickstart/train.jsonl"), home / "train.jsonl")
    settings = {key: value for key, value in SMALL_SPEC.items() if key not in ("data", "budget", "training")}
    settings |= {"budget": 1, "training": {"examples": 8, "device": "cpu"}, "prior": None}
    data = {"train": Path("~/train.jsonl"), "eval_size": 4}
    result = autolora.tune(data=data, dir="~/run", storage="sqlite:///~/study.db", **settings)
    assert (result.folder, (home / "study.db").is_file()) == (home / "run", True)
    assert result.training["max_length"] == TuneResult.load("~/run").training["max_length"]
    recorded = yaml.safe_load((home / "run" / "spec.yaml").read_text(encoding="utf-8"))
    assert (recorded["training"]["max_length"], recorded["data"]["eval"]) == ("auto", "auto")
    assert recipes.write("~/run", "lora", "trl", "~/out") == [home / "out" / "train.py"]
    outcome = CliRunner().invoke(cli, ["status", "~/run"])
    assert outcome.exit_code == 0, outcome.output
    assert not os.path.exists("~")
