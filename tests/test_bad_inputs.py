"""Mistakes and damaged files end in a plain line; ``tests/support/bad_inputs.py`` lists them."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from autolora.cli import cli
from tests.support.bad_inputs import BEST_DAMAGES, CASES, READERS, SPEC_DAMAGES, STUDY_DAMAGES, Outcome, damaged

QUICK = [name for name in CASES if name.startswith(("spec ", "set ", "data ", "recommend ")) and "," not in name]
"""Found before a model is loaded."""
SLOW = [name for name in CASES if name not in QUICK]


def run(arguments, tmp_path, monkeypatch) -> Outcome:
    """In this process: an exception that the command lets out is shown as its traceback would be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ended = CliRunner().invoke(cli, arguments)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Outcome(ended.exit_code, ended.output)


@pytest.mark.parametrize("name", QUICK)
def test_a_mistake_is_refused_in_a_plain_line(name, tmp_path, monkeypatch):
    case = CASES[name]
    outcome = run(case.make(tmp_path), tmp_path, monkeypatch)
    assert outcome.plain(case), f"{outcome.code}: {outcome.output}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SLOW if CASES[name].file_size is None])
def test_a_damaged_file_is_refused_in_a_plain_line_or_passed_over(name, tmp_path, monkeypatch):
    case = CASES[name]
    outcome = run(case.make(tmp_path), tmp_path, monkeypatch)
    assert outcome.plain(case), f"{outcome.code}: {outcome.output}"


@pytest.mark.parametrize("name", [*STUDY_DAMAGES, *SPEC_DAMAGES])
def test_status_of_a_damaged_directory_names_what_is_damaged(name, tmp_path, monkeypatch):
    damage, says = {**STUDY_DAMAGES, **SPEC_DAMAGES}[name]
    outcome = run(damaged(damage, READERS["status"])(tmp_path), tmp_path, monkeypatch)
    assert outcome.code == 2
    assert says in outcome.output


@pytest.mark.slow
@pytest.mark.parametrize("name", BEST_DAMAGES)
def test_best_of_a_damaged_result_names_it(name, tmp_path, monkeypatch):
    damage, says = BEST_DAMAGES[name]
    outcome = run(damaged(damage, READERS["best"])(tmp_path), tmp_path, monkeypatch)
    assert outcome.code == 2
    assert says in outcome.output
