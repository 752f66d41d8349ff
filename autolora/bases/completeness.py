"""Whether all of a model was loaded, and holds numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from autolora.adapters.packed import bits_of, scales
from autolora.bases.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

COMPUTED = re.compile(r"(^|\.)(inv_freq|position_ids|masked_bias|(attn|attention|self_attention)\.bias)$")
"""Buffers that earlier versions of ``transformers`` saved and that every model computes for itself."""
AHEAD = re.compile(r"\.(\d+)\.eh_proj\.")
"""In a layer behind the last one that predicts further tokens ahead; ``transformers`` leaves it out on purpose."""
SHOWN = 3


def check_complete(model: PreTrainedModel, loaded: Mapping[str, Any], where: str) -> list[str]:
    """Refuse a model of which a part was not in the checkpoint, or a checkpoint of which a part is not in the model.

    Args:
        model: as ``from_pretrained`` made it.
        loaded: its ``output_loading_info``.
        where: what it was loaded from.

    Returns:
        Lines about weights of the checkpoint that belong to no layer of the model, such as an image tower.

    Raises:
        ModelError: weights are missing or of another shape, or the checkpoint has weights for layers of the model
            that its configuration leaves out.
    """
    missing = sorted(loaded["missing_keys"])
    if missing:
        expected = len(model.state_dict())
        raise ModelError(
            f"model: {where} lacks {len(missing)} of the {expected} weights of {type(model).__name__}: "
            f"{_shown(missing)}. They would be random.{_other_names(loaded)} Give the whole checkpoint, with the "
            "config.json that it was saved with."
        )
    other = sorted((key, tuple(there), tuple(here)) for key, there, here in loaded["mismatched_keys"])
    if other:
        shapes = [f"{key} is {there}, by config.json {here}" for key, there, here in other]
        raise ModelError(
            f"model: {len(other)} weights of {where} are of another shape than its config.json says: "
            f"{_shown(shapes)}. Give the config.json that the weights were saved with."
        )
    unused = [key for key in loaded["unexpected_keys"] if not COMPUTED.search(key)]
    own = sorted(_of_the_models_layers(model, unused))
    if own:
        raise ModelError(
            f"model: {where} holds {len(own)} weights that its config.json leaves out of {type(model).__name__}: "
            f"{_shown(own)}. Without them it is another model. Give the config.json that the weights were saved with."
        )
    if not unused:
        return []
    groups = Counter(".".join(key.split(".")[:2]) for key in unused)
    named = ", ".join(f"{name} ({count})" for name, count in groups.most_common(SHOWN))
    return [f"{len(unused)} weights of the checkpoint are not part of {type(model).__name__} and not used: {named}"]


def check_present(model: PreTrainedModel) -> None:
    """Raise ``ModelError`` if a weight holds no data, naming it."""
    for name, tensor in _tensors(model):
        if tensor.device.type == "meta":
            raise ModelError(
                f"model: {name} holds no data here (it is offloaded, or was never loaded): load the model whole, on "
                "devices that have room for it"
            )


def check_finite(model: PreTrainedModel) -> None:
    """Refuse a model with weights that are NaN or infinite; one pass over the weights.

    Raises:
        ModelError: with the names of the weights.
    """
    import torch

    packed = {id(module.weight): module for module in model.modules() if bits_of(module)}
    bad = []
    for name, tensor in _tensors(model):
        values = scales(packed[id(tensor)]) if id(tensor) in packed else tensor
        if not values.is_floating_point() or values.numel() == 0:
            continue
        ends = torch.stack(torch.aminmax(values.detach()))
        # a buffer may hold -inf on purpose, as a mask
        if bool((ends.isfinite() if isinstance(tensor, torch.nn.Parameter) else ~ends.isnan()).all()):
            continue
        bad.append(name)
    if bad:
        in_float16 = any(parameter.dtype == torch.float16 for parameter in model.parameters())
        range_of = " If its numbers exceed the range of float16, set training.dtype to bfloat16 or float32."
        raise ModelError(
            f"model: {len(bad)} weights hold NaN or infinite values: {_shown(bad)}. The file is damaged, or the model "
            f"was saved after it had diverged: give another checkpoint.{range_of if in_float16 else ''}"
        )


def _tensors(model: PreTrainedModel) -> Iterable[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _other_names(loaded: Mapping[str, Any]) -> str:
    """What the checkpoint has instead, as where the model was saved from within a wrapper."""
    unused = sorted(loaded["unexpected_keys"])
    return f" The checkpoint holds {len(unused)} others: {_shown(unused)}." if unused else ""


def _of_the_models_layers(model: PreTrainedModel, unused: Collection[str]) -> list[str]:
    """Those that would belong to a layer of the model: one that is there, or one like those that are there."""
    modules = {name for name, _ in model.named_modules() if name}
    known = {_pattern(name) for name in model.state_dict()}
    ahead = {match[1] for key in unused if (match := AHEAD.search(key))}
    found = []
    for key in unused:
        if any(f".{number}." in key for number in ahead):
            continue
        module, _, name = key.rpartition(".")
        inside = module in modules or (name in ("weight", "bias") and _numbered(module.rpartition(".")[0], modules))
        if inside or _pattern(key) in known:
            found.append(key)
    return found


def _numbered(module: str, modules: Collection[str]) -> bool:
    """Whether a module is there and part of a numbered layer."""
    return module in modules and re.search(r"\.\d+(\.|$)", module) is not None


def _pattern(key: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", key)


def _shown(names: Collection[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
