"""Scratch folders go with their makers, however those end."""

from __future__ import annotations

import signal
import tempfile
import time

import pytest

from autolora.execution.scratch import PREFIX, Scratch
from tests.support.processes import FORKED


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _made_and_held(temporary: str) -> None:
    tempfile.tempdir = temporary
    (Scratch().path / "something").write_text("large")
    time.sleep(600)


def start(temporary):
    process = FORKED.Process(target=_made_and_held, args=(str(temporary),))
    process.start()
    deadline = time.monotonic() + 60
    while not list(temporary.glob("*/something")) and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_the_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(temporary):
    killed = start(temporary)
    (theirs,) = temporary.glob(f"{PREFIX}*")
    mine = Scratch()
    assert theirs.exists()
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    another = Scratch()
    assert not theirs.exists()
    assert mine.path.exists()
    mine.remove()
    mine.remove()
    another.remove()
    assert list(temporary.glob(f"{PREFIX}*")) == []


def test_what_is_not_known_to_be_abandoned_stays(temporary):
    kept = [temporary / f"{PREFIX}just-made", temporary / "another-program"]
    for path in kept:
        path.mkdir()
    Scratch().remove()
    assert all(path.is_dir() for path in kept)
