"""The database server goes away and comes back: no event is lost, and none is recorded twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import optuna
import pytest
from sqlalchemy import event

from autolora import Search
from autolora.search import Job
from autolora.search.trials import Finished, Lost, Promoted, Sampled, Scored, TrialTable
from autolora.space import Config, Space
from autolora.study import storage as storages
from autolora.study.storage import ConnectionLost, StudyError

SPACE = Space(learning_rate=(1e-5, 1e-1), batch_size=[8, 16], rank=[4, 8, 16], alpha="law", hidden_size=64)

RUNGS = (1 / 9, 1 / 3, 1.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(storages, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(storages, "LONGEST_PAUSE", 0.2)


@pytest.fixture
def url(postgres) -> str:
    return postgres.new_database()


def open_search(url: str | None, budget: float = 4.3) -> Search:
    return Search(["lora", "pissa"], SPACE, budget=budget, confirm=1, seed=4, storage=url)


def play(search: Search) -> Search:
    """To the end of the budget, with every kind of event."""
    lost = False
    while isinstance(job := search.ask(), Job):
        if job.trial % 7 == 3:
            search.tell(job, diverged=True, at=0.02)
        elif job.trial % 5 == 4 and not search.table.trials[job.trial].lost:
            search.tell(job, lost=True)
            lost = True
        else:
            search.tell(job, 2 - job.stop + abs(job.config.learning_rate - 1e-3) + job.trial / 1000)
    assert lost
    return search


@contextmanager
def crashing(postgres, at: Sequence[int], written: Callable[[], int]) -> Iterator[None]:
    """Meanwhile crash the server whenever so many trials are there, and start it a second later."""

    def crash() -> None:
        for count in at:
            while written() < count:
                time.sleep(0.001)
            postgres.crash()
            time.sleep(1)
            postgres.start()

    thread = threading.Thread(target=crash)
    thread.start()
    yield
    thread.join()


def test_a_search_outlives_two_crashes_of_its_server(postgres, url, caplog):
    search = open_search(url, budget=6)
    with crashing(postgres, (10, 20), lambda: len(search.table.trials)):
        play(search)
    study = optuna.load_study(storage=url, study_name="autolora")
    assert [trial.number for trial in study.trials] == list(range(len(search.table.trials)))
    assert open_search(url, budget=6).table.trials == search.table.trials
    assert play(open_search(None, budget=6)).table.trials == search.table.trials
    said = [record.message for record in caplog.records if record.name == "autolora.study.storage"]
    assert len(said) == 2
    assert all("is lost" in line and "me:***@" in line for line in said)


@pytest.mark.faults
def test_sixty_trials_written_one_after_the_other_outlive_three_crashes(postgres, url):
    study = open_search(url)._recorder._study
    events = [
        one
        for number in range(60)
        for one in (
            Sampled(number, "lora", Config(1e-3, 8, 8, 8.0), number, "search", 0, "prior"),
            Lost(number),
            Scored(number, 0, 2.0, 5.0),
            Promoted(number, 2, "40% to improve"),
            Lost(number),
            Scored(number, 2, 1.0 + number, 9.0),
            Finished(number, "diverged", "it blew up", 0.5) if number % 2 else Finished(number, "complete", "done"),
        )
    ]
    with crashing(postgres, (10, 25, 40), lambda: len(study._ids)):
        for one in events:
            study.write(one)
    again = open_search(url)._recorder._study.events()
    assert TrialTable(RUNGS, "minimize", again).trials == TrialTable(RUNGS, "minimize", events).trials


def test_a_server_that_is_stopped_and_started_between_two_writes_is_not_missed(postgres, url):
    search = open_search(url)
    job = search.ask()
    postgres.stop()
    postgres.start()
    search.tell(job, 1.0)
    assert open_search(url).table.trials == search.table.trials


EVENTS = [
    Sampled(0, "lora", Config(1e-3, 8, 8, 8.0), 0, "search", 0, "prior"),
    Lost(0),
    Lost(0),
    Scored(0, 0, 2.0, 5.0),
    Promoted(0, 2, "40% to improve"),
    Scored(0, 2, 1.5, 9.0),
    Finished(0, "complete", "trained to full length"),
    Sampled(1, "pissa", Config(1e-2, 8, 8, 8.0), 0, "search", 0, "prior"),
    Finished(1, "diverged", "loss rose", 0.02),
    Sampled(2, "lora", Config(1e-4, 16, 4, 8.0), 0, "search", 0, "prior"),
    Finished(2, "pruned", "4% to improve"),
]


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("commit", range(6))
def test_no_event_is_recorded_twice_when_an_answer_is_lost(url, commit, committed):
    """Once for each event, at one of its commits: it took effect and nobody said so, or it did not."""
    study = open_search(url)._recorder._study
    left = 0

    def lose(connection) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            if committed:
                connection.connection.dbapi_connection.commit()
            raise ConnectionLost("the answer")

    engine = study._storage._backend.engine
    event.listen(engine, "commit", lose)
    for one in EVENTS:
        left = commit
        study.write(one)
    event.remove(engine, "commit", lose)
    again = open_search(url)._recorder._study.events()
    assert TrialTable(RUNGS, "minimize", again).trials == TrialTable(RUNGS, "minimize", EVENTS).trials


def test_a_trial_of_somebody_else_is_not_taken_for_ours(url, monkeypatch):
    study = open_search(url)._recorder._study
    create = study._storage.create_new_trial

    def overtaken(study_id, template_trial):
        create(study_id, study._template(EVENTS[-2]))
        raise ConnectionLost("on the way")

    monkeypatch.setattr(study._storage, "create_new_trial", overtaken)
    with pytest.raises(StudyError, match="another process writes to it"):
        study.write(EVENTS[0])


def test_after_a_stated_time_it_gives_up_in_one_line(postgres, monkeypatch):
    monkeypatch.setattr(storages, "PATIENCE", 0.5)
    search = open_search(postgres.new_database())
    job = search.ask()
    postgres.stop()
    try:
        began = time.monotonic()
        with pytest.raises(StudyError, match=r"does not work: .*refused.* rerun the same command") as error:
            search.tell(job, 1.0)
        assert 0.3 < time.monotonic() - began < 5
        assert "\n" not in str(error.value)
    finally:
        postgres.start()
