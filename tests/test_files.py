"""Files are whole or absent; a lock ends with its process, and is nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from autolora import files
from autolora.files import FileLock, LockHeldError
from tests.support.processes import FORKED


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "file.txt"
    files.write(path, "früher\n")
    files.write(path, b"now\n")
    assert path.read_bytes() == b"now\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_halfway_leaves_the_old_content(tmp_path):
    path = tmp_path / "file.txt"
    files.write(path, "old")

    def fail():
        with files.replacing(path) as file:
            file.write(b"ne")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    monkeypatch.setattr("pathlib.Path.replace", lambda path, target: os.replace(path, target))
    files.write(tmp_path / "file.txt", "content")
    assert order == ["fsync", "replace", "fsync"]


def test_a_folder_that_cannot_be_opened_is_no_error(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, *rest):
        if os.path.isdir(path):
            raise PermissionError(13, "as on Windows", str(path))
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    files.write(tmp_path / "file.txt", "content")
    assert (tmp_path / "file.txt").read_text() == "content"


def test_a_lock_is_exclusive_and_names_its_owner(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.acquire("the first one")
    first.acquire("the first one")
    with pytest.raises(LockHeldError) as refused:
        second.acquire("the second one")
    assert refused.value.owner == "the first one"
    first.release()
    first.release()
    second.acquire("2")
    assert (tmp_path / "lock").read_text() == "2\n"
    second.release()


def test_a_lock_ends_with_a_killed_process_and_not_before(tmp_path):
    program = """
import sys, time
from pathlib import Path
from autolora.files import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire("a process")
print("held", flush=True)
time.sleep(600)
"""
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(LockHeldError, match="a process"):
                FileLock(path).acquire("another one")
        finally:
            process.send_signal(signal.SIGKILL)
    FileLock(path).acquire("another one")


def _stay(path, pipe) -> None:
    """A forked child that lives on, and has tried to release what it has of the lock."""
    pipe.send("here")
    time.sleep(600)


def test_children_neither_keep_a_lock_nor_release_it(tmp_path):
    lock = FileLock(tmp_path / "lock")
    lock.acquire("the parent")
    ours, theirs = FORKED.Pipe()
    forked = FORKED.Process(target=_stay, args=(lock.path, theirs), daemon=True)
    forked.start()
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    try:
        ours.recv()
        with pytest.raises(LockHeldError):
            FileLock(lock.path).acquire("somebody else")
        lock.release()
        FileLock(lock.path).acquire("somebody else")
    finally:
        forked.kill()
        started.kill()
        started.wait()


def test_a_staged_file_takes_the_place_of_another(tmp_path):
    path, staged = tmp_path / "file.txt", tmp_path / "staged.txt"
    path.write_text("old")
    staged.write_text("new")
    files.move(staged, path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077], ids="{:03o}".format)
def test_a_lock_file_is_never_writable_for_others_nor_executable(tmp_path, mask):
    before = os.umask(mask)
    try:
        FileLock(tmp_path / "lock").acquire("me")
    finally:
        os.umask(before)
    mode = (tmp_path / "lock").stat().st_mode & 0o777
    assert mode == 0o664 & ~mask


def test_files_that_were_being_written_are_swept_and_others_stay(tmp_path):
    half = tmp_path / f".file.txt.{'0' * 32}.tmp"
    others = [tmp_path / name for name in (".file.txt.tmp", f"file.txt.{'0' * 32}.tmp", f".{'0' * 32}", "file.txt")]
    for path in (half, *others):
        path.write_text("content")
    files.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    files.sweep(tmp_path / "missing")


def test_what_a_killed_process_left_is_what_sweeping_finds(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.unlink", lambda path, missing_ok=False: None)  # as if it had no time for it
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "file.txt"):
        raise RuntimeError("killed")
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
