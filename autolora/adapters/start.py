"""What the start of an adapter is computed from, and what each layer gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from autolora.adapters.draws import random_stream

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

    Batch = Mapping[str, Tensor]

DEFAULT_NAME = "default"
"""Name of an adapter if none is given: PEFT's own default."""

Layer = TypeVar("Layer")


class Allotment(NamedTuple):
    """What one layer gets."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class Start(Generic[Layer]):
    """What a variant knows when it checks, when it allots ranks and when it sets the values that training starts from.

    A new input is a field here. No variant's signature changes.

    Attributes:
        model: the base model until ranks are allotted, the attached ``PeftModel`` afterwards.
        layers: by name in the base: a :class:`~autolora.adapters.targets.LinearLayer` each until ranks are allotted,
            an :class:`~autolora.adapters.layer.AdaptedLayer` each afterwards, of those that got an adapter.
        rank, alpha: as asked for; a layer's own may differ, see :class:`Allotment`.
        seed: of all randomness of the start.
        batches: list of token batches: input_ids, labels and attention_mask, each (batch, seq); None if not given.
        horizon: optimizer steps of the full run; None if not given.
        adapter_name: PEFT's name of the adapter.
        dropout: on the adapter's input.
    """

    model: PreTrainedModel | PeftModel
    layers: Mapping[str, Layer]
    rank: int
    alpha: float
    seed: int = 0
    batches: Sequence[Batch] | None = None
    horizon: int | None = None
    adapter_name: str = DEFAULT_NAME
    dropout: float = 0.0

    @property
    def sample(self) -> Sequence[Batch]:
        """The batches, for a variant that asks for them in its ``needs`` and so has them."""
        assert self.batches is not None
        return self.batches

    def stream(self, purpose: str) -> torch.Generator:
        """The random numbers of one purpose, such as "lora_B": a CPU generator, the same on every device."""
        return random_stream(self.seed, purpose)
