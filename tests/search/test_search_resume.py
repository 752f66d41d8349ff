"""A search that is cut off at any write and continued ends as if nothing had happened."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from autolora import Search
from tests.support.simulation import SPACE, loss


class Crash(BaseException):
    """Not an Exception: like SIGKILL, nothing in the way handles it."""


@contextmanager
def at_every_write(do: Callable[[int], None]) -> Iterator[None]:
    """Call ``do(n)`` before the n-th commit that changes a database."""
    count = 0

    def execute(connection, cursor, statement, parameters, context, executemany):
        if not statement.lstrip().upper().startswith(("SELECT", "PRAGMA")):
            connection.info["changed"] = True

    def commit(connection):
        nonlocal count
        if connection.info.pop("changed", False):
            count += 1
            try:
                do(count - 1)
            except Crash:
                connection.connection.dbapi_connection.close()  # as the operating system would: no lock stays
                raise

    def rollback(connection):
        connection.info.pop("changed", False)

    listeners = {"before_cursor_execute": execute, "commit": commit, "rollback": rollback}
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)


def crash_at(write: int) -> Callable[[int], None]:
    def do(count: int) -> None:
        if count == write:
            raise Crash

    return do


def play(search: Search) -> None:
    """Train one job at a time to the end of the budget; two early trials diverge."""
    while (job := search.ask()) is not None:
        if job.trial in (2, 3):
            search.tell(job, diverged=True, at=0.02)
        else:
            search.tell(job, loss(job))


def open_search(storage: str | None, variants=("lora", "pissa"), **terms) -> Search:
    terms = {"budget": 4.3, "confirm": 1, **terms}
    return Search(variants=list(variants), space=SPACE, seed=4, storage=storage, **terms)


def undisturbed(**terms) -> Search:
    search = open_search(None, **terms)
    play(search)
    return search


def same(search: Search, other: Search) -> bool:
    """Whether both hold the same trials, spent the same and name the same best."""
    return (
        search.table.trials == other.table.trials
        and search.spent == pytest.approx(other.spent)
        and search.best() == other.best()
    )


def test_the_simulated_search_has_every_kind_of_ending():
    outcomes = {(trial.purpose, trial.outcome) for trial in undisturbed(variants=["lora"]).table.trials}
    assert outcomes >= {
        ("search", "complete"),
        ("search", "pruned"),
        ("search", "diverged"),
        ("confirm", "complete"),
    }


def test_a_table_rebuilt_from_the_study_equals_the_one_in_memory(storage):
    search = open_search(storage)
    play(search)
    assert same(open_search(storage), search)


def test_a_storage_changes_nothing(storage):
    search = open_search(storage)
    play(search)
    assert same(search, undisturbed())


@pytest.mark.parametrize("seed", range(4))
def test_trials_end_alike_at_once_and_when_the_next_job_is_asked_for(seed, monkeypatch):
    """As after a crash between a score and what follows from it."""
    at_once = Search(variants=["lora", "pissa"], space=SPACE, budget=6, seed=seed)
    play(at_once)
    monkeypatch.setattr(Search, "_settle", lambda search: None)
    later = Search(variants=["lora", "pissa"], space=SPACE, budget=6, seed=seed)
    play(later)
    assert same(later, at_once)


def test_a_crash_at_any_write_changes_nothing(tmp_path):
    """A copy of the database made at a commit is what a crash there leaves; every copy is taken to its end."""
    copies = []

    def keep(count: int) -> None:
        copies.append(tmp_path / f"{count}.db")
        shutil.copy(tmp_path / "study.db", copies[-1])

    terms = {"variants": ["lora"], "budget": 3}
    search = open_search(f"sqlite:///{tmp_path / 'study.db'}", **terms)
    with at_every_write(keep):
        play(search)
    assert len(copies) > 15
    for copy in copies:
        again = open_search(f"sqlite:///{copy}", **terms)
        play(again)
        assert same(again, search), copy.name


def test_a_crash_every_few_writes_changes_nothing(storage):
    """Each life of the process makes a few writes and dies in the next, which never takes effect."""
    terms = {"budget": 3}
    open_search(storage, **terms)
    lives, ended = 0, False
    while not ended:
        lives += 1
        with at_every_write(crash_at(3)):
            try:
                search = open_search(storage, **terms)
                play(search)
                ended = True
            except Crash:
                pass
    assert lives > 10
    assert same(open_search(storage, **terms), undisturbed(**terms))


def test_a_search_of_other_laws_goes_on_with_those_it_began_with(storage, monkeypatch):
    begun = Search(["lora"], SPACE, budget=1, storage=storage)
    play(begun)
    monkeypatch.setattr("autolora.laws.LOG_RATE", -2.0)
    assert Search(["lora"], SPACE, budget=1).prior.centre != begun.prior.centre
    assert Search(["lora"], SPACE, budget=2, storage=storage).prior == begun.prior
