"""The problems of the benchmark, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from studies.search import paper_tables
from studies.search.curve_table import CurveTable
from studies.search.edge import Edge
from studies.search.hartmann import MFHartmann
from studies.search.problem import Problem

PAPER_VARIABLE = "AUTOLORA_PAPER_TABLES"
"""Environment variable with the path of learning_rate_matters.csv, which is not part of the project."""

OWN: Mapping[str, Callable[[], Problem]] = {
    "curves/quickstart": lambda: CurveTable.grid("quickstart"),
    "curves/stories260k": lambda: CurveTable.grid("stories260k"),
    "curves/qwen3-orders": lambda: CurveTable.grid("qwen3-orders"),
    "curves/stories260k-scenes": lambda: CurveTable.grid("stories260k-scenes"),
    "curves/quickstart-variants": lambda: CurveTable.many("quickstart"),
    "curves/stories260k-variants": lambda: CurveTable.many("stories260k"),
    "hartmann/3-good": lambda: MFHartmann(3, "good"),
    "hartmann/3-terrible": lambda: MFHartmann(3, "terrible"),
    "hartmann/6-good": lambda: MFHartmann(6, "good"),
    "hartmann/6-terrible": lambda: MFHartmann(6, "terrible"),
    "edge/unbiased": lambda: Edge("unbiased", offset=0.3),
    "edge/short-runs-bear-more": lambda: Edge("short-runs-bear-more", offset=-0.3, bias=0.3),
    "edge/short-runs-bear-less": lambda: Edge("short-runs-bear-less", offset=0.3, bias=-0.3),
    "edge/laws-10x-too-low": lambda: Edge("laws-10x-too-low", offset=1.0, bias=-0.15),
    "edge/laws-10x-too-high": lambda: Edge("laws-10x-too-high", offset=-1.0, bias=0.15),
}


def paper_path(given: Path | None = None) -> Path | None:
    """The paper's table, as given or from the environment; None where there is no such file."""
    path = given or (Path(os.environ[PAPER_VARIABLE]) if os.environ.get(PAPER_VARIABLE) else None)
    return path if path is not None and path.is_file() else None


@lru_cache
def _papers(path: Path) -> dict[str, Problem]:
    return {problem.name: problem for problem in paper_tables.load(path)}


def names(path: Path | None) -> list[str]:
    """All problems that can be had: those of the paper only where its table is."""
    return [*(_papers(path) if path else {}), *OWN]


@lru_cache
def get(name: str, path: Path | None) -> Problem:
    return OWN[name]() if name in OWN else _papers(path or Path())[name]
