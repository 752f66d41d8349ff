"""A base in 4 or 8 bits through bitsandbytes (Dettmers et al., arXiv 2305.14314 and 2208.07339).

In 4 bits the weights of linear layers are NF4 with double quantization, as in QLoRA; in 8 bits they are those of
LLM.int8(). Embeddings, norms, experts in one parameter and the output head are not packed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from autolora.adapters.packed import bits_held as bits_held
from autolora.adapters.packed import bits_of, parameter_count
from autolora.adapters.statistics import shape_of as _shape
from autolora.bases.device import dtype_name, own_dtype
from autolora.bases.errors import ModelError
from autolora.errors import first_line
from autolora.spec import BaseSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn
    from transformers import BitsAndBytesConfig, PreTrainedModel

METHOD = "bitsandbytes"
INSTALL = 'pip install "autolora-tune[bitsandbytes]"'
KEYS = {4: "load_in_4bit", 8: "load_in_8bit"}
"""The key that asks for each number of bits: here, in ``BitsAndBytesConfig`` and in ``config.json``."""
SETTINGS: Mapping[int, Mapping[str, object]] = {
    4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    8: {"load_in_8bit": True},
}
"""Arguments of ``BitsAndBytesConfig``, but for the dtype to compute in."""
SCALES = {4: 1 / 64 + 4 / (64 * 256), 8: 0.0}
"""Bytes a weight of what packed weights are multiplied by: one of 8 bits for 64 weights, and one of 32 for 256 of
those; in 8 bits it is one a row, which counts for nothing."""
REPACKS = "support_avx512bf16_for_cpu"
"""Attribute of bitsandbytes' 4-bit layers, see :func:`settle`."""


def bits_asked(base: BaseSpec) -> int | None:
    """4 or 8; None if the specification asks for neither."""
    return next((bits for bits, key in KEYS.items() if getattr(base, key)), None)


def bits_of_checkpoint(settings: Mapping[str, Any]) -> int | None:
    """Bits of the weights of a checkpoint, by the ``quantization_config`` that it was saved with."""
    return next((bits for bits, key in KEYS.items() if settings.get(key) or settings.get(f"_{key}")), None)


def check_installed(why: str) -> None:
    """Raise ``ModelError`` if bitsandbytes cannot be imported.

    Args:
        why: it is needed.
    """
    if find_spec(METHOD) is None:
        raise ModelError(f"{why} needs {METHOD}, which is not installed: {INSTALL}")
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    log.setLevel(logging.ERROR)  # it misses a kernel of its repacked weights, see settle
    try:
        import_module(METHOD)
    except Exception as error:  # of its libraries, which are built for certain machines
        raise ModelError(f"{why} needs {METHOD}, which cannot be imported here: {first_line(error)}") from error
    finally:
        log.setLevel(level)


def check_asked(base: BaseSpec, held: int | None, what: str) -> None:
    """Raise ``ModelError`` if the specification asks for other bits than a model has that is used as it is.

    Args:
        base: the section of the specification.
        held: bits of the model's weights; None if it is not packed.
        what: the model, for the message.
    """
    asked = bits_asked(base)
    if asked is None or asked == held:
        return
    own = f"is in {held} bits already" if held else "is not quantized"
    remedy = f"load it with quantization_config=BitsAndBytesConfig({KEYS[asked]}=True), or " if not held else ""
    raise ModelError(f"base.{KEYS[asked]} is true, but {what} {own}: {remedy}leave base.{KEYS[asked]} out")


def check_packed(model: PreTrainedModel) -> None:
    """Raise ``ModelError`` if nothing of a model was packed that should be."""
    method = getattr(model, "quantization_method", None)
    if getattr(method, "value", method) == METHOD and bits_held(model) is None:
        raise ModelError(
            f"model: no layer of {type(model).__name__} is packed, though {METHOD} was asked to: it packs nn.Linear "
            "and Conv1D alone. Leave base.load_in_4bit and base.load_in_8bit out, and give the unquantized model"
        )


def packing(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What ``from_pretrained`` packs a model with while it loads it.

    Args:
        bits: 4 or 8.
        dtype: that layers in 4 bits compute in; those in 8 bits compute in 8.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**SETTINGS[bits], **({"bnb_4bit_compute_dtype": dtype} if bits == 4 else {}))


def held_bytes(model: PreTrainedModel, dtype: torch.dtype | None = None, bits: int | None = None) -> int:
    """Bytes of a model's weights.

    Args:
        model: on any device, such as "meta"; packed, or as it is before that.
        dtype: of the weights that are not packed; None: as they are.
        bits: of linear layers; None: of none.
    """
    sizes = {id(module.weight): math.prod(_shape(module)) for module in _linear(model)} if bits else {}
    scale = 0.0 if bits is None else SCALES[bits]
    total = 0.0
    for parameter in model.parameters():
        if bits and id(parameter) in sizes:
            total += sizes[id(parameter)] * (bits / 8 + scale)
        else:
            width = dtype.itemsize if dtype is not None and parameter.is_floating_point() else parameter.element_size()
            total += parameter.numel() * width
    return round(total)


def unpacked_bytes(model: PreTrainedModel, dtype: torch.dtype) -> int:
    """Bytes of the largest weight once it is unpacked, which each product with it does for its while."""
    return max((math.prod(_shape(module)) * dtype.itemsize for module in _linear(model)), default=0)


def _linear(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The layers that are packed, or would be."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    plain = (nn.Linear, Conv1D)
    return (module for module in model.modules() if bits_of(module) or (type(module) in plain and module is not head))


def note(model: PreTrainedModel) -> tuple[str, ...]:
    """A line about how a packed model is held; none if it is not packed."""
    kinds = sorted({_kind(module) for module in model.modules() if bits_of(module)})
    computing = sorted({dtype_name(dtype) for module in model.modules() if (dtype := _computing(module))})
    how = f", computing in {' and '.join(computing)}" if computing else ""
    return (f"linear layers in {' and '.join(kinds)}, {_share(model):.0%} of the parameters{how}",) if kinds else ()


def _share(model: nn.Module) -> float:
    """Of all parameters, those that are packed: few where most weights are experts or embeddings."""
    return sum(math.prod(_shape(module)) for module in model.modules() if bits_of(module)) / parameter_count(model)


def fits(model: PreTrainedModel) -> tuple[str, ...]:
    """A line on the base that adapters trained on a packed model fit; none if it is not packed."""
    kinds = sorted({_kind(module) for module in model.modules() if bits_of(module)})
    return (f"fits the base with linear layers in {' and '.join(kinds)}, as it was trained on",) if kinds else ()


def recast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Put what is not packed of a packed checkpoint into a dtype, but for what its class keeps in float32.

    ``from_pretrained`` does so for every other checkpoint, and leaves these in the dtype that they were saved in.
    """
    own = own_dtype(model)
    kept = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    packed = {id(module.weight) for module in model.modules() if bits_of(module)}
    for name, parameter in model.named_parameters():
        if parameter.dtype == own and id(parameter) not in packed and not kept & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        if bits_of(module) == 4:
            module.compute_dtype = dtype


def settle(model: nn.Module) -> None:
    """Have layers in 4 bits compute the same in evaluation as in training, and keep their bits, on every CPU.

    On a CPU with AVX-512 and bfloat16, bitsandbytes repacks a weight when it is first used in evaluation mode: it
    rounds the scales to bfloat16 for good, computes in bfloat16 whatever is asked for, and fails where a layer's width
    is not a multiple of 64 (seen with 0.50). The frozen base would not be the same before and after a score.
    """
    for module in model.modules():
        if getattr(module, REPACKS, False):
            setattr(module, REPACKS, False)
    if any(bits_of(module) == 8 for module in model.modules()):
        log = logging.getLogger("bitsandbytes.autograd._functions")
        if _is_news not in log.filters:
            log.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """All but what bitsandbytes logs at each product in 8 bits of which the inputs are not in float16."""
    return not record.getMessage().startswith("MatMul8bitLt: inputs will be cast")


def check_kept(model: nn.Module) -> None:
    """Raise ``ModelError`` if a model object's weights were repacked already, see :func:`settle`."""
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise ModelError(
                f"model: {name} of the {type(model).__name__} given was used in evaluation mode on this CPU, for which "
                "bitsandbytes has rounded its scales: load the model again and do not call it before tuning"
            )


def _kind(module: nn.Module) -> str:
    """How one layer is packed, for people."""
    if bits_of(module) == 8:
        return "8 bits (LLM.int8())"
    state = cast("Any", module.weight).quant_state
    double = ", double quantization" if getattr(state, "nested", False) else ""
    return f"4 bits ({str(state.quant_type).upper()}{double})"


def _computing(module: nn.Module) -> torch.dtype | None:
    """What a layer in 4 bits computes in; None for another layer, or where that goes with its input."""
    return cast("torch.dtype | None", getattr(module, "compute_dtype", None)) if bits_of(module) == 4 else None
