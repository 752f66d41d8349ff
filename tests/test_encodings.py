"""Text files are UTF-8 whatever the locale: in the code, in specifications, and on the console."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from autolora import quickstart
from autolora import spec as specs
from autolora.spec import SpecError
from tests.support.specs import SMALL_SPEC
from tests.test_house import modules

OTHER_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def without_encoding(tree: ast.AST) -> list[int]:
    """Lines of calls that read or write text in the encoding of the locale."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if _is_of_text(call) and not _given(call, "encoding")]


def _is_of_text(call: ast.Call) -> bool:
    if _given(call, "text") or _given(call, "universal_newlines"):  # of a process
        return True
    match call.func:
        case ast.Attribute(attr="read_text" | "write_text"):
            return True
        case ast.Name(id="open"):
            return not _mode(call, 1).endswith("b")
        case ast.Attribute(attr="open", value=ast.Name(id="os")):
            return False
        case ast.Attribute(attr="open"):  # of a path, not a method of ours, whose arguments are no modes
            return _mode(call, 0) in {"", "r", "w", "a", "x"}
    return False


def _mode(call: ast.Call, place: int) -> str:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] or call.args[place : place + 1]
    return "" if not given else str(given[0].value) if isinstance(given[0], ast.Constant) else "not known"


def _given(call: ast.Call, keyword: str) -> bool:
    return any(each.arg == keyword for each in call.keywords)


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("path.read_text()", [1]),
        ("path.write_text(content)", [1]),
        ("open(path)\npath.open('w')", [1, 2]),
        ("subprocess.run(['a'], text=True)", [1]),
        ("path.read_text(encoding='utf-8')\nopen(path, 'rb')\npath.open(mode='xb')\nos.open(path, 0)", []),
    ],
)
def test_calls_that_follow_the_locale_are_found(code, lines):
    assert without_encoding(ast.parse(code)) == lines


@pytest.mark.parametrize("module", modules())
def test_no_text_is_read_or_written_as_the_locale_has_it(module):
    assert without_encoding(ast.parse(modules()[module].read_text(encoding="utf-8"))) == []


def written(path, encoding: str):
    text = "# Prüfung\nmodel: größe\ndata: {train: owner/set, template: 'Fräge: {prompt} '}\n"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_specification_is_read_in_every_unicode_encoding(tmp_path, encoding):
    found = specs.load(written(tmp_path / "study.yaml", encoding))
    assert (found.model, found.data.template) == ("größe", "Fräge: {prompt} ")


def test_a_specification_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"study\.yaml is not UTF-8 text .*; save it as UTF-8"):
        specs.load(written(tmp_path / "study.yaml", "latin-1"))


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = "from autolora.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, **OTHER_LOCALE, **environment},
    )


def test_a_study_with_umlauts_runs_under_another_locale(tmp_path):
    rows = Path(quickstart.resolve("builtin:quickstart/train.jsonl")).read_text(encoding="utf-8").splitlines()[:40]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    content = {
        **SMALL_SPEC,
        "data": {
            "train": str(tmp_path / "rows.jsonl"),
            "template": "Fräge: {prompt} ",
            "eval_size": 8,
        },
        "budget": 1,
        "training": {"examples": 8, "device": "cpu"},
        "confirm": 0,
    }
    text = "# Prüfung\n" + yaml.safe_dump(content, allow_unicode=True)
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    outcome = run("tune", tmp_path / "study.yaml", "--dir", tmp_path / "run")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert b"max_length" in outcome.stdout  # auto, and said
    shown = run("best", tmp_path / "run")
    assert (shown.returncode, b"lora" in shown.stdout) == (0, True)


def test_an_argument_that_the_locale_lacks_is_refused(tmp_path):
    outcome = run("tune", "--model", "größe/日本", "--data", tmp_path / "日本.jsonl")
    assert outcome.returncode == 2
    assert b"is not text in ascii, as this locale has it: set PYTHONUTF8=1" in outcome.stderr


def test_a_path_that_the_locale_lacks_is_that_in_utf_8(tmp_path):
    (tmp_path / "日本.jsonl").write_text('{"text": "a"}', encoding="utf-8")
    (tmp_path / "study.yaml").write_text(f"model: ./none\ndata: {tmp_path}/日本.jsonl\n", encoding="utf-8")
    outcome = run("tune", tmp_path / "study.yaml")
    assert outcome.returncode == 2
    assert outcome.stderr.splitlines() == [b"error: model: no such model directory: none"]


def test_one_that_is_not_there_is_said(tmp_path):
    (tmp_path / "日本.jsonl").write_text('{"text": "a"}', encoding="utf-8")
    (tmp_path / "study.yaml").write_text(f"model: m\ndata: {tmp_path}/日木.jsonl\n", encoding="utf-8")
    outcome = run("tune", tmp_path / "study.yaml")
    assert outcome.returncode == 2
    assert b"no such file: " in outcome.stderr
    assert b"did you mean" in outcome.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_letters_that_the_console_lacks_are_replaced(tmp_path, encoding):
    (tmp_path / "日本.yaml").write_text("model: m\ndata: 日本/größe.jsonl\n", encoding="utf-8")
    outcome = run("tune", tmp_path / "日本.yaml", PYTHONUTF8="1", PYTHONIOENCODING=encoding)
    assert (outcome.returncode, b"no such file: ??/gr" in outcome.stderr) == (2, True)
