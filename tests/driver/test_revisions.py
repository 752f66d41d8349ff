"""A study that an earlier version began, of a variant that is trained in another way since."""

from __future__ import annotations

import dataclasses
import shutil
import warnings

import pytest

import autolora
from autolora import spec as specs
from autolora.driver.result import TuneResult
from autolora.search.search import RevisionError
from autolora.study.directory import STUDY_NAME
from autolora.study.study import Study
from autolora.variants import get, registry
from tests.support.simulation import SPACE
from tests.support.specs import SMALL_SPEC

PAST = ["lora", "pissa"]


def tune(folder, budget=1):
    return autolora.tune(spec=specs.load({**SMALL_SPEC, "variants": PAST, "budget": budget}), dir=folder)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The result of a study that an earlier version has brought to its end."""
    return tune(tmp_path_factory.mktemp("begun"))


@pytest.fixture
def terms(tmp_path):
    return {"variants": PAST, "space": SPACE, "budget": 2, "storage": f"sqlite:///{tmp_path}/study.db"}


@pytest.fixture
def raise_revision(monkeypatch):
    def run(*names):
        for name in names:
            monkeypatch.setitem(registry._variants, name, dataclasses.replace(get(name), revision=2))

    return run


def begin(terms):
    """A search that ends with a trial of each variant handed out and lost."""
    search = autolora.Search(**terms)
    assert {search.ask().variant for _ in PAST} == set(PAST)
    search.close()


def jobs(search):
    while (job := search.ask()) is not None:
        search.tell(job, float(job.trial))
        yield job


def test_the_others_go_on_and_what_it_had_stays(begun, tmp_path, raise_revision):
    folder = tmp_path / "run"
    shutil.copytree(begun.folder, folder)
    adapter = (folder / "best" / "pissa" / "adapter_model.safetensors").read_bytes()
    raise_revision("pissa")
    with pytest.warns(UserWarning, match=r"holds trials of pissa by an earlier version.*Tune pissa in a new directory"):
        result = tune(folder, budget=2)
    assert set(result) == set(result.spent) == set(PAST)
    assert result.spent["pissa"] == begun.spent["pissa"]
    assert result["pissa"].value == TuneResult.load(folder)["pissa"].value == begun["pissa"].value
    assert (folder / "best" / "pissa" / "adapter_model.safetensors").read_bytes() == adapter
    trials = [
        trial.params["variant"]
        for trial in Study.read(f"sqlite:///{folder}/study.db", STUDY_NAME).optuna_study.get_trials()
    ]
    assert trials.count("pissa") == 1
    assert trials.count("lora") > 1


def test_of_the_same_revision_nothing_is_said(begun, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(begun.folder, folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*by an earlier version")
        tune(folder)


def test_a_search_hands_out_no_trial_of_it_also_none_that_was_lost(terms, raise_revision):
    begin(terms)
    raise_revision("pissa")
    search = autolora.Search(**terms)
    assert search.outdated == ("pissa",)
    assert {job.variant for job in jobs(search)} == {"lora"}


def test_trials_of_a_raised_revision_are_continued_by_it(terms, raise_revision):
    raise_revision("pissa")
    begin(terms)
    search = autolora.Search(**terms)
    assert search.outdated == ()
    assert {job.variant for job in jobs(search)} == set(PAST)


def test_only_a_raised_revision_is_recorded(terms, raise_revision):
    raise_revision("pissa")
    begin(terms)
    trials = Study.read(terms["storage"], STUDY_NAME).optuna_study.get_trials()
    assert {trial.params["variant"]: trial.user_attrs.get("revision") for trial in trials} == {"lora": None, "pissa": 2}


def test_where_none_is_left_the_search_is_refused(terms, raise_revision):
    begin(terms)
    raise_revision(*PAST)
    with pytest.raises(RevisionError, match=r"lora and pissa in another way.*new directory"):
        autolora.Search(**terms)
