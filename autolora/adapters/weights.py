"""The weight matrices of a model: every parameter with two dimensions or more, and which of them PEFT can adapt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.adapters.packed import bits_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LinearLayer:
    """One layer that can be adapted.

    Attributes:
        out_features, in_features: m and n of the weight W (m, n), of each expert.
        transposed: the module stores W as (n, m), as GPT-2's ``Conv1D`` does.
        experts: matrices in the one parameter that holds them all; 0: the layer is a module of its own.
        bits: of the packed W: 4 or 8, or None if it is not packed.
    """

    out_features: int
    in_features: int
    transposed: bool
    experts: int = 0
    bits: int | None = None

    @property
    def largest_rank(self) -> int:
        return min(self.out_features, self.in_features)

    @property
    def size(self) -> int:
        """Numbers in the weight, of all experts together."""
        return self.out_features * self.in_features * max(1, self.experts)


@dataclass(frozen=True, eq=False)
class Facts:
    """What tells the layers of a model apart.

    Attributes:
        head: the output head; None if there is none.
        language_model: name of the module that is the language model within a larger model, with a dot at its end;
            empty if the whole model is one.
        expert_counts: how many experts its layers have, by the configuration and by the parameters that hold them.
    """

    head: nn.Module | None
    language_model: str
    expert_counts: frozenset[int]

    @classmethod
    def of(cls, model: nn.Module) -> Facts:
        config = getattr(model, "config", None)
        text = config.get_text_config() if config is not None else None
        return cls(
            head=getattr(model, "get_output_embeddings", lambda: None)(),
            language_model=_within(model) if text is not config else "",
            expert_counts=frozenset({*_expert_counts(text.to_dict() if text is not None else {}), *_stacked(model)}),
        )


def _within(model: nn.Module) -> str:
    decoder = getattr(model, "get_decoder", lambda: None)()
    base = getattr(model, "base_model", None)
    if decoder is None or decoder is model or decoder is base:
        return ""
    return next((f"{name}." for name, module in model.named_modules() if module is decoder), "")


def _expert_counts(settings: Mapping[str, object]) -> Iterator[int]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _expert_counts(value)
        elif isinstance(value, int) and value > 1 and re.fullmatch(r"(moe_)?(num|n)_(\w+_)?experts", str(key)):
            yield value


def _stacked(model: nn.Module) -> Iterator[int]:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and "expert" in name:
            yield len(parameter)


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight of a model.

    Attributes:
        key: the parameter's name.
        module, parent: what holds the parameter, and what holds that.
        layer: its shape as a layer; None if it is none that PEFT can adapt.
        rows: length of its first dimension.
        size: numbers in it; 0 where it is another one's, to which it is tied.
        facts: of the model.
    """

    key: str
    module: nn.Module
    parent: nn.Module
    layer: LinearLayer | None
    rows: int
    size: int
    facts: Facts

    @property
    def name(self) -> str:
        """The layer's: a module's own, or that of the parameter that holds experts."""
        return self.key if self.layer is None or self.layer.experts else self.key.removesuffix(".weight")

    @property
    def parts(self) -> list[str]:
        """The name's parts without numbers."""
        return [part for part in self.key.removesuffix(".weight").split(".") if not part.isdigit()]

    @property
    def kind(self) -> str:
        """The end of the name, which the weights of one kind share: "q_proj", "experts.down_proj"."""
        return ".".join(self.parts[-2:] if self.layer is not None and self.layer.experts else self.parts[-1:])


def weights(model: nn.Module) -> Iterator[Weight]:
    """All of them, in the model's order; of experts, each parameter is one.

    Raises:
        VariantError: the model carries an adapter already.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    facts, modules, seen = Facts.of(model), dict(model.named_modules()), set()
    for path, module in modules.items():
        if isinstance(module, BaseTunerLayer):
            raise VariantError(f"{describe(model)} carries an adapter already (at {path!r}): detach it first")
        for attribute, parameter in module.named_parameters(recurse=False):
            layer = _layer(module, attribute, parameter)
            if layer is None and parameter.ndim < 2:
                continue
            size = 0 if id(parameter) in seen else parameter.numel() if layer is None else layer.size
            seen.add(id(parameter))
            key = f"{path}.{attribute}" if path else attribute
            yield Weight(
                key=key,
                module=module,
                parent=modules[path.rpartition(".")[0]],
                layer=layer,
                rows=len(parameter) if layer is None or layer.experts else layer.out_features,
                size=size,
                facts=facts,
            )


def _layer(module: nn.Module, attribute: str, parameter: nn.Parameter) -> LinearLayer | None:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        if attribute != "weight":
            return None
        return LinearLayer(module.out_features, module.in_features, transposed=False, bits=bits_of(module))
    if isinstance(module, Conv1D):
        if attribute != "weight":
            return None
        in_features, out_features = parameter.shape
        return LinearLayer(out_features, in_features, transposed=True)
    stacked = parameter.ndim == 3 and min(parameter.shape) > 1 and not attribute.endswith("bias")
    if not stacked or isinstance(module, nn.modules.conv._ConvNd):
        return None
    experts, out_features, in_features = parameter.shape
    if getattr(module, "is_transposed", False):  # PEFT asks the same attribute
        in_features, out_features = out_features, in_features
    return LinearLayer(out_features, in_features, transposed=False, experts=experts)


def describe(model: nn.Module) -> str:
    path = getattr(model, "name_or_path", "")
    return f"{type(model).__name__} ({path})" if path else type(model).__name__
