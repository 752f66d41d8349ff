"""Variants of other packages, named by a reference: from the command line, in Python, and on Ray workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.specs import SMALL_SPEC

MODULE = """
from dataclasses import dataclass

from autolora.variants import Variant


@dataclass(frozen=True)
class Halved(Variant):
    name: str = "halved"
    title: str = "Halved"
    paper: str = "-"
    share: float = 0.5

    def initialize(self, start):
        for layer in start.layers.values():
            layer.a.data.mul_(self.share)
"""
REFERENCE = "my_package.adapters:Halved"
COMMAND = [sys.executable, "-c", "from autolora.cli import main; main()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the package in it."""
    folder = tmp_path_factory.mktemp("foreign")
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "adapters.py").write_text(MODULE)
    spec = {**SMALL_SPEC, "variants": ["lora", REFERENCE], "budget": 1, "prior": "laws"}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder


def run(folder, *program: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which knows nothing of the package yet."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def command(folder, *words: str) -> str:
    done = run(folder, *COMMAND, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tuned(folder):
    """What the command said, of a study of the reference beside plain LoRA."""
    return command(folder, "tune", "spec.yaml", "--dir", "run")


def test_the_command_tunes_it_under_its_own_name(folder, tuned):
    assert "halved: run/best/halved" in tuned
    best = json.loads((folder / "run" / "best.json").read_text())
    assert list(best["variants"]) == ["lora", "halved"]
    assert yaml.safe_load((folder / "run" / "spec.yaml").read_text())["variants"] == ["lora", REFERENCE]


@pytest.mark.usefixtures("tuned")
@pytest.mark.parametrize("words", [["status", "run"], ["best", "run", "--variant", "halved"]])
def test_commands_that_read_know_it(folder, words):
    assert "halved" in command(folder, *words)


@pytest.mark.usefixtures("tuned")
@pytest.mark.parametrize("word", ["status", "best"])
def test_a_study_is_shown_where_the_package_is_not_installed(folder, tmp_path, word):
    copy = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    recorded = yaml.safe_load((copy / "spec.yaml").read_text())
    assert recorded["imported_from"] == [str(folder)]
    (copy / "spec.yaml").write_text(yaml.safe_dump({**recorded, "imported_from": [str(tmp_path / "gone")]}))
    done = run(tmp_path, *COMMAND, word, str(copy))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "halved" in done.stdout
    assert ("No module named 'my_package'" in done.stdout) is (word == "status")


@pytest.mark.usefixtures("tuned")
@pytest.mark.parametrize("words", [["best"], ["export", "--variant", "halved", "out"]])
def test_commands_find_it_from_any_folder(folder, tmp_path, words):
    done = run(tmp_path, *COMMAND, words[0], str(folder / "run"), *words[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No module named" not in done.stdout


@pytest.mark.usefixtures("tuned")
def test_looking_where_a_study_stands_runs_no_code_from_folders_that_it_names(folder, tmp_path):
    done = run(tmp_path, *COMMAND, "status", str(folder / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note: variant" in done.stdout
    assert "No module named 'my_package'" in done.stdout


@pytest.mark.usefixtures("tuned")
def test_it_is_exported(folder):
    command(folder, "export", "run", "--variant", "halved", "out")
    assert (folder / "out" / "adapter_config.json").is_file()


def test_python_takes_the_reference(folder):
    program = f"""
import autolora
space = autolora.Space(options={{"halved.share": [0.25, 1.0]}})
search = autolora.Search(["lora", "{REFERENCE}"], space=space, budget=3)
jobs = []
while (job := search.ask()) is not None:
    jobs.append((job.variant, *dict(job.config.options).values()))
    search.tell(job, 1.0)
print(sorted(set(jobs)))
"""
    done = run(folder, sys.executable, "-c", program)
    assert done.stdout.strip() == "[('halved', 0.25), ('halved', 1), ('lora',)]", done.stderr


def test_python_refuses_a_variant_that_is_given_twice(folder):
    done = run(folder, sys.executable, "-c", f"import autolora; autolora.Search(['{REFERENCE}', 'halved'], budget=1)")
    assert "ValueError: variants must be a list of different names" in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("tuned")
def test_the_study_goes_on_with_a_ray_worker_that_trains_it(folder):
    pytest.importorskip("ray")
    words = ["--executor", "ray", "--set", "resources.workers=1", "--set", "budget=2"]
    command(folder, "tune", "spec.yaml", "--dir", "run", *words)
    assert json.loads((folder / "run" / "best.json").read_text())["spent"]["halved"] > 1


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("my_package.adapters:Missing", "has no 'Missing'"),
        ("my_package.nowhere:Halved", "No module named 'my_package.nowhere'"),
        ("halfed", "unknown variant 'halfed'"),
    ],
)
def test_what_cannot_be_found_is_an_error_in_one_line(folder, reference, message):
    done = run(folder, *COMMAND, "tune", "spec.yaml", "--dir", "wrong", "--set", f"variants=[{reference}]")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
