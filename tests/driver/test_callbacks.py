"""The events of a study, as several callbacks are told of them."""

from __future__ import annotations

import inspect

import pytest

import autolora
from autolora.driver.callbacks import Callback, Callbacks
from tests.support.specs import small_spec

EVENTS = [name for name, _ in inspect.getmembers(Callback, inspect.isfunction) if name.startswith("on_")]


class Recording(Callback):
    """Keeps the names of all events, and what they came with."""

    def __init__(self, log: list, name: str = "") -> None:
        self.log, self.name = log, name

    def __getattribute__(self, event: str):
        if event in EVENTS or event == "stop":
            log, name = object.__getattribute__(self, "log"), object.__getattribute__(self, "name")
            return lambda *arguments: log.append((event, arguments, name))
        return object.__getattribute__(self, event)


def tune(folder, callbacks, **overrides):
    spec = small_spec(budget=1, confirm=0, prior="laws", **{"training.examples": 16, "data.eval_size": 4, **overrides})
    return autolora.tune(spec=spec, dir=folder, callbacks=callbacks)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A whole small study with two callbacks."""
    log: list = []
    result = tune(tmp_path_factory.mktemp("told"), [Recording(log, "first"), Recording(log, "second")])
    return log, result


RARE = {"on_weights_lost"}
"""Events of studies to which something happens."""


def test_every_event_is_told_to_every_callback_in_the_order_given(told):
    log, _ = told
    assert {event for event, _, _ in log} == {*EVENTS, "stop"} - RARE
    for first, second in zip(log[::2], log[1::2], strict=True):
        assert first[:2] == second[:2]
        assert (first[2], second[2]) == ("first", "second")


def test_events_come_in_the_documented_order(told):
    log, result = told
    events = [event for event, _, name in log if name == "first"]
    segments = events.count("on_segment_start")
    assert events[:4] == ["on_executor", "on_setup", "on_prior", "on_search_start"]
    assert events[-3:] == ["on_export_start", "on_finish", "stop"]
    assert set(events[4:-3]) == {"on_segment_start", "on_step", "on_segment_end"}
    assert events.count("on_segment_end") == segments >= 1
    [finished] = [arguments for event, arguments, _ in log[::2] if event == "on_finish"]
    assert finished == (result,)


def test_an_event_that_a_callback_does_not_care_for_does_nothing():
    for event in EVENTS:
        arguments = list(inspect.signature(getattr(Callback, event)).parameters)[1:]
        assert getattr(Callbacks([Callback()]), event)(*arguments) is None


def test_the_combination_passes_every_event_on():
    """So that an event that is added to the interface cannot be forgotten there."""
    assert set(vars(Callbacks)) >= {*EVENTS, "stop"}


def test_every_callback_is_stopped_whatever_another_raises():
    log: list = []

    class Broken(Callback):
        def stop(self) -> None:
            raise OSError("of the callback's own")

    with pytest.raises(OSError, match="of the callback's own"):
        Callbacks([Recording(log, "before"), Broken(), Recording(log, "after")]).stop()
    assert [name for _, _, name in log] == ["before", "after"]


def test_an_error_in_stop_does_not_hide_the_one_that_ended_the_study(tmp_path):
    class Broken(Callback):
        def on_setup(self, spec, trainer) -> None:
            raise ZeroDivisionError("of the study")

        def stop(self) -> None:
            raise OSError("of stop")

    with pytest.raises(OSError, match="of stop") as raised:
        tune(tmp_path, [Broken()])
    assert isinstance(raised.value.__context__, ZeroDivisionError)


@pytest.mark.parametrize("wrong", [object(), Callback, None], ids=["object", "class", "None"])
def test_what_is_no_callback_is_named_before_anything_is_loaded(tmp_path, wrong):
    with pytest.raises(TypeError, match=r"callbacks\[1\] is .*Give instances of autolora.Callback"):
        tune(tmp_path, [Callback(), wrong])
    assert not list(tmp_path.iterdir())


def test_an_error_in_a_callback_ends_the_study_and_loses_nothing(tmp_path):
    class Broken(Callback):
        def on_segment_end(self, search, job, outcome) -> None:
            raise ZeroDivisionError

    log: list = []
    with pytest.raises(ZeroDivisionError):
        tune(tmp_path, [Recording(log), Broken()])
    assert log[-1][0] == "stop"
    steps = sum(event == "on_step" for event, _, _ in log)
    log.clear()
    tune(tmp_path, [Recording(log)])
    again = sum(event == "on_step" for event, _, _ in log)
    undisturbed: list = []
    tune(tmp_path / "undisturbed", [Recording(undisturbed)])
    assert steps + again == sum(event == "on_step" for event, _, _ in undisturbed)


def test_callbacks_are_stopped_if_the_specification_is_wrong(tmp_path):
    log: list = []
    with pytest.raises(autolora.SpecError):
        autolora.tune(model="builtin:quickstart", data="x/y", budget=-1, dir=tmp_path, callbacks=[Recording(log)])
    assert [event for event, _, _ in log] == ["stop"]
