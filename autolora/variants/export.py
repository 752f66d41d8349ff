"""Writing a trained adapter as a folder that plain PEFT loads on the unmodified base."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from autolora.variants.attachment import attachment
from autolora.variants.subtraction import ADAPTER, Subtracted

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save(model: PeftModel, path: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` to a folder, replacing these two if they exist.

    Variants that subtract from the base leave as rank 2r, s [B, -B0] [A; A0] with the same s; all others as they are.
    Outputs equal the trained model's up to float32 rounding. Subtracting from a bfloat16 base rounds the residual to
    bfloat16, which no adapter of low rank undoes: there the outputs differ by a few times bfloat16's own error.
    The folder holds at every moment the old adapter, the new one, or none that loads.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    subtracted = attachment(model).subtracted
    # No embedding is ever adapted; PEFT's default would ask the hub about the vocabulary.
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    for name, kept in subtracted.items():
        _append_anchors(state, name, kept)
    path.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        staged = Path(folder)
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        save_file(tensors, staged / WEIGHTS, metadata={"format": "pt"})
        _plain_config(model, doubled=bool(subtracted)).save_pretrained(staged)
        # The configuration goes first and comes last: old and new halves never load together.
        (path / CONFIG).unlink(missing_ok=True)
        os.replace(staged / WEIGHTS, path / WEIGHTS)
        os.replace(staged / CONFIG, path / CONFIG)


def _append_anchors(state: dict[str, Tensor], name: str, kept: Subtracted) -> None:
    """s (B A - B0 A0) as one product: A becomes (2r, n), B becomes (m, 2r)."""
    import torch

    key_a, key_b = (f"base_model.model.{name}.lora_{factor}.weight" for factor in "AB")
    state[key_a] = torch.cat([state[key_a].cpu(), kept.a0])
    state[key_b] = torch.cat([state[key_b].cpu(), -kept.b0], dim=1)


def _plain_config(model: PeftModel, doubled: bool) -> LoraConfig:
    """The adapter's configuration for loading; where the rank doubles, alpha grows so that s stays."""
    config = copy.deepcopy(model.peft_config[ADAPTER])
    config.inference_mode = True
    config.base_model_name_or_path = getattr(model.get_base_model(), "name_or_path", None) or None
    config.target_modules = sorted(config.target_modules)  # PEFT keeps a set: the file would differ from run to run
    if doubled:
        config.r *= 2
        config.lora_alpha *= math.sqrt(2) if config.use_rslora else 2
    if float(config.lora_alpha).is_integer():
        config.lora_alpha = int(config.lora_alpha)  # as PEFT declares it; other loaders parse it strictly
    return config
