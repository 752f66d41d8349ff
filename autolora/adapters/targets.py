"""Which layers carry an adapter, and for every other weight matrix of the model, why it carries none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from autolora.adapters.errors import VariantError
from autolora.adapters.reasons import (
    EXCLUDED,
    UNNAMED,
    UNNAMED_PARAMETER,
    Reason,
    other_sense,
    reason_for,
    steering,
)
from autolora.adapters.spec import ALL_LINEAR, AUTO, AdapterSpec
from autolora.adapters.weights import LinearLayer, Weight, describe, weights
from autolora.errors import closest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Coverage", "LinearLayer", "by_type", "check_rank", "describe", "every_linear_layer", "survey"]

DEFAULT = AdapterSpec()
NARROW = 32
"""A layer whose largest rank is this many times below the widest layer's does not limit the rank of the others."""


class Shaped(Protocol):
    """What has the shape (m, n) of a linear layer's weight."""

    @property
    def out_features(self) -> int: ...

    @property
    def in_features(self) -> int: ...


@dataclass(frozen=True)
class Coverage:
    """Every weight matrix of a model: those that are adapted, and the others with the reason.

    Attributes:
        adapted: weights that get an adapter, in the model's order.
        left_out: the others.
    """

    adapted: tuple[Weight, ...]
    left_out: tuple[tuple[Weight, Reason], ...]

    @cached_property
    def layers(self) -> dict[str, LinearLayer]:
        """The adapted ones by name, modules first: a module by its own name, experts by their parameter's."""
        found = {weight.name: weight.layer for weight in self.adapted if weight.layer is not None}
        return dict(sorted(found.items(), key=lambda item: item[1].experts > 0))

    @property
    def share(self) -> float:
        """Share of the weights that get an adapter, of all but embeddings, biases and the output head."""
        adapted = sum(weight.size for weight in self.adapted)
        return adapted / (adapted + sum(weight.size for weight, reason in self.left_out if reason.of_layers))

    @property
    def kinds(self) -> list[str]:
        """Ends of the adapted layers' names."""
        return list(dict.fromkeys(weight.kind for weight in self.adapted))

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Kinds of weights that are left out, by the reason in words."""
        found: dict[Reason, dict[str, None]] = {}
        for weight, reason in self.left_out:
            kind = other_sense(weight) or steering(weight) or weight.kind
            found.setdefault(reason, {})[kind] = None
        counts = {
            reason: sum(1 for weight, own in self.left_out if own is reason and weight.layer is not None)
            for reason in found
        }
        return {reason.words.format(layers=counts[reason]): list(kinds) for reason, kinds in found.items()}

    def lines(self) -> list[str]:
        """For people: what is adapted, with its share of the weights, and what is not, with the reasons."""
        left = "; ".join(f"{', '.join(kinds)} ({reason})" for reason, kinds in self.reasons.items())
        narrow = {
            weight.kind: weight.layer for weight in self.adapted if weight.layer and self._is_narrow(weight.layer)
        }
        return [
            f"adapters on {', '.join(self.kinds)} ({100 * self.share:.1f}% of the weights of layers)",
            *([f"no adapter on {left}"] if left else []),
            *(f"{kind} is left out at ranks above {layer.largest_rank}" for kind, layer in narrow.items()),
        ]

    def at_rank(self, rank: int) -> dict[str, LinearLayer]:
        """The layers that get an adapter of this rank: all but narrow ones that it does not fit."""
        return {
            name: layer
            for name, layer in self.layers.items()
            if rank <= layer.largest_rank or not self._is_narrow(layer)
        }

    def _is_narrow(self, layer: LinearLayer) -> bool:
        return layer.largest_rank * NARROW <= self._widest

    @cached_property
    def _widest(self) -> int:
        return max(layer.largest_rank for layer in self.layers.values())


def survey(model: nn.Module, adapter: AdapterSpec = DEFAULT) -> Coverage:
    """Account for every parameter of a model that has two dimensions or more.

    Args:
        model: without adapters. Values are not read, so the parameters may be on the device "meta".
        adapter: which layers to adapt.

    Raises:
        VariantError: a name in ``adapter`` matches no layer, nothing is left to adapt, or the model carries an adapter
            already.
    """
    found = list(weights(model))
    _check_names(model, found, adapter)
    judged = [(weight, _reason(weight, adapter)) for weight in found]
    adapted = tuple(weight for weight, reason in judged if reason is None)
    left_out = tuple((weight, reason) for weight, reason in judged if reason is not None)
    if not adapted:
        coverage = Coverage(adapted, left_out)
        there = "; ".join(f"{', '.join(kinds)} ({reason})" for reason, kinds in coverage.reasons.items())
        raise VariantError(f"{describe(model)} has no linear layer to adapt. It has {there or 'no weight matrix'}")
    return Coverage(adapted, left_out)


def linear_layers(model: nn.Module, adapter: AdapterSpec = DEFAULT) -> dict[str, LinearLayer]:
    """The layers to adapt that are modules of their own, which experts are not; raises as :func:`survey`."""
    return {name: layer for name, layer in survey(model, adapter).layers.items() if not layer.experts}


def every_linear_layer(model: nn.Module) -> list[str]:
    """Names of all linear modules but the output head, which are PEFT's "all-linear"."""
    found = [weight for weight in weights(model) if weight.layer is not None and not weight.layer.experts]
    return [weight.name for weight in found if weight.module is not weight.facts.head]


def by_type(layers: Mapping[str, Shaped]) -> dict[str, list[str]]:
    """Names of the layers that differ by their number in the model alone and are of one shape, by the first's name."""
    kinds: dict[tuple[str, int, int], list[str]] = {}
    for name, layer in layers.items():
        kind = re.sub(r"\.\d+(?=\.)", "", name)
        kinds.setdefault((kind, layer.out_features, layer.in_features), []).append(name)
    return {names[0]: names for names in kinds.values()}


def check_rank(model: nn.Module, layers: Mapping[str, LinearLayer], rank: int) -> None:
    """Raise ``VariantError`` where the rank does not fit every layer, naming the smallest layer."""
    name, smallest = min(layers.items(), key=lambda item: item[1].largest_rank)
    if not 1 <= rank <= smallest.largest_rank:
        raise VariantError(
            f"rank {rank} does not fit layer {name!r} of {describe(model)} "
            f"({smallest.out_features} x {smallest.in_features}): use 1 to {smallest.largest_rank}"
        )


def _reason(weight: Weight, adapter: AdapterSpec) -> Reason | None:
    """Why a weight gets no adapter; None if it gets one."""
    layer = weight.layer
    if layer is None:
        return reason_for(weight)
    wanted = (
        adapter.target_parameters if layer.experts and adapter.target_parameters != AUTO else adapter.target_modules
    )
    if wanted != ALL_LINEAR and not _matches(wanted, weight):
        return reason_for(weight, named=True) or (UNNAMED if wanted is adapter.target_modules else UNNAMED_PARAMETER)
    if adapter.exclude_modules is not None and _matches(adapter.exclude_modules, weight):
        return reason_for(weight, named=True) or EXCLUDED
    return reason_for(weight, named=wanted != ALL_LINEAR and _is_asked_for(wanted, weight))


def _matches(names: str | Sequence[str], weight: Weight) -> bool:
    """As in PEFT: an expression matches whole names, a list names or their ends."""
    if isinstance(names, str):
        return re.fullmatch(names, weight.name) is not None
    return any(f".{weight.name}".endswith(f".{name}") for name in names)


def _is_asked_for(names: str | Sequence[str], weight: Weight) -> bool:
    """Whether a match is meant: "q_proj" is not to reach a vision tower, whose layers have the same names."""
    sense = other_sense(weight)
    if isinstance(names, str) or not sense:
        return True
    return any(_matches([name], weight) and sense in name.split(".") for name in names)


def _check_names(model: nn.Module, found: Sequence[Weight], adapter: AdapterSpec) -> None:
    """Raise ``VariantError`` for a name that would change nothing."""
    stacks = [weight for weight in found if weight.layer is None or weight.layer.experts]
    modules = [weight for weight in found if weight.layer is None or not weight.layer.experts]
    targets = found if adapter.target_parameters == AUTO else modules
    _check_key(model, "target_modules", adapter.target_modules, targets)
    if adapter.target_parameters != AUTO:
        _check_key(model, "target_parameters", adapter.target_parameters, stacks)
    if adapter.exclude_modules is not None:
        _check_key(model, "exclude_modules", adapter.exclude_modules, found)


def _check_key(model: nn.Module, key: str, names: str | Sequence[str], among: Sequence[Weight]) -> None:
    if names == ALL_LINEAR:
        return
    for name in [names] if isinstance(names, str) else names:
        matched = [weight for weight in among if _matches(names if isinstance(names, str) else [name], weight)]
        if any(reason_for(weight, named=True) is None for weight in matched):
            continue
        if matched:
            reasons = {weight.kind: reason for weight in matched if (reason := reason_for(weight, named=True))}
            there = ", ".join(f"{kind} ({reason.words})" for kind, reason in reasons.items())
            raise VariantError(f"adapter.{key}: {name!r} names only what cannot be adapted: {there}")
        kinds = dict.fromkeys(weight.kind for weight in among if reason_for(weight, named=True) is None)
        close = closest(name, kinds)
        hint = f"did you mean {close!r}? " if close and close != name else ""
        if isinstance(names, str):
            hint += "a text is a regular expression over whole names; write names as a list, as in [q_proj, v_proj]. "
        raise VariantError(
            f"adapter.{key}: {name!r} matches no layer of {describe(model)}. {hint.capitalize()}"
            f"There are {', '.join(kinds) or 'none'}"
        )
