"""A search whose rungs are scored on different rows."""

from __future__ import annotations

import pytest

from autolora import variants
from autolora.search import Search
from autolora.search.rungs import RUNGS, rows_in_words
from autolora.study.recorder import StudyRecorder
from autolora.study.storage import StudyError
from tests.support.simulation import SPACE, play

ROWS = (64, 85, 256)


def search(storage=None, **terms) -> Search:
    recorder = None if storage is None else StudyRecorder(storage, "autolora")
    return Search({"lora": variants.get("lora")}, SPACE, 3.0, confirm=0, recorder=recorder, **terms)


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "study.db"


def test_rows_are_a_term_of_the_search(storage):
    begun = search(storage, scored_rows=ROWS)
    play(begun)
    begun.close()
    with pytest.raises(StudyError, match=r"scored_rows: \[64, 85, 256\] -> \(not set\)"):
        search(storage)
    with pytest.raises(StudyError, match=r"scored_rows: \[64, 85, 256\] -> \[64, 64, 256\]"):
        search(storage, scored_rows=(64, 64, 256))
    again = search(storage, scored_rows=ROWS)
    assert again.table.trials == begun.table.trials
    assert again.table.scored_rows == ROWS


@pytest.mark.parametrize("rows", [(), (256, 256, 256)])
def test_a_search_on_the_same_rows_is_one_of_earlier_versions(storage, rows):
    search(storage).close()
    assert search(storage, scored_rows=rows).table.scored_rows == ()


def test_rows_of_too_few_rungs_are_refused():
    with pytest.raises(ValueError, match="scored_rows has 2 numbers for 3 rungs"):
        search(scored_rows=(64, 256))


@pytest.mark.parametrize(
    ("rungs", "rows", "line"),
    [
        (RUNGS, ROWS, "rungs 1/9 and 1/3 are scored on 64 and 85 of 256 evaluation rows"),
        (RUNGS, (64, 64, 256), "rungs 1/9 and 1/3 are scored on 64 of 256 evaluation rows"),
        (RUNGS, (64, 256, 256), "rung 1/9 is scored on 64 of 256 evaluation rows"),
        (
            (0.111, 0.2, 0.537, 1.0),
            (8, 9, 9, 10),
            "rungs 1/9, 1/5 and 0.54 are scored on 8, 9 and 9 of 10 evaluation rows",
        ),
        (RUNGS, (256, 256, 256), ""),
        (RUNGS, (), ""),
        ((1.0,), (256,), ""),
    ],
)
def test_rows_are_said_in_a_line(rungs, rows, line):
    assert rows_in_words(rungs, rows) == line


@pytest.mark.parametrize("rows", [(100, 50, 256), (256, 256, 10), (0, 10, 20), (10, 20)])
def test_rows_that_descend_or_are_none_are_refused_before_anything_is_trained(rows):
    with pytest.raises(ValueError, match="scored_rows"):
        search(None, scored_rows=rows)
