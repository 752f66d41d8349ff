"""A run directory may have any name that the file system takes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import autolora
from autolora import files
from autolora.cli import cli
from autolora.study.directory import NoStudyError, read_study
from tests.support.specs import SMALL_SPEC

SETTINGS = {**SMALL_SPEC, "budget": 1, "prior": None, "training": {"examples": 8, "max_length": 64, "device": "cpu"}}
NAMES = [
    "run?",
    "a?b=c&d",
    "50%25",
    "${HOME}",
    "a#b",
    "{a}",
    "{SCHEMA_VERSION}",
    "me:pw@host",
    "two  words ",
    "new\nline",
    "tab\tand\\back",
    "Läufe-试验-🙂",
    "-dash",
    "'quotes\"",
    "file:x",
    ":memory:",
    "\x1b[31m",
]


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", NAMES)
def test_everything_of_a_study_is_in_its_directory(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    result = autolora.tune(spec=SETTINGS, dir=name)
    folder = tmp_path / name
    new = set(tmp_path.rglob("*")) - before
    assert [path for path in new if path != folder and folder not in path.parents] == []
    assert (folder / "study.db").is_file()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "1.00/1" in run("status", folder)
    assert f"{result['lora'].value:.4g}"[:4] in run("best", folder)
    for target in ("peft", "trl", "axolotl", "llamafactory"):
        out = tmp_path / "elsewhere" / f"{name}-{target}"
        run("export", folder, "--variant", "lora", "--to", target, out)
        assert any(out.iterdir())
    compile((tmp_path / "elsewhere" / f"{name}-trl" / "train.py").read_text(encoding="utf-8"), "train.py", "exec")
    axolotl = yaml.safe_load((tmp_path / "elsewhere" / f"{name}-axolotl" / "axolotl.yaml").read_text(encoding="utf-8"))
    assert axolotl["output_dir"] == str(tmp_path / "elsewhere" / f"{name}-axolotl" / "lora")
    info = tmp_path / "elsewhere" / f"{name}-llamafactory" / "dataset_info.json"
    assert Path(json.loads(info.read_text(encoding="utf-8"))["train"]["file_name"]).is_absolute()


@pytest.mark.parametrize(("first", "second"), [("run", "run?"), ("a?b", "a?c"), ("a%3F", "a?"), ("{a}", "a")])
def test_studies_of_similar_names_are_two(tmp_path, first, second):
    autolora.tune(spec=SETTINGS, dir=tmp_path / first)
    with pytest.raises(NoStudyError):
        read_study(tmp_path / second)
    autolora.tune(spec=SETTINGS, dir=tmp_path / second, seed=5)
    autolora.tune(spec=SETTINGS, dir=tmp_path / first)
    tables = [read_study(tmp_path / each)[0] for each in (first, second)]
    assert tables[0].trials != tables[1].trials


def test_a_directory_of_an_earlier_version_goes_on(tmp_path):
    """Its study was opened by a URL."""
    storage = f"sqlite:///{tmp_path}/run/study.db"
    (tmp_path / "run").mkdir()
    search = autolora.Search(["lora"], budget=4, storage=storage)
    search.ask()
    search._recorder.close()
    assert autolora.Search(["lora"], budget=4, storage=tmp_path / "run" / "study.db").ask().trial == 0


def test_a_relative_directory_is_the_same_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    autolora.tune(spec=SETTINGS, dir="run")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    before = read_study(tmp_path / "run")[0].trials
    autolora.tune(spec=SETTINGS, dir="../run")
    assert read_study(Path("../run"))[0].trials == before


def test_names_are_shown_on_one_line():
    assert files.shown(Path("a\nb\tc\x1b")) == "a\\nb\\tc\\x1b"
    assert files.shown(Path("Läufe 试验")) == "Läufe 试验"


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_that_is_shown_can_be_entered(tmp_path, name):
    assert shutil.which("bash")
    shown = files.argument(name)
    assert "\n" not in shown
    import subprocess

    done = subprocess.run(["bash", "-c", f"printf %s {shown}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout).removeprefix("./") == name


@pytest.mark.parametrize("words", [["status"], ["best"], ["export", "--variant", "lora", "out"]])
def test_messages_name_a_directory_on_one_line(tmp_path, words):
    folder = tmp_path / "new\nline"
    folder.mkdir()
    done = CliRunner().invoke(cli, [words[0], str(folder), *words[1:]])
    assert done.exit_code == 2
    assert "new\\nline" in done.output
    assert len(done.output.strip().splitlines()) == 1
