"""Two plain LoRAs of one base as a single one: s B A + s' B' A' is [s B, s' B'] [A; A'], exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from autolora import files
from autolora.adapters.export import CONFIG, FACTOR_A, FACTOR_B, OWN_CONFIG, PREFIX, WEIGHTS, replace_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    Factors = tuple[Tensor, Tensor]

CHANGES_MORE = (
    "use_dora",
    "modules_to_save",
    "target_parameters",
    "lora_bias",
    "trainable_token_indices",
    "alora_invocation_tokens",
)
"""Settings of a ``LoraConfig`` with which an adapter is more than A and B of linear layers."""


def plain_factors(model: PeftModel) -> dict[str, Factors] | None:
    """A (r, n) and s B (m, r) of each layer of an adapter as PEFT loads it, float32; None if it is not a plain LoRA."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

    adapter = model.active_adapter
    config = model.peft_config[adapter]
    if type(config) is not LoraConfig or config.bias != "none":
        return None
    if any(getattr(config, name, None) for name in CHANGES_MORE):
        return None
    found = {}
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            if adapter not in layer.lora_A or layer.lora_A[adapter].weight.ndim != 2:
                return None
            a, b = (cast("Tensor", factor[adapter].weight) for factor in (layer.lora_A, layer.lora_B))
            found[name] = _kept(a), layer.scaling[adapter] * _kept(b)
    return found


def add_to(folder: Path, others: Mapping[str, Factors], base: str, revision: str | None = None) -> bool:
    """Add a plain LoRA to the one that was exported to a folder.

    Args:
        folder: as :func:`autolora.adapters.export.save_plain` wrote it.
        others: A and s B of each layer of the other.
        base, revision: path or hub id of the base that the sum fits, and its revision.

    Returns:
        False, and nothing is changed, where the folder holds another kind of adapter.
    """
    import torch
    from safetensors.torch import load_file
    from torch.nn.functional import pad

    if not (folder / CONFIG).is_file():
        return False
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    state = load_file(folder / WEIGHTS)
    names = {key.removeprefix(PREFIX).removesuffix(FACTOR_A) for key in state if key.endswith(FACTOR_A)}
    plain = config["peft_type"] == "LORA" and not any(config.get(name) for name in (*CHANGES_MORE, "rank_pattern"))
    if not plain or len(state) != 2 * len(names):
        return False
    scale = config["lora_alpha"] / config["r"]
    pairs = {}
    for name in sorted(names | others.keys()):
        parts = [others[name]] if name in others else []
        if name in names:
            parts.insert(0, (state[PREFIX + name + FACTOR_A], scale * state[PREFIX + name + FACTOR_B]))
        pairs[name] = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)
    rank = max(len(a) for a, _ in pairs.values())
    config |= {
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(pairs),
        "base_model_name_or_path": base,
        "revision": revision,
    }
    total = {}
    for name, (a, b) in pairs.items():
        total[PREFIX + name + FACTOR_A] = pad(a, (0, 0, 0, rank - len(a)))
        total[PREFIX + name + FACTOR_B] = pad(b, (0, rank - len(a)))
    text = json.dumps(config, indent=2) + "\n"
    replace_adapter(folder, total, CONFIG, lambda staged: _write(staged / CONFIG, text))
    return True


def name_base(folder: Path, base: str, revision: str | None) -> None:
    """Say in an exported adapter, of whatever form, which base it fits; the revision is of the hub's repository."""
    for name in (CONFIG, OWN_CONFIG):
        if (folder / name).is_file():
            config = json.loads((folder / name).read_text(encoding="utf-8"))
            config |= {"base_model_name_or_path": base, "revision": revision}
            files.write(folder / name, json.dumps(config, indent=2) + "\n")


def _kept(factor: Tensor) -> Tensor:
    import torch

    return factor.detach().to("cpu", torch.float32, copy=True)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
