"""Weights in 4 or 8 bits, as bitsandbytes holds them in place of numbers: W read back, and never written.

Nothing here imports bitsandbytes: who holds such a weight has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor, nn


def bits_of(module: nn.Module) -> int | None:
    """Bits of a layer's packed weight: 4 or 8, or None if it is not packed."""
    from peft.utils.integrations import get_bnb_param_type

    weight = module._parameters.get("weight")  # its own, where PEFT's layers show that of the layer that they wrap
    kind = get_bnb_param_type(weight) if weight is not None else False
    return {"4bit": 4, "8bit": 8}.get(kind) if kind else None


def bits_held(model: nn.Module) -> int | None:
    """Bits of the weights of a model's linear layers: 4 or 8, or None if none is packed."""
    return next((bits for module in model.modules() if (bits := bits_of(module))), None)


def unpacked(module: nn.Module) -> Tensor:
    """W (m, n) of a layer for which :func:`bits_of` is not None: the numbers that its forward pass multiplies by, in
    the dtype that it computes in where it has one of its own."""
    from peft.utils.integrations import dequantize_bnb_weight

    weight, state = cast("nn.Parameter", module.weight), getattr(module, "state", None)
    found: Tensor = dequantize_bnb_weight(weight, state=state)
    return found.detach().to(getattr(module, "compute_dtype", None) or found.dtype)


@contextmanager
def weights_kept(model: nn.Module) -> Iterator[None]:
    """Context after which layers in 8 bits hold the parameters that they held before.

    To read such a weight on a CPU, as for DoRA's norms, PEFT 0.21 puts another parameter in its place, without the
    scales that the layer's next product needs.
    """
    held = [(module, cast("nn.Parameter", module.weight)) for module in model.modules() if bits_of(module) == 8]
    try:
        yield
    finally:
        for module, weight in held:
            module.weight = weight


def scales(module: nn.Module) -> Tensor:
    """What the few bits of a layer for which :func:`bits_of` is not None are multiplied by, in float32; any shape."""
    weight = cast("Any", module.weight)
    if bits_of(module) == 4:
        state = weight.quant_state
        return cast("Tensor", state.offset if state.nested else state.absmax)
    own = weight.SCB
    return cast("Tensor", cast("Any", module).state.SCB if own is None else own)


def parameter_count(model: nn.Module) -> int:
    """Numbers in a model's parameters, each counted once; of packed weights the numbers that they stand for."""
    packed = {id(module.weight): module for module in model.modules() if bits_of(module)}
    sizes = (_size(packed[id(p)]) if id(p) in packed else p.numel() for p in model.parameters())
    return sum(sizes)


def _size(module: nn.Module) -> int:
    return int(module.in_features) * int(module.out_features)  # type: ignore[arg-type]  # bitsandbytes' layers are Linear
