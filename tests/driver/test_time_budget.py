"""Whole studies with a time budget. The clock goes on by a second at each optimizer step: no time is measured."""

from __future__ import annotations

import json

import pytest

import autolora
from autolora.driver import tuning
from autolora.driver.clock import Clock
from autolora.driver.plan import dry_run
from autolora.driver.result import TuneResult
from autolora.study.directory import read_study
from tests.support.commands import TRAINS, command_spec
from tests.support.specs import small_spec

TERMS = {"rungs": [1 / 3, 1.0], "data.eval_size": 8, "space.batch_size": [8], "prior": "laws"}
"""A full run has nine steps, three of them to the first rung."""


class Steps(autolora.Callback):
    """The clock.

    Args:
        jump: (steps, seconds): how many steps in, the clock jumps by how much.
    """

    def __init__(self, jump: tuple[int, float] = (0, 0.0)) -> None:
        self.seconds, self.steps, self.jump = 0.0, 0, jump

    def on_step(self, progress) -> None:
        self.steps += 1
        self.seconds += 1.0
        if self.steps == self.jump[0]:
            self.seconds += self.jump[1]


@pytest.fixture
def tune(monkeypatch, tmp_path):
    """``tune(limit, jump=..., **terms)`` in the test's folder; the result and the clock."""

    def run(limit, jump=(0, 0.0), spec=small_spec, folder="run", executor="inline", **terms):
        steps = Steps(jump)
        made = lambda folder, limit, began: Clock(folder, limit, now=lambda: steps.seconds)  # noqa: E731
        monkeypatch.setattr(tuning, "Clock", made)
        asked = {**TERMS, **terms} if spec is small_spec else terms
        if limit is not None:
            asked["time_budget"] = limit
        result = autolora.tune(spec=spec(**asked), dir=tmp_path / folder, callbacks=[steps], executor=executor)
        return result, steps

    return run


def trials(tmp_path, folder="run"):
    return read_study(tmp_path / folder)[0].trials


def test_a_study_ends_in_time_and_goes_on_with_more(tune, tmp_path):
    result, steps = tune(40, budget=20)
    assert 20 < steps.steps <= 40
    assert "time_budget, 40 s, ended the search" in result.ended
    assert result["lora"].adapter_dir
    assert json.loads((tmp_path / "run" / "best.json").read_text(encoding="utf-8"))["ended"] == result.ended
    before = len(trials(tmp_path))
    again, further = tune(80, budget=20)
    assert 20 < further.steps <= 80 - steps.steps, "what earlier starts took counts"
    assert len(trials(tmp_path)) > before
    assert again["lora"].value <= result["lora"].value


def test_a_limit_that_does_not_bind_changes_nothing(tune, tmp_path):
    limited, _ = tune(10_000, budget=3)
    tune(None, budget=3, folder="free")
    assert limited.ended == ""
    seen = [[(each.config, each.scores, each.reason) for each in trials(tmp_path, name)] for name in ("run", "free")]
    assert seen[0] == seen[1]
    assert not (tmp_path / "free" / "time.json").exists()


def test_a_segment_that_is_late_is_checkpointed_and_goes_on_later(tune, tmp_path):
    """Its score is then that of a trial that nothing has disturbed."""
    first, _ = tune(100, jump=(14, 1000.0), budget=6)
    assert "ended the search" in first.ended
    late = [trial for trial in trials(tmp_path) if trial.pending]
    assert len(late) == 1
    assert list((tmp_path / "run" / "trials" / str(late[0].number)).iterdir())
    tune(10_000, budget=6)
    tune(None, budget=6, folder="free")
    ends = [trials(tmp_path, folder)[late[0].number] for folder in ("run", "free")]
    assert ends[0].config == ends[1].config
    assert ends[0].scores == ends[1].scores


def test_without_a_full_run_the_best_partial_one_is_named_as_such(tune, tmp_path):
    with pytest.warns(UserWarning, match="not even one full run fits"):
        result, _ = tune(10, budget=6)
    found = result["lora"]
    assert found.fraction == pytest.approx(1 / 3)
    assert found.adapter_dir == ""
    assert "not a tuned result" in found.notes[0]
    assert found.value == min(trial.scores[0] for trial in trials(tmp_path) if trial.scores)
    assert result.verdict.reference is None
    assert TuneResult.load(tmp_path / "run")["lora"].fraction == found.fraction


def test_a_test_without_time_is_left_out_and_made_up_for(tune, tmp_path):
    split = {"data.test": "builtin:quickstart/test.jsonl"}
    result, _ = tune(60, jump=(25, 1000.0), budget=6, **split)
    assert result["lora"].test is None
    assert "the test score is missing, as time_budget left no time for it" in result["lora"].notes[-1]
    assert autolora.finish(tmp_path / "run")["lora"].test is not None


def test_time_that_is_used_up_concludes_at_once(tune, tmp_path):
    tune(40, budget=20)
    before = [trial.scores for trial in trials(tmp_path)]
    again, steps = tune(20, budget=20)
    assert steps.steps == 0
    assert [trial.scores for trial in trials(tmp_path)] == before
    assert again["lora"].adapter_dir


def test_a_command_is_interrupted_in_time(tune, tmp_path):
    command = f"{TRAINS} --pause 0.05"
    _, steps = tune(200, jump=(12, 1000.0), spec=lambda **terms: command_spec(command, **terms), budget=6)
    assert steps.steps < 20
    late = [trial for trial in trials(tmp_path) if trial.pending]
    assert len(late) == 1


@pytest.mark.slow
def test_on_ray_what_runs_is_interrupted_in_time(tune, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    result, _ = tune(500, jump=(12, 1000.0), executor="ray", budget=20, **{"resources.workers": 2})
    assert "ended the search" in result.ended
    assert len([trial for trial in trials(tmp_path) if trial.pending]) <= 2
    again, _ = tune(2000, folder="run", budget=4)
    assert again["lora"].adapter_dir


@pytest.mark.parametrize(("limit", "said"), [("30s", "ends the study first"), ("2d", "is enough")])
def test_a_dry_run_says_which_limit_binds(tmp_path, limit, said):
    plan = dry_run(small_spec(time_budget=limit, budget=1000, **TERMS), tmp_path / "run")
    if limit == "2d":
        plan = dry_run(small_spec(time_budget=limit, budget=2, **TERMS), tmp_path / "run")
    assert said in plan.time
