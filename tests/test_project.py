"""What stands in several files of the project says the same in each: name, version, Pythons."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import autolora

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETUP["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))

INSTALL = re.compile(r"pip install [^`\n]*?\b(autolora[\w-]*)(?:\[([\w,]+)\])?")
"""A command that installs this project by name: the name, and the extras."""


def read_yaml(*path: str) -> dict:
    return yaml.safe_load(ROOT.joinpath(*path).read_text(encoding="utf-8"))


def test_the_version_stands_in_the_package_alone():
    assert "version" not in PROJECT
    assert SETUP["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "autolora.__version__"}


def test_the_installed_version_is_the_packages():
    assert metadata.version(PROJECT["name"]) == autolora.__version__


def test_every_command_that_installs_autolora_names_the_distribution_and_its_extras():
    found = []
    for path in [*ROOT.glob("*.md"), *(each for room in ("autolora", "docs", "examples") for each in _texts(room))]:
        found += INSTALL.findall(path.read_text(encoding="utf-8"))
    assert {name for name, _ in found} == {PROJECT["name"]}
    extras = {extra for _, listed in found for extra in listed.split(",") if extra}
    assert extras == {"bitsandbytes", "postgres", "ray", "report", "trl"} <= set(PROJECT["optional-dependencies"])


def test_extras_refer_to_extras_of_this_distribution():
    needed = [each for extra in PROJECT["optional-dependencies"].values() for each in extra]
    own = [each for each in needed if each.startswith("autolora")]
    assert own
    assert all(each.startswith(f"{PROJECT['name']}[") for each in own)


def test_the_changelog_has_the_current_version_and_what_is_unreleased():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert autolora.__version__ in headings


def test_the_citation_has_what_its_format_requires_and_no_version():
    citation = read_yaml("CITATION.cff")
    assert set(citation) >= {"cff-version", "message", "title", "authors"}
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert "version" not in citation


def test_continuous_integration_runs_every_python_that_the_classifiers_name():
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    jobs = read_yaml(".github", "workflows", "ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert SETUP["tool"]["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"


@pytest.mark.parametrize("path", [each for each in FORMS if each.name != "config.yml"], ids=lambda path: path.stem)
def test_an_issue_form_has_what_github_requires(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    fields = [each for each in form["body"] if each["type"] != "markdown"]
    assert form["name"]
    assert form["description"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["attributes"]["label"] for field in fields)


def _texts(room: str) -> list[Path]:
    return [path for path in ROOT.joinpath(room).rglob("*") if path.suffix in {".md", ".py", ".yaml"}]
