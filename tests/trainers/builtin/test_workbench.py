"""Where a workbench keeps the checkpoints of its trials."""

from __future__ import annotations

from functools import partial

import pytest

from autolora import bases
from autolora.adapters.store import Store
from autolora.driver.plan import dry_run
from autolora.trainers import checkpoint
from autolora.trainers.builtin import workbench
from autolora.trainers.builtin.workbench import Workbench
from autolora.trainers.places import CheckpointError, place
from tests.support.specs import small_spec


@pytest.fixture
def url(tmp_path):
    url = f"memory://{tmp_path.name}"
    yield url
    place(url).remove("")


def test_checkpoints_are_in_the_run_directory_unless_the_specification_says_where(base, monkeypatch, tmp_path, url):
    monkeypatch.setattr(bases, "load", lambda _: base)
    assert Workbench.open(small_spec(), tmp_path).trial_folder(3) == tmp_path / "trials" / "3"
    assert Workbench.open(small_spec(checkpoints=url), tmp_path).trial_folder(3) == f"{url}/trials/3"


def test_a_url_that_nothing_serves_is_refused_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(bases, "load", lambda _: pytest.fail("loaded"))
    with pytest.raises(CheckpointError, match="Protocol not known"):
        Workbench.open(small_spec(checkpoints="nope://bucket"), tmp_path)


def test_a_dry_run_leaves_nothing_in_the_place_of_the_checkpoints(tmp_path, url):
    assert dry_run(small_spec(checkpoints=url, prior=None), tmp_path).disk_bytes > 0
    assert checkpoint.newest(f"{url}/trials/0") is None
    assert place(url).names() == []


def test_a_dry_run_counts_the_factorizations_that_a_study_keeps(tmp_path, monkeypatch):
    spec = small_spec(prior=None, variants=["pissa"])
    without = dry_run(spec, tmp_path).disk_bytes
    monkeypatch.setattr(workbench, "Store", partial(Store, least=0))
    with_factors = dry_run(spec, tmp_path).disk_bytes
    matrices = [p for p in bases.load(spec).model.model.layers.parameters() if p.dim() == 2]
    factors = sum(4 * min(p.shape) * (sum(p.shape) + 1) for p in matrices)  # all triplets of narrow matrices
    assert with_factors - without == pytest.approx(factors, rel=0.05)
    assert list(tmp_path.glob("**/*.safetensors")) == []


def test_a_length_that_was_found_counts_as_if_it_had_been_asked_for(make_bench):
    found = make_bench(**{"training.max_length": "auto"})
    length = found.training.max_length
    asked = make_bench(**{"training.max_length": length})
    assert (found.identity, found.fingerprints()) == (asked.identity, asked.fingerprints())
    assert make_bench(**{"training.max_length": length + 8}).identity != found.identity


def test_the_plan_says_the_length_and_the_model(tmp_path):
    notes = dry_run(small_spec(prior=None, **{"training.max_length": "auto"}), tmp_path).notes
    assert any(note.startswith("data: max_length: ") for note in notes)
    assert any(note.startswith("model: ") for note in notes)


def test_warnings_have_lines_of_their_own(make_trainer):
    trainer = make_trainer(**{"training.max_length": 40})
    assert any("are cut off at max_length 40" in line for line in trainer.about()["warning"])
