"""A study whose short runs are scored on fewer rows: recorded, continued as it began, and ended on all rows."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from rich.console import Console

import autolora
from autolora import files
from autolora import spec as specs
from autolora.driver import plan
from autolora.driver.plan import dry_run
from autolora.report.status import read_status
from autolora.report.tables import plan_view
from autolora.study.directory import SPEC_FILE, read_study
from autolora.trackers.json_lines import JsonLines
from autolora.trainers.builtin import subsets
from autolora.trainers.checkpoint import newest, trial_folder
from tests.driver.test_driver import InterruptOnce
from tests.support.outcome import outcome
from tests.support.specs import SMALL_SPEC

FEWEST = 6
SETTLED = [6, 8]
LINE = "rungs 1/9 and 1/3 are scored on 6 and 8 of 24 evaluation rows"


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch):
    monkeypatch.setattr(subsets, "FEWEST", FEWEST)


def tune(folder, callbacks=(), **overrides):
    given = {**SMALL_SPEC, "variants": ["lora", "pissa"], "confirm": 1, "prior": "laws", **overrides}
    return autolora.tune(spec=specs.load(given), dir=folder, callbacks=callbacks)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The result of such a study; its directory is only looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subsets, "FEWEST", FEWEST)
        return tune(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def later(monkeypatch):
    """A later version, which would score on other rows."""
    monkeypatch.setattr(subsets, "FEWEST", 11)


def recorded(folder) -> dict:
    return yaml.safe_load((folder / SPEC_FILE).read_text(encoding="utf-8"))


def test_the_rows_are_recorded_with_the_study(finished):
    assert recorded(finished.folder)["evaluation"] == {"subset": SETTLED}
    table, _ = read_study(finished.folder)
    assert table.scored_rows == (*SETTLED, 24)


def test_full_runs_are_scored_and_compared_on_all_rows(finished):
    table, _ = read_study(finished.folder)
    full = [trial for trial in table.trials if trial.outcome == "complete"]
    assert {len(trial.rows.totals) for trial in full} == {24}
    assert finished.verdict is not None
    for trial in full:
        assert trial.scores[2] == trial.rows.value


def test_a_study_that_is_cut_goes_on_to_the_same_end_whatever_a_later_version_decides(finished, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, callbacks=[InterruptOnce(at=9)])
    monkeypatch.setattr(subsets, "FEWEST", 11)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, callbacks=[InterruptOnce(at=15)])
    autolora.resume(tmp_path)
    assert outcome(tmp_path) == outcome(finished.folder)


@pytest.mark.usefixtures("later")
def test_a_larger_budget_goes_on_with_the_same_rows(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    autolora.resume(folder, budget=4)
    table, _ = read_study(folder)
    assert table.scored_rows == (*SETTLED, 24)
    assert recorded(folder)["evaluation"] == {"subset": SETTLED}


@pytest.mark.usefixtures("later")
def test_other_rows_are_refused_where_the_record_of_the_specification_is_gone(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    (folder / SPEC_FILE).unlink()
    with pytest.raises(ValueError, match=r"scored_rows: \[6, 8, 24\] -> \[11, 11, 24\]"):
        tune(folder)


@pytest.mark.slow
def test_a_study_of_an_earlier_version_goes_on_with_all_rows(tmp_path):
    begun = tune(tmp_path, budget=2, evaluation={"subset": False})
    content = recorded(begun.folder)
    del content["evaluation"]
    files.write(begun.folder / SPEC_FILE, yaml.safe_dump(content))
    before, _ = read_study(tmp_path)
    assert tune(tmp_path, budget=3).spent["lora"] > 2
    table, _ = read_study(tmp_path)
    assert table.scored_rows == ()
    assert [trial.scores[0] for trial in before.trials if 0 in trial.scores] == [
        table.trials[trial.number].scores[0] for trial in before.trials if 0 in trial.scores
    ]
    assert recorded(tmp_path)["evaluation"] == {"subset": False}


def test_what_costs_little_is_recorded_as_settled_too(tmp_path):
    tune(tmp_path, budget=1, variants=["lora"], confirm=0, data={**SMALL_SPEC["data"], "eval_size": 1})
    assert recorded(tmp_path)["evaluation"] == {"subset": False}


@pytest.mark.parametrize("subset", [False, 5])
def test_what_the_user_says_is_recorded_as_it_was_said(tmp_path, subset):
    tune(tmp_path, budget=1, variants=["lora"], confirm=0, evaluation={"subset": subset})
    assert recorded(tmp_path)["evaluation"] == {"subset": subset}
    table, _ = read_study(tmp_path)
    assert table.scored_rows == ((5, 5, 24) if subset else ())


def test_status_says_on_which_rows_rungs_are_scored(finished):
    assert LINE in read_status(finished.folder).lines


def test_the_rows_are_among_the_first_events(tmp_path):
    tune(tmp_path / "run", callbacks=[JsonLines(tmp_path / "events")], budget=1, variants=["lora"], confirm=0)
    setup = json.loads((tmp_path / "events").read_text().splitlines()[0])
    assert setup["about"]["evaluation"] == [LINE]
    assert setup["spec"]["evaluation"] == {"subset": SETTLED}


def test_the_plan_says_the_rows_and_what_evaluation_takes(tmp_path):
    spec = specs.load({**SMALL_SPEC, "prior": "laws"})
    planned = dry_run(spec, tmp_path)
    assert f"evaluation: {LINE}" in planned.notes
    assert 0 < planned.evaluation_share < 1
    console = Console(width=80)
    with console.capture() as captured:
        console.print(plan_view(planned, spec, tmp_path))
    text = " ".join(captured.get().split())
    assert f"{planned.evaluation_share:.0%} of it evaluation" in text
    assert all(len(line) <= 80 for line in captured.get().splitlines())


def test_the_plan_counts_each_rung_s_evaluation_by_its_rows(tmp_path, monkeypatch):
    """One evaluation on all rows takes a second, and a step of training another."""
    monkeypatch.setattr(plan, "_time", lambda *_: (18.0, 1.0, 0))
    found = dry_run(specs.load({**SMALL_SPEC, "prior": "laws"}), tmp_path)
    assert found.seconds_per_run == pytest.approx(18 + 38 / 24)
    assert found.evaluation_share == pytest.approx(38 / 24 / (18 + 38 / 24))
    whole = dry_run(specs.load({**SMALL_SPEC, "prior": "laws"}, **{"evaluation.subset": False}), tmp_path)
    assert whole.seconds_per_run == pytest.approx(18 + 3)


def test_scores_in_the_checkpoints_are_those_of_the_study(finished):
    table, _ = read_study(finished.folder)
    for trial in table.complete("lora"):
        manifest, _ = newest(trial_folder(finished.folder, trial.number))
        assert manifest.scores == trial.scores
