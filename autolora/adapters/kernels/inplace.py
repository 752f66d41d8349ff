"""Layers whose output the model overwrites, which a backward pass must not rely on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn

from autolora.adapters.layer import AdaptedLayer
from autolora.adapters.packed import weights_kept
from autolora.adapters.statistics import evaluating, training_precision


def overwritten(model: PeftModel, layers: Mapping[str, AdaptedLayer]) -> set[str]:
    """Names of the layers to whose output the model adds in place, as Falcon and Llama 4 do: by a pass of one token."""
    outputs: dict[str, tuple[Tensor, int]] = {}

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            outputs[name] = output, output._version

        return hook

    hooks = [cast(nn.Module, layer.module).register_forward_hook(note(name)) for name, layer in layers.items()]
    device = next(model.parameters()).device
    body = cast(nn.Module, model.get_base_model().base_model)  # without its head
    try:
        with weights_kept(model), evaluating(model), torch.no_grad(), training_precision(model):
            body(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name for name, (output, version) in outputs.items() if output._version > version}
