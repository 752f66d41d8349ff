"""The scaling laws as they would be without a problem's own table, from the fits of studies/laws."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from unittest.mock import patch

from autolora import laws, variants
from autolora.space import Searchable, Traits
from studies.laws.fit import FITTED, LAWS


def fit_without(problem: str) -> Mapping[str, float] | None:
    """Terms of the fit that did not see a problem; None if no fit saw it."""
    own = problem.removesuffix("-variants")
    name = "without paper" if own.startswith("paper") else f"without {own}"
    return _fits().get(name)


@contextmanager
def laws_without(problem: str) -> Iterator[None]:
    """A context in which ``autolora.laws`` states what was fitted without a problem."""
    fitted = fit_without(problem)
    stated = {} if fitted is None else {constant: fitted[term] for term, (constant, _) in LAWS.items()}
    with patch.multiple(laws, **stated):
        yield


def variants_without(problem: str, names: Sequence[str]) -> dict[str, Searchable]:
    """Variants by name; those of the fit with its shift and exponent of s."""
    fitted = fit_without(problem) or {}
    return {name: _with(name, fitted) for name in names}


def _with(name: str, fitted: Mapping[str, float]) -> Searchable:
    variant = variants.get(name)
    traits = replace(variant.traits, shift=fitted.get(name, variant.traits.shift))
    if traits.exponent == Traits().exponent:
        traits = replace(traits, exponent=fitted.get("scale", traits.exponent))
    return replace(variant, traits=traits)


@cache
def _fits() -> dict[str, dict[str, float]]:
    return {name: found["means"] for name, found in json.loads(FITTED.read_text()).items()}
