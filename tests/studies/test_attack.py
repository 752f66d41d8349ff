"""The fault campaign: its cases are many and named, and it tells a study that survives from one that does not."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from studies.attack import campaign, case, judge
from studies.attack.case import SAME, TOLD, Wrong
from studies.attack.cases import CASES
from studies.attack.processes import Ran
from studies.attack.world import World

KINDS = {"damage", "inputs", "kills", "litter", "locks", "names", "notebook", "streams"}


def ran(code: int | None, output: str = "") -> Ran:
    return Ran("autolora tune", code, output, 0.1)


def test_there_are_more_than_a_hundred_cases_of_every_kind_of_fault():
    kinds = Counter(each.kind for each in CASES.values())
    assert set(kinds) == KINDS
    assert kinds.total() > 100


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """``run(*names)``: exit status and outcomes of cases, in worlds that are made once."""
    out = tmp_path_factory.mktemp("attack")

    def run(*names: str, **options) -> tuple[int, dict[str, str]]:
        status = campaign.run(names, out, jobs=1, **options)
        results = map(json.loads, (out / campaign.RESULTS).read_text().splitlines())
        return status, {result["case"]: result["outcome"] for result in results}

    return run


def test_cases_run_and_end_as_they_must(run, tmp_path, capsys):
    names = ("damage/.lock/emptied/paused", "streams/closed pipe/variants", "locks/.lock left/not text")
    status, outcomes = run(*names, report=tmp_path / "results.md")
    assert status == 0, capsys.readouterr().out
    assert {outcomes[name] for name in names} <= {SAME, TOLD, case.READ}
    assert "| all | 3 |" in capsys.readouterr().out
    assert "| all | 3 |" in (tmp_path / "results.md").read_text()
    run(*names)
    assert "0 s for 0 cases" in capsys.readouterr().out


def test_a_case_that_goes_wrong_is_shown_and_counted_and_runs_again(run, monkeypatch, capsys):
    def wrong(world: World) -> str:
        return judge.refused(world.command("status", "nowhere"), ["a word that nothing says"])

    monkeypatch.setitem(CASES, "test/wrong", case.Case("test/wrong", wrong))
    status, outcomes = run("test/wrong")
    output = capsys.readouterr().out
    assert status == 1
    assert outcomes["test/wrong"] == campaign.WRONG
    assert "names none of 'a word that nothing says': $ autolora status nowhere" in output
    assert "'nowhere' does not exist" in output
    monkeypatch.setitem(CASES, "test/wrong", case.Case("test/wrong", lambda world: SAME))
    assert run("test/wrong", failed=True)[0] == 0


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (ran(None), "hangs"),
        (ran(-11), "died of signal 11"),
        (ran(2, "Traceback (most recent call last):\n  ...\nValueError: run"), "a traceback"),
        (ran(0, "Exception ignored in: <run>"), "a traceback"),
        (ran(1, "error: run"), "ends with 1, not 2"),
        (ran(2, "run is broken"), "says no error"),
        (ran(2, "error: something is broken"), "names none of 'run'"),
    ],
)
def test_what_is_no_plain_message_is_wrong(end, said):
    with pytest.raises(Wrong, match=said):
        judge.refused(end, ["run"])


def test_a_plain_message_names_the_place():
    assert judge.refused(ran(2, "error: run/spec.yaml is empty: restore it"), ["spec.yaml"]) == TOLD
