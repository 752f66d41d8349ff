"""A study whose database is gone or damaged: what is refused, what is said, and that the study can be had again."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sqlite3
import subprocess
import warnings
from pathlib import Path

import optuna
import pytest

import autolora
from autolora.study.integrity import DamagedStudyError
from autolora.trainers import Outcome
from autolora.trainers.builtin.trainer import BuiltinTrainer
from tests.support.outcome import outcome
from tests.support.specs import small_spec

SPEC = {"variants": ["lora", "dora"], "budget": 3, "confirm": 1, "prior": "laws"}


def tune(folder: Path):
    return autolora.tune(spec=small_spec(**SPEC), dir=folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    tune(folder)
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def without_commands(folder: Path, message: str) -> None:
    """Run the commands that a message gives."""
    for line in message.splitlines():
        if line.startswith("  "):
            subprocess.run(shlex.split(line), check=True, cwd=folder)


def garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(2000, len(content), 997):
        content[place] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.slow
def test_a_finished_study_whose_database_is_gone_is_decided_again_with_the_same_end(finished, run):
    (run / "study.db").unlink()
    with pytest.warns(UserWarning, match=r"study\.db is gone.*decided again"):
        tune(run)
    assert outcome(run) == outcome(finished)


@pytest.mark.slow
def test_scores_that_are_there_are_not_trained_again(run, monkeypatch):
    (run / "study.db").unlink()
    kept = {int(folder.name) for folder in (run / "trials").iterdir() if any(folder.glob("step-*"))}
    trained: list[int] = []
    own = BuiltinTrainer.run

    def watched(self, segment, on_step=None) -> Outcome:
        steps: list[object] = []
        found = own(self, segment, lambda progress: (steps.append(progress), on_step and on_step(progress))[1])
        if steps:
            trained.append(segment.trial)
        return found

    monkeypatch.setattr(BuiltinTrainer, "run", watched)
    with pytest.warns(UserWarning, match="decided again"):
        tune(run)
    assert not kept & set(trained)


def test_a_half_done_study_whose_database_is_gone_ends_as_an_undisturbed_one(finished, tmp_path, monkeypatch):
    own, left = BuiltinTrainer.run, [4]

    def stopping(self, segment, on_step=None) -> Outcome:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return own(self, segment, on_step)

    with monkeypatch.context() as patched:
        patched.setattr(BuiltinTrainer, "run", stopping)
        with pytest.raises(KeyboardInterrupt):
            tune(tmp_path)
    (tmp_path / "study.db").unlink()
    with pytest.warns(UserWarning, match="decided again"):
        tune(tmp_path)
    assert outcome(tmp_path) == outcome(finished)


def test_a_damaged_study_is_refused_with_commands_that_move_it_away(finished, run):
    garble(run / "study.db")
    with pytest.raises(DamagedStudyError, match=r"study\.db is damaged") as refused:
        tune(run)
    first, _, _ = str(refused.value).partition("Or go back")
    without_commands(run, first)
    assert (run / "study.db.damaged").is_file()
    with pytest.warns(UserWarning, match="decided again"):
        tune(run)
    assert outcome(run) == outcome(finished)


def test_the_copy_of_the_last_start_takes_the_place_of_a_damaged_study(finished, run):
    tune(run)  # goes on with a study that is there, and keeps a copy
    garble(run / "study.db")
    with pytest.raises(DamagedStudyError, match=r"study\.db\.backup") as refused:
        tune(run)
    without_commands(run, str(refused.value))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tune(run)
    assert outcome(run) == outcome(finished)


def test_a_damaged_copy_is_not_offered(run):
    tune(run)
    garble(run / "study.db")
    garble(run / "study.db.backup")
    with pytest.raises(DamagedStudyError) as refused:
        tune(run)
    assert "backup" not in str(refused.value)


@pytest.mark.parametrize("made", range(0, 14, 2))
def test_a_database_whose_making_was_cut_short_is_no_damaged_one(tmp_path, made):
    """Optuna makes its tables one by one: a process may be killed amid them."""
    from autolora.study import Study

    whole, cut = tmp_path / "whole.db", tmp_path / "cut.db"
    optuna.storages.RDBStorage(f"sqlite:///{whole}").engine.dispose()
    with contextlib.closing(sqlite3.connect(whole)) as database:
        tables = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")]
    with contextlib.closing(sqlite3.connect(cut)) as database, database:
        for statement in tables[:made]:
            database.execute(statement)
    assert Study.find(cut, "autolora") is None
    search = autolora.Search(["lora"], storage=f"sqlite:///{cut}", budget=1)
    search.tell(search.ask(), 1.0)
    search.close()
