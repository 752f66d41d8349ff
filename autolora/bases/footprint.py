"""What a variant on a model is made of: layers, weights and what trains, counted on the model's outline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.adapters.memory import FLOAT32
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.targets import DEFAULT
from autolora.bases.device import own_dtype
from autolora.bases.outline import Outline
from autolora.bases.packed import held_bytes, unpacked_bytes
from autolora.variants import Variant

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from autolora.adapters.targets import Coverage, LinearLayer

USUAL_RANKS = (32, 16, 8, 4, 2, 1)


class Footprint:
    """One variant on one model, layer by layer.

    Args:
        outline: of a model that could be built.
        variant: what is trained.
        adapter: which layers carry an adapter.

    Raises:
        VariantError: the model has no layer to adapt.
    """

    def __init__(self, outline: Outline, variant: Variant, adapter: AdapterSpec = DEFAULT) -> None:
        from autolora.adapters.targets import survey

        assert outline.model is not None
        self.outline = outline
        self.variant = variant
        self.model: PreTrainedModel = outline.model
        self.adapter = adapter
        self.coverage: Coverage = survey(self.model, adapter)

    def usual_rank(self) -> int:
        """The largest usual rank that the variant can be trained with here, or that fits the layers at least."""
        fitting = [rank for rank in USUAL_RANKS if self._misfit(rank) is None]
        trained = [rank for rank in fitting if self.refusal(rank) is None]
        return next(iter([*trained, *fitting]), 1)

    def check_rank(self, rank: int) -> None:
        """Raise ``VariantError`` if a rank does not fit the layers."""
        fault = self._misfit(rank)
        if fault is not None:
            raise fault

    def refusal(self, rank: int) -> str | None:
        """Why the variant cannot be trained here at this rank; None if nothing is known that speaks against it."""
        from autolora.adapters.start import Start

        start = Start(self.model, self.coverage.at_rank(rank), rank, float(rank))
        try:
            self.variant.check(start)
        except VariantError as error:
            return str(error)
        return None

    @property
    def has_experts(self) -> bool:
        """Whether weights of the base are stacks of experts, adapted or not."""
        found = (*self.coverage.adapted, *(weight for weight, _ in self.coverage.left_out))
        return any(weight.layer is not None and weight.layer.experts > 0 for weight in found)

    @property
    def packable(self) -> bool:
        """Whether the variant can be trained on a base in 4 bits, which has linear layers to pack."""
        return 4 in self.variant.bits and any(not layer.experts for layer in self.coverage.layers.values())

    @property
    def parameters(self) -> int:
        """Numbers in the base."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def base_bytes(self, dtype: torch.dtype | None = None, bits: int | None = None) -> int:
        """Bytes of the base's weights.

        Args:
            dtype: None: as they are.
            bits: of linear layers, of which the largest is unpacked besides; None: of none.
        """
        unpacked = unpacked_bytes(self.model, dtype or own_dtype(self.model)) if bits else 0
        return held_bytes(self.model, dtype, bits) + unpacked

    def kept_bytes(self, rank: int, dtype: torch.dtype | None = None, bits: int | None = None) -> int:
        """Bytes of original weights that are kept on the CPU while the variant trains; see ``Variant.subtracts``.

        Packed weights are not replaced, but the factors of what is subtracted lie beside them.
        """
        if not self.variant.subtracts:
            return 0
        if bits:
            return FLOAT32 * _factors(self.coverage.at_rank(rank), rank)
        parameters = dict(self.model.named_parameters())
        names = (name if layer.experts else f"{name}.weight" for name, layer in self.coverage.at_rank(rank).items())
        return sum(_bytes(parameters[name], dtype) for name in names)

    def trained(self, rank: int) -> int | None:
        """Parameters that train; None if they can only be counted with the weights."""
        if self._factors_alone:
            return _factors(self.coverage.at_rank(rank), rank)
        adapted = self.adapted(rank)
        if adapted is None:
            return None
        return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)

    @property
    def _factors_alone(self) -> bool:
        """A and B train, wherever they start."""
        return self.variant.factored and self.variant.kind != "architecture"

    def adapted(self, rank: int, dropout: float = 0.0) -> PeftModel | None:
        """A copy of the outline with what the variant injects; None if that takes the values of weights."""
        from autolora.bases.tracing import without_values
        from autolora.variants import detach

        attached = self._attached(self.variant, rank, dropout)
        if attached is None and not self.variant.mixture:
            attached = self._attached(_without_start(self.variant), rank, dropout)
        if attached is None:
            return None
        try:
            return without_values(attached)
        finally:
            detach(attached)

    def _misfit(self, rank: int) -> VariantError | None:
        from autolora.adapters.targets import check_rank

        try:
            check_rank(self.model, self.coverage.at_rank(rank), rank)
        except VariantError as error:
            return error
        return None

    def _attached(self, variant: Variant, rank: int, dropout: float) -> PeftModel | None:
        """The variant on the outline; None if that takes values."""
        try:
            return variant.attach(
                self.model, rank=rank, alpha=float(rank), horizon=1000, dropout=dropout, adapter=self.adapter
            )
        except Exception:  # whatever a variant's start makes of parameters without values
            return None


def _without_start(variant: Variant) -> Variant:
    """The variant without what it computes from weights and data: what PEFT has injected is all that trains."""
    bare = replace(variant, needs=tuple(need for need in variant.needs if need == "horizon"))
    object.__setattr__(bare, "initialize", lambda start: None)
    object.__setattr__(bare, "allocate", partial(Variant.allocate, bare))
    return bare


def _bytes(parameter: Parameter, dtype: torch.dtype | None) -> int:
    """Bytes of a parameter in a dtype; None: as it is."""
    if dtype is None or not parameter.is_floating_point():
        return parameter.numel() * parameter.element_size()
    return parameter.numel() * dtype.itemsize


def _factors(layers: Mapping[str, LinearLayer], rank: int) -> int:
    """Numbers in A (r, n) and B (m, r) of all layers, experts one by one."""
    return sum(rank * (layer.out_features + layer.in_features) * max(1, layer.experts) for layer in layers.values())
