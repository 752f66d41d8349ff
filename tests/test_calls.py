"""Calls can be read: none has so many positional arguments that one must count them."""

from __future__ import annotations

import ast
from pathlib import Path

import autolora

ROOT = Path(autolora.__file__).parent
MOST = 6


def test_no_call_has_more_than_six_positional_arguments():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > MOST:
                found.append(f"{name}:{node.lineno} {ast.unparse(node.func)}: {len(node.args)}")
    assert found == []
