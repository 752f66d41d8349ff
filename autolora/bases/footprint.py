"""What training a variant on a model takes in memory, counted on its outline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.adapters.memory import Memory
from autolora.bases.outline import Outline

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from autolora.adapters.targets import Coverage, LinearLayer
    from autolora.variants import Variant

LENGTH = 1024
"""Tokens of the example whose activations are stated, or as many as the model can read."""
USUAL_RANKS = (32, 16, 8, 4, 2, 1)


class Footprint:
    """One variant on one model, layer by layer."""

    def __init__(self, outline: Outline, variant: Variant) -> None:
        """Account for the layers of an outline whose model could be built.

        Raises:
            VariantError: the model has no layer to adapt.
        """
        from autolora.adapters.targets import survey

        assert outline.model is not None
        self.outline = outline
        self.variant = variant
        self.model: PreTrainedModel = outline.model
        self.coverage: Coverage = survey(self.model)

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

    def memory(self, rank: int) -> Memory | None:
        """The estimate at a rank; None if what trains can only be counted with the weights."""
        trained = self._trained(rank)
        if trained is None:
            return None
        sizes: Counter[str] = Counter()
        for parameter in self.model.parameters():
            sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel() * parameter.element_size()
        return Memory(
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            base_bytes=sizes.total(),
            dtype=sizes.most_common(1)[0][0],
            trained=trained,
            hidden_size=self.outline.hidden_size,
            layers=self.outline.layers,
            length=min(LENGTH, self.outline.positions or LENGTH),
        )

    def _misfit(self, rank: int) -> VariantError | None:
        from autolora.adapters.targets import check_rank

        try:
            check_rank(self.model, self.coverage.at_rank(rank), rank)
        except VariantError as error:
            return error
        return None

    def _trained(self, rank: int) -> int | None:
        layers = self.coverage.at_rank(rank)
        if self.variant.factored and self.variant.kind != "architecture":  # A and B train, wherever they start
            return _factors(layers, rank)
        whole = self._attached(self.variant, rank)
        if whole is not None or self.variant.mixture:
            return whole
        bare = copy(self.variant)  # its start needs the weights' values; what PEFT has injected is all that trains
        object.__setattr__(bare, "initialize", lambda start: None)
        return self._attached(bare, rank)

    def _attached(self, variant: Variant, rank: int) -> int | None:
        """Parameters that train once the variant is on the outline; None if that takes values."""
        from autolora.variants import detach

        try:
            attached = variant.attach(self.model, rank=rank, alpha=float(rank), horizon=1000)
        except Exception:  # whatever a variant's start makes of parameters without values
            return None
        trained = sum(parameter.numel() for parameter in attached.parameters() if parameter.requires_grad)
        detach(attached)
        return trained


def _factors(layers: Mapping[str, LinearLayer], rank: int) -> int:
    """Numbers in A (r, n) and B (m, r) of all layers, experts one by one."""
    return sum(rank * (layer.out_features + layer.in_features) * max(1, layer.experts) for layer in layers.values())
