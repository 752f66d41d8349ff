"""The house: imports point one way. Those inside functions and those for type checkers alone count, too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import autolora

ROOT = Path(autolora.__file__).parent
FLOORS = (
    ("laws", "errors", "losses", "scores", "files", "quantities", "references", "quickstart"),
    ("documents", "head", "sections", "urls"),
    ("mistakes",),
    ("space",),
    ("adapters",),
    ("variants",),
    ("priors",),
    ("search",),
    ("analysis",),
    ("study",),
    ("metrics", "tasks", "trainer_specs"),
    ("spec",),
    ("bases",),
    ("advising", "trainers"),
    ("execution",),
    ("driver",),
    ("integrations", "report", "recipes", "trackers"),
    ("api", "cli", "testing"),
    ("__init__",),
)
"""Rooms bottom up. A room imports from lower floors alone."""
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}
LIGHT, HEAVY = ("laws", "space", "search", "analysis", "study"), {"torch", "ray"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


STUDIES = sorted(ROOT.parent.glob("studies/*/*.py"))


@pytest.mark.parametrize("path", STUDIES, ids=[f"{path.parent.name}/{path.name}" for path in STUDIES])
def test_what_a_study_imports_of_the_package_is_there(path):
    """No type checker reads them, and most run for hours."""
    wanted = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "autolora"
        for alias in node.names
    ]
    for module, name in wanted:
        found = hasattr(import_module(module), name) or f"{module}.{name}" in modules()
        assert found, f"{module} has no {name}"


@cache
def imported(module: str) -> frozenset[str]:
    """What a module imports anywhere: our modules by name, other packages by theirs."""
    return frozenset(_imported(module, ast.parse(modules()[module].read_text())))


def _imported(module: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_named(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            # The version is a constant; whoever reads it depends on nothing else of the package's root.
            yield from (_named(f"{node.module}.{alias.name}") for alias in node.names if alias.name != "__version__")


def _named(name: str) -> str:
    """The module that an import loads; the package where it is not one of ours."""
    if name.partition(".")[0] != "autolora":
        return name.partition(".")[0]
    while name not in modules():
        name = name.rpartition(".")[0]
    return name


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_from_its_own_room_and_lower_floors_alone(module):
    ours = (name for name in imported(module) if name in modules())
    assert [name for name in ours if room(name) != room(module) and HEIGHT[room(name)] >= HEIGHT[room(module)]] == []


def test_no_modules_import_one_another_in_a_circle():
    graph = {module: {name for name in imported(module) if name in modules()} - {module} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("light", LIGHT)
def test_what_decides_and_records_reaches_neither_torch_nor_ray(light):
    """Not even in functions that may never be called."""
    waiting = [module for module in modules() if room(module) == light]
    seen: dict[str, str] = dict.fromkeys(waiting, "")
    while waiting:
        module = waiting.pop()
        for name in imported(module):
            assert name not in HEAVY, f"{module} imports {name}; reached by {_path(seen, module)}"
            if name in modules() and name not in seen:
                seen[name] = module
                waiting.append(name)


def _path(seen: dict[str, str], module: str) -> str:
    steps = [module]
    while seen[steps[-1]]:
        steps.append(seen[steps[-1]])
    return " <- ".join(steps)
