"""Checkpoints whose weights are stored in few bits: unpacked, held so, or refused, by their method."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from autolora.bases import packed
from autolora.bases.errors import ModelError
from autolora.spec import BaseSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

LIBRARIES = {
    "aqlm": "aqlm",
    "auto-round": "auto-round",
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "eetq": "kernels",
    "fbgemm_fp8": "fbgemm-gpu",
    "gptq": "gptqmodel",
    "higgs": "flute-kernel",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "quark": "amd-quark",
    "spqr": "spqr_quant",
    "torchao": "torchao",
    "vptq": "vptq",
}
"""Package that reads the weights of each method; the others need none but ``transformers``."""
MODULES = {
    "auto-round": "auto_round",
    "fbgemm-gpu": "fbgemm_gpu",
    "flute-kernel": "flute",
    "optimum-quanto": "optimum.quanto",
    "amd-quark": "quark",
}
"""What such a package is imported as, if not by its name."""
UNPACKED = ("fp8", "mxfp4", "mxfp8")
"""Methods whose weights ``transformers`` unpacks when it loads them."""
WANTED = (
    "autolora tunes bases in float32, bfloat16 and float16, and in 4 or 8 bits of bitsandbytes: give the unquantized "
    "model, with base.load_in_4bit: true if it is to be small."
)


def method_of(config: PretrainedConfig) -> str | None:
    """How a checkpoint is quantized, by its configuration."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return None
    known = settings if isinstance(settings, Mapping) else settings.to_dict()
    if known.get("load_in_4bit") or known.get("load_in_8bit"):
        return "bitsandbytes"
    method = known.get("quant_method")
    return str(getattr(method, "value", method))


def packed_bits(config: PretrainedConfig) -> int | None:
    """Bits of a checkpoint that bitsandbytes has packed, by its configuration: 4 or 8, or None for any other."""
    return packed.bits_of_checkpoint(_settings(config)) if method_of(config) == packed.METHOD else None


def prepare(config: PretrainedConfig, held: BaseSpec, where: str) -> tuple[list[str], int | None]:
    """Settle how the weights of a checkpoint are held.

    Args:
        config: of the checkpoint. If ``transformers`` can unpack the weights, it is told so here.
        held: how the specification wants it.
        where: the checkpoint, for messages.

    Returns:
        A line about it, none if the checkpoint is not quantized; and the bits of the linear layers: 4, 8 or None.

    Raises:
        ModelError: the weights can neither be unpacked nor trained on, the checkpoint is in other bits than asked, or
            bitsandbytes is not installed.
    """
    method, asked = method_of(config), packed.bits_asked(held)
    if method == packed.METHOD:
        bits = packed_bits(config)
        packed.check_installed(f"model: {where} is in {bits} bits of {packed.METHOD}, which")
        packed.check_asked(held, bits, where)
        return [f"the checkpoint is quantized ({method})"], bits
    if asked is not None:
        packed.check_installed(f"base.{packed.KEYS[asked]}")
        if method is not None:
            raise ModelError(
                f"base.{packed.KEYS[asked]} is true, but {where} is quantized with {method} already: give the "
                f"unquantized model, or leave base.{packed.KEYS[asked]} out"
            )
        return [], asked
    if method is None:
        return [], None
    if method in UNPACKED:
        config.quantization_config = {**_settings(config), "dequantize": True}
        return [f"the checkpoint is quantized ({method}); its weights are unpacked"], None
    raise ModelError(f"model: {where} is quantized with {method}{_library(method)}. {WANTED}")


def check_supported(model: PreTrainedModel) -> None:
    """Raise ``ModelError`` if the weights of a model are quantized in a way that adapters cannot be trained on."""
    packed.check_packed(model)
    if packed.bits_held(model):
        return
    method = getattr(model, "quantization_method", None)
    if method is None and getattr(model, "hf_quantizer", None) is None and not getattr(model, "is_quantized", False):
        found = next((name for name, p in model.named_parameters() if _is_packed(p.dtype)), None)
        if found is None:
            return
        method = f"{found}: {dict(model.named_parameters())[found].dtype}"
    name = str(getattr(method, "value", method or "some method"))
    raise ModelError(f"model: the {type(model).__name__} given is quantized ({name}). {WANTED}")


def _is_packed(dtype: object) -> bool:
    """Integers, and floating-point numbers of 8 bits."""
    return "float8" in str(dtype) or "float4" in str(dtype) or "int" in str(dtype)


def _settings(config: PretrainedConfig) -> dict[str, object]:
    settings = config.quantization_config
    return dict(settings if isinstance(settings, Mapping) else settings.to_dict())


def _library(method: str) -> str:
    package = LIBRARIES.get(method)
    if package is None:
        return ""
    name = MODULES.get(package, package.replace("-", "_"))
    try:
        installed = find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        installed = False
    there = "is installed" if installed else f"is not installed: pip install {package}"
    return f", which {package} reads (it {there})"
