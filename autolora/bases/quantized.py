"""Models whose weights are stored in few bits: loaded in full precision where that is possible, else refused."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from autolora.bases.errors import ModelError

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
WANTED = "autolora tunes bases in float32, bfloat16 and float16: give the unquantized model."


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


def prepare(config: PretrainedConfig, where: str) -> list[str]:
    """Ask for full precision in a configuration, where the checkpoint is quantized.

    Returns:
        A line about it; none if the checkpoint is not quantized.

    Raises:
        ModelError: the weights cannot be unpacked.
    """
    method = method_of(config)
    if method is None:
        return []
    if method in UNPACKED:
        config.quantization_config = {**_settings(config), "dequantize": True}
        return [f"the checkpoint is quantized ({method}); its weights are unpacked"]
    raise ModelError(f"model: {where} is quantized with {method}{_library(method)}. {WANTED}")


def check_unquantized(model: PreTrainedModel) -> None:
    """Raise ``ModelError`` if the weights of a model are quantized."""
    method = getattr(model, "quantization_method", None)
    if method is None and getattr(model, "hf_quantizer", None) is None and not getattr(model, "is_quantized", False):
        packed = next((name for name, p in model.named_parameters() if _is_packed(p.dtype)), None)
        if packed is None:
            return
        method = f"{packed}: {dict(model.named_parameters())[packed].dtype}"
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
