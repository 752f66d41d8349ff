"""One process writes a study at a time, and one that dies leaves it free."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import pytest

from autolora import Search
from autolora.study import Study
from autolora.study.lock import _AdvisoryLock
from autolora.study.storage import StudyError, resolved
from tests.support.processes import FORKED


def open_search(storage: str, **terms) -> Search:
    return Search(**{"variants": ["lora"], "budget": 4, "storage": storage} | terms)


def _hold(storage: str, pipe: Connection, fork: bool) -> None:
    """Runs in a process of its own: open a search, record a trial, say so, and stay."""
    search = open_search(storage)
    search.ask()
    child = os.fork() if fork else 1
    if child:
        pipe.send(child)
    time.sleep(600)


@pytest.fixture
def hold(storage):
    """Have the study written by a process of its own, which has perhaps forked a child."""
    started = []

    def start(fork: bool = False):
        ours, theirs = FORKED.Pipe()
        process = FORKED.Process(target=_hold, args=(storage, theirs, fork))
        process.start()
        theirs.close()
        started.append(process.pid)
        child = ours.recv()
        if fork:
            started.append(child)
        return process

    yield start
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_second_process_is_refused_and_told_by_whom(storage, hold):
    process = hold()
    with pytest.raises(
        StudyError, match=f"'autolora' in .* is in use by another process .pid {process.pid} on "
    ) as error:
        open_search(storage)
    assert "s3cret" not in str(error.value)
    assert len(Study.read(storage, "autolora").events()) == 1  # looking is free


@pytest.mark.parametrize("fork", [False, True], ids=["alone", "with a child that lives on"])
def test_the_second_goes_on_at_once_when_the_first_was_killed(storage, hold, fork):
    process = hold(fork)
    process.kill()
    process.join()
    search = _soon(lambda: open_search(storage))
    assert search.ask().trial == 0
    assert search._recorder._study is not None
    assert len(search._recorder._study.events()) == 1


def _soon(do):
    """The result, once the server has noticed that the other end is gone."""
    deadline = time.monotonic() + 2
    while True:
        try:
            return do()
        except (StudyError, EOFError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_a_later_search_of_the_process_takes_over(storage):
    first = open_search(storage)
    second = open_search(storage)
    job = second.ask()
    with pytest.raises(StudyError, match="another search of this process goes on with it"):
        first.ask()
    second.tell(job, 1.0)
    assert open_search(storage).table.trials == second.table.trials


def test_a_search_that_is_refused_for_its_terms_takes_nothing_over(storage):
    search = open_search(storage)
    with pytest.raises(StudyError, match="other terms"):
        open_search(storage, seed=5)
    assert search.ask() is not None


def _race(storage: str, number: int, start: Event) -> None:
    start.wait()
    assert open_search(storage, name=f"study {number}").ask() is not None


def test_processes_that_begin_at_once_in_an_empty_database_all_begin(postgres):
    storage, start = postgres.new_database(empty=True), FORKED.Event()
    processes = [FORKED.Process(target=_race, args=(storage, number, start)) for number in range(3)]
    for process in processes:
        process.start()
    time.sleep(1)  # until they wait
    start.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_studies_of_other_names_are_written_side_by_side(storage, hold):
    hold()
    assert open_search(storage, name="other").ask() is not None


@pytest.mark.parametrize("way", ["closed", "dropped"])
def test_a_study_that_is_given_up_is_free_for_others(storage, hold, way):
    search = open_search(storage)
    if way == "closed":
        search._recorder._study.close()
    else:
        del search
        gc.collect()
    _soon(hold)


def test_the_end_of_a_forked_child_leaves_the_study_to_its_parent(storage, hold):
    search = open_search(storage)
    child = os.fork()
    if not child:
        try:
            search._recorder._study._ownership.release()
            del search
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert search.ask() is not None
    with pytest.raises(EOFError):  # it was refused
        hold()


def test_a_child_does_not_write_what_its_parent_owns(storage):
    search = open_search(storage)
    child = os.fork()
    if not child:
        try:
            search.ask()
        except StudyError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_storages_in_memory_are_searched_side_by_side():
    searches = [open_search("sqlite://") for _ in range(2)]
    assert all(search.ask() is not None for search in searches)


def test_a_session_that_only_the_server_believes_in_is_ended(postgres):
    search = open_search(postgres.new_database())
    lock = search._recorder._study._ownership._lock
    gone, lock._connection = lock._connection, None  # as after the loss of the network
    assert search.ask() is not None
    assert gone is not None


def test_a_study_that_somebody_else_took_meanwhile_is_not_written(postgres):
    url = postgres.new_database()
    search = open_search(url)
    lock = search._recorder._study._ownership._lock
    lock.release()
    other = _AdvisoryLock(resolved(url), "autolora")
    other.take()
    with pytest.raises(StudyError, match="in use by another process"):
        search.ask()
    assert Study.read(url, "autolora").events() == []
