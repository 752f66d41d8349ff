"""What training an adapter takes in memory, estimated from counts alone."""

from __future__ import annotations

from dataclasses import dataclass

TRAINED_BYTES = 16
"""Bytes of each parameter that trains: itself, its gradient and AdamW's two moments, in float32."""
ACTIVATION_BYTES = 53
"""Bytes kept for the backward pass for each hidden unit, layer and token, without gradient checkpointing, with float32
adapters on a bfloat16 base under autocast."""
LEAN_ACTIVATION_BYTES = 45
"""The same with bfloat16 adapters, as other trainers may have them."""


@dataclass(frozen=True)
class Memory:
    """An estimate for one device; what is measured differs by allocator, kernels and vocabulary.

    Attributes:
        parameters: of the base.
        base_bytes: of its weights, in ``dtype``.
        dtype: of most of its weights.
        trained: parameters of the adapter that train.
        hidden_size, layers: width and depth of the language model; None if its configuration does not name them.
        length: tokens of the example that :attr:`example_bytes` is about.
    """

    parameters: int
    base_bytes: int
    dtype: str
    trained: int
    hidden_size: int | None
    layers: int | None
    length: int

    @property
    def adapter_bytes(self) -> int:
        """Bytes of what trains: weights, gradients and AdamW's two moments, all in float32."""
        return TRAINED_BYTES * self.trained

    @property
    def token_bytes(self) -> int | None:
        """Bytes of the activations of one token; None if width or depth is not known."""
        if self.hidden_size is None or self.layers is None:
            return None
        return ACTIVATION_BYTES * self.hidden_size * self.layers

    @property
    def example_bytes(self) -> int | None:
        """Bytes of the activations of a micro-batch of one example of ``length`` tokens; None if not known."""
        return None if self.token_bytes is None else self.token_bytes * self.length

    @property
    def total_bytes(self) -> int | None:
        """Bytes of training with a micro-batch of one example of ``length`` tokens; None if not known."""
        if self.example_bytes is None:
            return None
        return self.base_bytes + self.adapter_bytes + self.example_bytes

    def as_dict(self) -> dict[str, object]:
        """As plain data, what is computed included."""
        return {
            **self.__dict__,
            "adapter_bytes": self.adapter_bytes,
            "token_bytes": self.token_bytes,
            "example_bytes": self.example_bytes,
            "total_bytes": self.total_bytes,
        }
