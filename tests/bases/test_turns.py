"""Processes and threads of a machine load models one after the other."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time

import pytest

from autolora import bases
from autolora.bases import turns
from tests.support.processes import FORKED
from tests.support.specs import small_spec


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _held(temporary: str, log: str, seconds: float) -> None:
    tempfile.tempdir = temporary
    with turns.turn():
        with open(log, "a") as file:
            file.write("in\n")
        time.sleep(seconds)
        with open(log, "a") as file:
            file.write("out\n")


def start(temporary, seconds):
    process = FORKED.Process(target=_held, args=(str(temporary), str(temporary / "log"), seconds))
    process.start()
    return process


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_processes_take_turns(temporary):
    processes = [start(temporary, 0.2) for _ in range(4)]
    for process in processes:
        process.join()
    assert (temporary / "log").read_text().split() == ["in", "out"] * 4


def test_threads_take_turns():
    inside, most = [], []

    def load():
        with turns.turn():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_the_turn_of_a_killed_process_ends(temporary):
    process = start(temporary, 600)
    wait_for(lambda: (temporary / "log").exists())
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    began = time.monotonic()
    with turns.turn():
        assert time.monotonic() - began < 5


def test_whoever_waits_longer_says_for_whom(temporary, monkeypatch, caplog):
    monkeypatch.setattr(turns, "QUIET_SECONDS", 0.1)
    process = start(temporary, 1)
    wait_for(lambda: (temporary / "log").exists())
    with turns.turn():
        assert f"waiting for process {process.pid}, which is loading a model" in caplog.text
    process.join()


def test_nobody_waits_for_ever(temporary, monkeypatch, caplog):
    monkeypatch.setattr(turns, "PATIENCE", 0.3)
    process = start(temporary, 600)
    wait_for(lambda: (temporary / "log").exists())
    with turns.turn():
        assert "not waiting longer" in caplog.text
    process.kill()
    process.join()


def test_without_a_folder_for_the_lock_models_are_loaded_all_the_same(temporary, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    assert bases.load(small_spec()).model is not None
    assert "not loaded one after the other" in caplog.text


def test_a_folder_that_is_a_link_is_not_used(temporary, caplog):
    target = temporary / "theirs"
    target.mkdir()
    (temporary / turns.FOLDER.format(os.getuid())).symlink_to(target)
    with turns.turn():
        assert list(target.iterdir()) == []
    assert "another user's" in caplog.text


def test_a_model_is_loaded_in_a_turn(temporary, monkeypatch):
    held = []
    load_weights = bases.full_precision.load_weights

    def watched(*arguments):
        with pytest.raises(turns.LockHeldError):
            turns.FileLock(temporary / turns.FOLDER.format(os.getuid()) / turns.LOCK).acquire("")
        held.append(True)
        return load_weights(*arguments)

    monkeypatch.setattr(bases.full_precision, "load_weights", watched)
    base = bases.load(small_spec())
    base.set_aside()
    base.recall()
    assert held == [True, True]
