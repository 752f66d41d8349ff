"""Documents for developers name what is there, and their examples register what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from tests.test_house import FLOORS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
HOUSE = ROOT / "docs" / "architecture.md"
EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
NAME = re.compile(r"autolora(?:\.\w+)+")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|md|yaml|yml|toml|txt|cff|json))|\.?[\w-]+(?:/[\w-]+)+")
OF_A_RUN = {"best.json"}
"""Files of a run directory."""
MAKE = re.compile(r"\bmake ([a-z][\w-]*)\b")


def prose(document: Path) -> list[str]:
    """What stands in backticks outside of code blocks."""
    return CODE.findall(FENCE.sub("", document.read_text(encoding="utf-8")))


def examples(document: Path) -> list[str]:
    """Blocks of Python, as modules or parts of one."""
    return [code for language, code in FENCE.findall(document.read_text(encoding="utf-8")) if language == "python"]


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    module, *attributes = name.split(".")
    found = import_module(module)
    for attribute in attributes:
        module = f"{module}.{attribute}"
        if hasattr(found, attribute):
            found = getattr(found, attribute)
        elif hasattr(found, "__path__"):
            try:
                found = import_module(module)
            except ModuleNotFoundError:
                return False
        else:
            return False
    return True


@EACH
def test_every_name_of_the_package_is_there(document):
    named = {name for code in prose(document) for name in NAME.findall(code)}
    assert [name for name in sorted(named) if not is_there(name)] == []


@EACH
def test_every_path_is_there(document):
    named = {code for code in prose(document) if PATH.fullmatch(code)} - OF_A_RUN
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@EACH
def test_every_word_of_code_stands_in_code(document):
    """Classes, attributes, constants, tests and keys that are named without their module."""
    named = {code for code in prose(document) if code.isidentifier()}
    modules = [path for room in ("autolora", "tests") for path in ROOT.joinpath(room).rglob("*.py")]
    words = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in modules)))
    assert sorted(named - words) == []


def test_the_house_is_described_from_the_bottom_up():
    described = re.findall(r"`autolora/(\w+)(?:/|\.py)`", HOUSE.read_text(encoding="utf-8").split("### ")[0])
    first = {room: described.index(room) for floor in FLOORS for room in floor}
    for lower, upper in pairwise(FLOORS):
        assert max(first[room] for room in lower) < min(first[room] for room in upper)


@EACH
def test_every_link_leads_somewhere(document):
    links = LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8")))
    assert [link for link in links if not (document.parent / link).exists()] == []


def targets() -> list[str]:
    """Targets of make that these documents and README name."""
    documents = (*DOCUMENTS, ROOT / "README.md")
    inline = [code for document in documents for code in prose(document)]
    blocks = [code for document in documents for _, code in FENCE.findall(document.read_text(encoding="utf-8"))]
    return sorted({target for code in (*inline, *blocks) for target in MAKE.findall(code)})


@pytest.mark.parametrize("target", targets())
def test_every_target_of_make_is_there(target):
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@EACH
def test_code_compiles(document):
    for code in examples(document):
        compile(f"{{{code}}}" if code.startswith(" ") else code, document.name, "exec")  # else entries of a mapping


def test_what_is_to_be_added_is_not_there_yet_and_its_folder_is():
    """An example that the package has taken over teaches nothing."""
    paths = [ROOT / code.split()[1] for code in examples(ROOT / "CONTRIBUTING.md") if code.startswith("# ")]
    assert len(paths) >= 3
    assert all(path.parent.is_dir() and not path.exists() for path in paths)


REGISTERED = """
from autolora import metrics, space, variants
from autolora.tasks.causal_lm.formats import format
names = [*variants.names(), *(each.name for each in space.registry()), *format.registry(), *metrics.registry()]
print(*names)
"""


def test_what_is_to_be_added_registers():
    """In a process of its own, whose registries are thrown away."""
    added = [code for code in examples(ROOT / "CONTRIBUTING.md") if code.startswith("# autolora/")]
    program = "".join(f"exec(compile({code!r}, 'example', 'exec'), {{'__name__': 'example'}})\n" for code in added)
    run = subprocess.run([sys.executable, "-c", program + REGISTERED], capture_output=True, text=True, check=True)
    assert {Path(code.split()[1]).stem for code in added} <= set(run.stdout.split())
