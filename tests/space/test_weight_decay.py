"""Weight decay as a searched dimension: the optimizer of a trial, its study, and the Optuna sampler."""

from __future__ import annotations

import json

import optuna
import pytest

import autolora
from autolora import variants
from autolora.integrations.optuna import LoraSampler
from autolora.search import Job
from autolora.space import Config, Range, Space
from autolora.spec import SpecError
from autolora.study.directory import read_study
from autolora.trainers.builtin import segment
from tests.support.specs import SMALL_SPEC, small_spec

DECAYS = [0, 0.1]


def test_the_optimizer_of_a_trial_decays_by_its_own_value(make_bench, monkeypatch):
    bench, seen = make_bench(), []
    plain = type(variants.get("lora")).optimizer

    def watched(self, model, learning_rate, weight_decay=0.0):
        seen.append(weight_decay)
        return plain(self, model, learning_rate, weight_decay)

    monkeypatch.setattr(type(variants.get("lora")), "optimizer", watched)
    for trial, decay in enumerate(DECAYS):
        config = Config(1e-3, 4, 2, 4.0).replaced(weight_decay=float(decay))
        segment.run(bench, Job(trial=trial, variant="lora", config=config, seed=0, start=0.0, stop=1 / 9, rung=0))
    assert seen == DECAYS


def test_a_study_records_continues_and_reports_it(tmp_path):
    spec = {**SMALL_SPEC, "space": {**SMALL_SPEC["space"], "weight_decay": DECAYS}, "confirm": 0, "prior": "laws"}
    autolora.tune(spec={**spec, "budget": 1}, dir=tmp_path)
    result = autolora.tune(spec={**spec, "budget": 2}, dir=tmp_path)
    table, _ = read_study(tmp_path)
    assert {trial.config.weight_decay for trial in table.trials} <= {0.0, 0.1}
    recorded = json.loads((tmp_path / "best.json").read_text())["variants"]["lora"]["config"]
    assert recorded["weight_decay"] == result["lora"].config.weight_decay
    assert autolora.TuneResult.load(tmp_path)["lora"].config == result["lora"].config


def test_a_range_is_linear_unless_it_is_said_to_be_logarithmic():
    assert Space(weight_decay={"low": 0, "high": 0.1}).weight_decay == Range(low=0, high=0.1, log=False)
    logarithmic = {"low": 1e-4, "high": 0.1, "log": True}
    assert Space(weight_decay=logarithmic).weight_decay == Range(low=1e-4, high=0.1)
    assert Space(weight_decay=(0, 0.1)).weight_decay == Range(low=0, high=0.1, log=False)


def test_a_sampler_of_optuna_searches_it_on_the_user_s_scale():
    study = optuna.create_study(sampler=LoraSampler(seed=1))

    def objective(trial: optuna.Trial) -> float:
        decay = trial.suggest_float("weight_decay", 1e-4, 1e-1, log=True)
        return trial.suggest_float("lr", 1e-5, 1e-1, log=True) + decay

    study.optimize(objective, n_trials=5)
    space = study.sampler._parameters.space(study.trials[0].distributions)  # type: ignore[attr-defined]
    assert space.weight_decay == Range(low=1e-4, high=1e-1)


@pytest.mark.parametrize("wrong", [-0.1, [0, -1], "none", {"low": 0, "high": 0.1, "log": True}])
def test_what_is_no_decay_is_named(wrong):
    with pytest.raises(SpecError, match=r"space\.weight_decay"):
        small_spec(**{"space.weight_decay": wrong})
