"""Readers and other programs lock the study's file for a while, and the study waits."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import autolora
from autolora import Search
from autolora.driver.directory import RunDirectoryError, run_directory
from autolora.study import Study, StudyError, filesystem, storage
from tests.support.outcome import outcome
from tests.support.processes import FORKED
from tests.support.specs import SMALL_SPEC, small_spec

SETTINGS = {**SMALL_SPEC, "budget": 1, "prior": None, "training": {"examples": 8, "max_length": 64, "device": "cpu"}}
HOLD = 6.5
"""Seconds: longer than SQLite itself waits by default."""
BEGIN = {"reads": ("BEGIN", "SELECT * FROM studies"), "writes": ("BEGIN IMMEDIATE",), "excludes": ("BEGIN EXCLUSIVE",)}


def _hold(path: Path, way: str, seconds: float, pipe: Connection) -> None:
    """Runs in a process of its own: lock the file as soon as it holds a trial, say so, and stay."""
    pipe.send("looking")
    while True:
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=30)
            if connection.execute("SELECT count(*) FROM trials").fetchone()[0]:
                for statement in BEGIN[way]:
                    connection.execute(statement).fetchall()
                break
        except sqlite3.OperationalError:  # there is no file, or no table yet
            pass
        time.sleep(0.01)
    pipe.send("locked")
    time.sleep(seconds)
    connection.execute("ROLLBACK")
    connection.close()


@pytest.fixture
def hold():
    """``hold(path, way, seconds)``: a process that locks the file for so long, once it holds a trial."""
    started = []

    def start(path: Path, way: str, seconds: float) -> Connection:
        ours, theirs = FORKED.Pipe()
        process = FORKED.Process(target=_hold, args=(path, way, seconds, theirs))
        process.start()
        theirs.close()
        started.append(process)
        assert ours.recv() == "looking"
        return ours

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.mark.parametrize("way", ["reads", "writes"])
def test_a_study_outlasts_who_locks_its_file(tmp_path, hold, caplog, monkeypatch, way):
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.5)  # the lock may be taken long before the next write
    autolora.tune(spec=SETTINGS, dir=tmp_path / "alone")
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "study.db"
    pipe = hold(path, way, HOLD)
    autolora.tune(spec=SETTINGS, dir=tmp_path / "run")
    assert pipe.poll(0)  # it was locked meanwhile
    assert outcome(tmp_path / "run") == outcome(tmp_path / "alone")
    said = [record.message for record in caplog.records if "another process" in record.message]
    assert said == [
        f"another process reads or writes {path} and keeps it locked: waiting up to 300 seconds for its transaction to "
        "end"
    ]


@pytest.fixture
def begun(tmp_path):
    path = tmp_path / "study.db"
    search = Search(["lora"], budget=4, storage=path)
    search.ask()
    return path, search


@pytest.fixture
def hasty(monkeypatch):
    """SQLite gives up at once, and autolora later."""
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.05)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("way", BEGIN)
@pytest.mark.parametrize("what", ["read", "open", "write"])
def test_everything_waits(tmp_path, hold, way, what):
    path = tmp_path / "study.db"
    search = Search(["lora"], budget=4, storage=path)
    job = search.ask()
    pipe = hold(path, way, 0.7)
    assert pipe.recv() == "locked"
    if what == "read":
        assert len(Study.read(path, "autolora").events()) == 1
    elif what == "open":
        assert Search(["lora"], budget=4, storage=path).ask().trial == 0
    else:
        search.tell(job, 1.0)
        table = Search(["lora"], budget=4, storage=path).table
        assert (table.trials, len(table.trials)) == (search.table.trials, 1)


@pytest.mark.usefixtures("hasty")
def test_patience_ends_with_a_line(begun, hold, monkeypatch):
    path, search = begun
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    assert hold(path, "excludes", 30).recv() == "locked"
    with pytest.raises(StudyError, match=rf"kept {path} locked for 0.2 seconds. Completed work is saved. Close what"):
        Study.read(path, "autolora")
    with pytest.raises(StudyError, match="Close what reads it"):
        search.ask()


def test_a_url_waits_as_a_path_does(tmp_path, hold):
    path = tmp_path / "study.db"
    search = Search(["lora"], budget=4, storage=f"sqlite:///{path}?timeout=0.05")
    job = search.ask()
    assert hold(path, "reads", 0.7).recv() == "locked"
    search.tell(job, 1.0)


@pytest.mark.parametrize("code", filesystem.NO_LOCKS)
@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_a_file_system_without_locks_is_said_at_the_start(tmp_path, monkeypatch, code, call):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, call, refuse)
    refused = pytest.raises(RunDirectoryError, match=rf"{tmp_path} cannot lock files, which .* needs: choose a run dir")
    with refused, run_directory(tmp_path, small_spec()):
        pass
    assert [path.name for path in tmp_path.iterdir()] in ([], [".lock"])


def test_so_is_one_of_a_storage_elsewhere(tmp_path, monkeypatch):
    import fcntl

    original = fcntl.flock

    def refuse(descriptor, operation):
        if "study.db" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOLCK, "No locks available")
        return original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StudyError, match="cannot lock files, which the study needs"):
        Search(["lora"], budget=4, storage=tmp_path / "study.db").ask()


def test_another_error_of_a_lock_is_not_taken_for_that(tmp_path, monkeypatch):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        filesystem.can_lock(tmp_path)


@pytest.mark.parametrize(("kind", "warned"), [("nfs4", True), ("cifs", True), ("ext4", False), ("tmpfs", False)])
def test_a_network_file_system_is_warned_of(tmp_path, monkeypatch, recwarn, kind, warned):
    import psutil
    from psutil._ntuples import sdiskpart

    mounts = [("/", "ext4"), (str(tmp_path), "ext4"), (str(tmp_path / "shared"), kind), (str(tmp_path / "sh"), "nfs")]
    found = [sdiskpart("none", mount, type_, "") for mount, type_ in mounts]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: found)
    folder = tmp_path / "shared" / "run"
    with run_directory(folder, small_spec()):
        pass
    said = [str(warning.message) for warning in recwarn if "network file system" in str(warning.message)]
    assert bool(said) is warned
    assert all(f"{folder}/study.db is on a network file system ({kind})" in each for each in said)


def test_a_read_only_copy_of_a_run_directory_can_be_read(tmp_path):
    path = tmp_path / "study.db"
    Search(["lora"], budget=4, storage=path).ask()
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert len(Study.read(path, "autolora").events()) == 1
    finally:
        tmp_path.chmod(0o700)


def test_nothing_but_the_study_lies_in_the_directory(tmp_path):
    """A log of its own, as SQLite's write-ahead log, would have to be copied, too."""
    Search(["lora"], budget=4, storage=tmp_path / "study.db").ask()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.db", "study.db.autolora.lock"]
