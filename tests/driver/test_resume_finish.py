"""`resume` goes on from what a run directory records, `finish` ends a study with what has been trained."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM

import autolora
from autolora import quickstart
from autolora.driver.records import RecordError
from autolora.driver.result import TuneResult
from autolora.report.status import read_best
from autolora.study.directory import NoStudyError, read_study
from tests.driver.test_lost_results import DATA, StopAfter, adapter, same, tune
from tests.support.outcome import outcome
from tests.support.specs import SMALL_SPEC

BASELINE = {"learning_rate": 1e-3, "rank": 4, "alpha": 4}


class StopAtOnce(autolora.Callback):
    """Stops the study as Ctrl-C does, once it has a score."""

    def on_segment_end(self, search, job, outcome) -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> TuneResult:
    return tune(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The directory of a study that was stopped; plain LoRA has one full run."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(KeyboardInterrupt):
        tune(folder, callbacks=[StopAfter(1)])
    return folder


@pytest.fixture
def folder(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "run")


def test_a_study_is_resumed_from_another_folder_by_its_directory_alone(folder, undisturbed, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    autolora.resume("../run")
    assert outcome(folder) == outcome(undisturbed.folder)


@pytest.mark.slow
def test_a_study_is_resumed_with_a_larger_budget(folder, undisturbed):
    result = autolora.resume(folder, budget=6)
    assert result.spent["lora"] > undisturbed.spent["lora"]
    assert "budget: 6.0" in (folder / "spec.yaml").read_text()


def test_a_study_is_finished_with_what_it_has_and_goes_on_afterwards(folder, undisturbed):
    before, _ = read_study(folder)
    result = autolora.finish(folder)
    assert adapter(result)
    table, _ = read_study(folder)
    assert len(table.trials) == len(before.trials), "nothing is trained"
    assert set(result) == {name for name in ("lora", "pissa") if table.complete(name)}
    assert TuneResult.load(folder)["lora"] == result["lora"]
    ended = autolora.resume(folder)
    assert outcome(folder) == outcome(undisturbed.folder)
    assert same(adapter(ended), adapter(undisturbed))


def test_a_study_without_a_full_run_is_finished_without_a_variant(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, callbacks=[StopAtOnce()])
    assert dict(autolora.finish(tmp_path)) == {}


@pytest.mark.parametrize("call", [autolora.resume, autolora.finish])
def test_a_folder_without_a_study_is_refused(call, tmp_path):
    with pytest.raises(NoStudyError, match="is not a run directory"):
        call(tmp_path)


def test_a_study_that_has_not_begun_cannot_be_finished(tmp_path):
    missing = {**SMALL_SPEC, "data": DATA, "space": {"batch_size": [640]}}
    with pytest.raises(autolora.SpecError, match="batch_size"):
        autolora.tune(spec=missing, dir=tmp_path)
    with pytest.raises(NoStudyError, match="holds no study yet"):
        autolora.finish(tmp_path)


def test_trials_whose_last_batch_an_earlier_version_filled_up_are_spoken_of(tmp_path):
    spec = {**SMALL_SPEC, "space": {"batch_size": [7], "rank": 4}, "budget": 1, "baseline": BASELINE}
    autolora.tune(spec=spec, dir=tmp_path)
    (manifest,) = tmp_path.glob("trials/0/*/manifest.json")
    content = json.loads(manifest.read_text())
    assert content["examples"] == 72
    with warnings.catch_warnings(record=True) as said:
        autolora.resume(tmp_path)
    assert not any("earlier version" in str(each.message) for each in said)
    manifest.write_text(json.dumps({**content, "examples": 77}))
    with pytest.warns(UserWarning, match="full runs of up to 77 examples in place of 72"):
        autolora.resume(tmp_path)


def test_a_result_is_said_to_be_older_than_the_study_once_that_has_gone_on(folder):
    autolora.finish(folder)
    assert read_best(folder).note is None
    with pytest.raises(KeyboardInterrupt):
        autolora.resume(folder, callbacks=[StopAtOnce()])
    assert "the study has gone on" in read_best(folder).note


def test_a_study_of_an_earlier_version_with_batches_larger_than_a_run_goes_on(tmp_path, monkeypatch):
    from autolora.driver import opening

    with monkeypatch.context() as earlier:
        earlier.setattr(opening, "fitting_space", lambda space, examples: space)
        autolora.tune(spec={**SMALL_SPEC, "space": {**SMALL_SPEC["space"], "batch_size": [640]}}, dir=tmp_path)
    assert autolora.finish(tmp_path)["lora"].adapter_dir
    assert autolora.resume(tmp_path)["lora"].adapter_dir


def test_objects_are_given_again(tmp_path):
    rows = Dataset.from_list([{"prompt": f"{n}+1=", "completion": f"{n + 1}"} for n in range(40)])
    model = AutoModelForCausalLM.from_pretrained(quickstart.resolve("builtin:quickstart"))
    terms = {**SMALL_SPEC, "budget": 1, "training": {**SMALL_SPEC["training"], "examples": 16}}
    data = {"train": rows, "eval_size": 8}
    first = autolora.tune(spec={**terms, "data": data, "model": model}, dir=tmp_path)
    with pytest.raises(RecordError, match=r"autolora\.finish take model= and data="):
        autolora.finish(tmp_path)
    for again in (
        autolora.finish(tmp_path, model=model, data=rows),
        autolora.resume(tmp_path, model=model, data=data),
    ):
        assert again["lora"].seeds == first["lora"].seeds
