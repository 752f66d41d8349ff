"""Where a workbench keeps the checkpoints of its trials."""

from __future__ import annotations

import pytest

from autolora import bases
from autolora.driver.plan import dry_run
from autolora.trainers import checkpoint
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
