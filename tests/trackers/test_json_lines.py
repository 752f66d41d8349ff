"""The events of a whole study, as lines of JSON."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

import autolora
from autolora.trackers.json_lines import JsonLines
from tests.support.specs import small_spec


class Interrupting(autolora.Callback):
    """Ends the study at an optimizer step, as an error in a callback does."""

    def __init__(self, at: int) -> None:
        self.left, self.stopped = at, 0

    def on_step(self, progress) -> None:
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError("of the callback's own")

    def stop(self) -> None:
        self.stopped += 1


def events(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A study that a callback broke off, and its continuation, in one file."""
    folder = tmp_path_factory.mktemp("followed")
    spec = small_spec(budget=1, confirm=0, prior="laws", **{"training.examples": 24, "data.eval_size": 4})
    breaking = Interrupting(at=1)
    with pytest.raises(ZeroDivisionError):
        autolora.tune(spec=spec, dir=folder / "run", callbacks=[JsonLines(folder / "log" / "events.jsonl"), breaking])
    first = events(folder / "log" / "events.jsonl")
    result = autolora.tune(spec=spec, dir=folder / "run", callbacks=[JsonLines(folder / "log" / "events.jsonl")])
    return first, events(folder / "log" / "events.jsonl")[len(first) :], result, breaking


def test_a_study_that_was_broken_off_still_stops_every_callback(followed):
    first, _, _, breaking = followed
    assert [event["event"] for event in first] == [*("setup", "prior", "search_start", "segment_start", "step", "stop")]
    assert breaking.stopped == 1


def test_a_continued_study_appends_its_events_in_order(followed):
    _, second, _, _ = followed
    names = [event["event"] for event in second]
    assert names[:2] == ["setup", "search_start"]
    assert names[-3:] == ["export_start", "finish", "stop"]
    assert second[1]["trials"] == 1
    steps = [event for event in second if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, steps[-1]["steps"] + 1))[-len(steps) :]


def test_every_event_tells_what_happened(followed):
    _, second, result, _ = followed
    started = next(event for event in second if event["event"] == "segment_start")
    ended = [event for event in second if event["event"] == "segment_end"]
    assert (started["trial"], started["variant"], started["purpose"]) == (0, "lora", "search")
    assert set(started["config"]) >= {"learning_rate", "batch_size", "rank", "alpha"}
    assert ended[-1]["value"] == result["lora"].value
    assert second[-2]["variants"]["lora"]["value"] == result["lora"].value
    assert second[0]["examples"] == 24
    assert all(later["time"] >= earlier["time"] for earlier, later in pairwise(second))


def test_a_specification_that_is_wrong_leaves_no_file(tmp_path):
    with pytest.raises(autolora.SpecError):
        autolora.tune(
            model="builtin:quickstart", data="x/y", budget=-1, callbacks=[JsonLines(tmp_path / "events.jsonl")]
        )
    assert not (tmp_path / "events.jsonl").exists()
