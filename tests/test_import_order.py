"""Imports point one way. Those inside functions and those for type checkers alone count, too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import autolora

ROOT = Path(autolora.__file__).parent
FLOORS = (
    ("laws", "errors", "losses", "scores", "files", "quickstart"),
    ("space",),
    ("adapters",),
    ("variants",),
    ("priors",),
    ("options",),
    ("search",),
    ("analysis",),
    ("study",),
    ("metrics",),
    ("spec",),
    ("training",),
    ("execution",),
    ("driver",),
    ("integrations", "report", "recipes"),
    ("api", "cli"),
    ("__init__",),
)
"""Rooms bottom up. A room imports from lower floors alone."""
EXEMPT = {("space", "priors")}
"""Imports that are to go."""
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from within if node.module == "autolora" else [str(node.module)]


def test_a_room_imports_from_lower_floors_alone():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT)
        room = name.parts[0].removesuffix(".py")
        for module in _imported(ast.parse(path.read_text())):
            parts = module.split(".")
            if parts[0] != "autolora":
                continue
            target = parts[1] if len(parts) > 1 else "__init__"
            allowed = target == room or HEIGHT[target] < HEIGHT[room] or (room, target) in EXEMPT
            if not allowed:
                wrong.append(f"{name} imports {module}")
    assert wrong == []
