"""Writing a trained adapter as a folder that plain PEFT, or one function, loads on the unmodified base."""

from __future__ import annotations

import copy
import glob
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from autolora import files
from autolora.adapters.attachment import attachment
from autolora.adapters.layer import module_path, stacked, stored_weight, unstacked
from autolora.adapters.packed import bits_of
from autolora.adapters.renaming import misread
from autolora.adapters.state import adapter_state
from autolora.adapters.subtraction import weight_matrix

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor

    from autolora.adapters.declaration import Declaration
    from autolora.adapters.layer import AdaptedLayer

    Factors = tuple[Tensor, Tensor]

Config = TypeVar("Config", bound="PeftConfig")

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
OWN_CONFIG, OWN_FORMAT = "autolora_adapter.json", 1
"""Of the adapters that no plain LoRA and no format of PEFT's can hold."""
PREFIX, FACTOR_A, FACTOR_B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
"""PEFT's names of A and B: the layer's between the first and one of the others."""
BASE_BITS = "base_bits"
"""In the metadata of the file of weights: bits of the base that the adapter was trained on, if it was packed."""
NATIVE, OWN = "native", "own"
"""``Variant.export_form`` of what is not a plain LoRA."""
_STAGING = re.compile(r"-[a-z0-9_]{8}")
"""End of the name of a folder in which an adapter is written: what ``tempfile`` makes."""


def config_file(export_form: str) -> str:
    """Name of the file that says how an adapter of this form loads."""
    return OWN_CONFIG if export_form == OWN else CONFIG


def is_own(folder: Path) -> bool:
    """Whether an adapter there is in a format of its own."""
    return (folder / OWN_CONFIG).exists()


def save_plain(model: PeftModel, path: Path, factors: Callable[[AdaptedLayer], Factors]) -> None:
    """Write a plain LoRA of one rank and one alpha, which every loader of LoRA adapters reads as W + alpha / r B A.

    Variants that subtract from the base leave as rank 2r, s [B, -B0] [A; A0] with the same s. Where ranks or scales
    differ between layers, A and B are padded with zeros to the largest rank, and B takes the scale: few loaders know
    PEFT's patterns. Outputs equal the trained model's up to float32 rounding. Subtracting from a bfloat16 base rounds
    the residual to bfloat16, which no adapter of low rank undoes: there the outputs differ by a few times bfloat16's
    own error.

    Args:
        model: the attached model.
        path: folder, see :func:`_write`.
        factors: A (r, n) and B (m, r) of an adapted layer.
    """
    import torch

    record = attachment(model)
    pairs, scales = {}, {}
    for name, layer in record.layers.items():
        a, b = (factor.detach().cpu() for factor in factors(layer))
        if name in record.subtracted:
            kept = record.subtracted[name]
            a, b = torch.cat([a, kept.a0]), torch.cat([b, -kept.b0], dim=1)
        pairs[name], scales[name] = (a, b), layer.scaling
    experts = {name: layer.experts for name, layer in record.layers.items()}
    rank = max(len(a) // max(1, experts[name]) for name, (a, _) in pairs.items())
    distinct = set(scales.values())
    common = distinct.pop() if len(distinct) == 1 else 1.0
    scaled = {name: (a, b * (scales[name] / common)) for name, (a, b) in pairs.items()}
    config = _plain_config(model, record.adapter_name, experts, rank, common)
    _write(path, _padded(model, scaled, experts, rank), config, _bits_below(model))


def save_native(model: PeftModel, path: Path) -> None:
    """Write the adapter in PEFT's format for its method."""
    from peft import get_peft_model_state_dict

    adapter = attachment(model).adapter_name
    # No embedding is ever adapted; PEFT's default would ask the hub about the vocabulary.
    state = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    # A tensor that all layers share is saved once, by its shortest name, which is the one that PEFT loads.
    once = {tensor.data_ptr(): key for key, tensor in sorted(state.items(), key=lambda item: -len(item[0]))}
    state = {key: state[key] for key in once.values()}
    _write(path, state, _described(copy.deepcopy(model.peft_config[adapter]), model), _bits_below(model))


def save_own(variant: Declaration, model: PeftModel, path: Path) -> None:
    """Write the adapter as it is, with what :func:`autolora.load_adapter` needs to attach it again."""
    record = attachment(model)
    settings = {
        "format": OWN_FORMAT,
        "variant": variant.name,
        "options": variant.options,
        "rank": record.rank,
        "alpha": record.alpha,
        "adapter_name": record.adapter_name,
        "target_modules": list(record.layers),
        "base_model_name_or_path": _base_path(model),
    }

    def describe(folder: Path) -> None:
        (folder / OWN_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    replace_adapter(path, adapter_state(model), OWN_CONFIG, describe, _bits_below(model))


@dataclass(frozen=True)
class Approximation:
    """How far a plain LoRA of low rank is from the adapter it stands for.

    Attributes:
        rank: of the plain LoRA.
        errors: by layer, the Frobenius norm of what is missing over that of the adapter's change of W.
        overall: the same over all layers together.
    """

    rank: int
    errors: Mapping[str, float]
    overall: float


def save_approximation(model: PeftModel, path: Path, rank: int, bits: int | None = None) -> Approximation:
    """Write the best plain LoRA of a rank for any adapter that PEFT can merge: the SVD of each layer's change of W.

    Args:
        model: as PEFT loads it; its base in float32, or the change is rounded away.
        path: folder, see :func:`_write`.
        rank: of the plain LoRA; where every layer has less, that.
        bits: of the base that the adapter was trained on; None: it was not packed.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    pairs, errors, missing, total = {}, {}, 0.0, 0.0
    for name, layer in model.get_base_model().named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        module = layer.get_base_layer()
        before = stored_weight(module).data.clone()
        layer.merge()
        merged = weight_matrix(module)
        stored_weight(module).data = before
        layer.merged_adapters.clear()
        u, values, vh = torch.linalg.svd(merged - weight_matrix(module), full_matrices=False)
        pairs[name] = vh[:rank], u[:, :rank] * values[:rank]
        left, size = float(values[rank:].square().sum()), float(values.square().sum())
        errors[name] = math.sqrt(left / size) if size > 0 else 0.0
        missing, total = missing + left, total + size
    rank = max(len(a) for a, _ in pairs.values())
    none = dict.fromkeys(pairs, 0)
    config = _plain_config(model, model.active_adapter, none, rank, 1.0)
    _write(path, _padded(model, pairs, none, rank), config, bits)
    return Approximation(rank, errors, math.sqrt(missing / total) if total > 0 else 0.0)


def _padded(model: PeftModel, pairs: Mapping[str, Factors], experts: Mapping[str, int], rank: int) -> dict[str, Tensor]:
    """PEFT's names of A and B of each layer, filled up with zeros to the rank; of experts, each one's."""
    from torch.nn.functional import pad

    state, base = {}, model.get_base_model()
    for name, (a, b) in pairs.items():
        prefix, count = PREFIX + module_path(base, name), max(1, experts[name])
        missing = rank - len(a) // count
        if missing:
            each_a, each_b = stacked(a, b, count)
            a, b = unstacked(pad(each_a, (0, 0, 0, missing)), pad(each_b, (0, missing)))
        state[prefix + FACTOR_A], state[prefix + FACTOR_B] = a, b
    return state


def _write(path: Path, state: Mapping[str, Tensor], config: PeftConfig, bits: int | None) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``."""
    replace_adapter(path, state, CONFIG, lambda folder: config.save_pretrained(str(folder)), bits)


def bits_of_base(folder: Path) -> int | None:
    """Bits of the base that the adapter in a folder was trained on: 4 or 8, or None if that is not recorded."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="np") as file:
            recorded = (file.metadata() or {}).get(BASE_BITS, "")
    except (SafetensorError, OSError):  # what reads the weights says so
        return None
    return int(recorded) if recorded.isdecimal() else None


def _bits_below(model: PeftModel) -> int | None:
    """Bits of the layers beneath an attached adapter; None if none is packed."""
    return next((bits for layer in attachment(model).layers.values() if (bits := bits_of(layer.base_layer))), None)


def replace_adapter(
    path: Path,
    state: Mapping[str, Tensor],
    config: str,
    describe: Callable[[Path], None],
    bits: int | None = None,
) -> None:
    """Write weights and configuration to a folder, in place of an adapter that is there.

    The folder holds at every moment the old adapter, the new one, or none that loads.

    Args:
        config: name of the file that ``describe`` writes to the folder it is given.
        bits: of the base, which the file of weights records; None: it was not packed.
    """
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:  # _STAGING
        staged = Path(folder)
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        recorded = {} if bits is None else {BASE_BITS: str(bits)}
        save_file(tensors, staged / WEIGHTS, metadata={"format": "pt", **recorded})
        describe(staged)
        # The configuration goes first and comes last: old and new halves never load together.
        for older in (CONFIG, OWN_CONFIG):
            (path / older).unlink(missing_ok=True)
        files.move(staged / WEIGHTS, path / WEIGHTS)
        files.move(staged / config, path / config)


def sweep_staged(path: Path) -> None:
    """Remove what killed processes left half-written of an adapter.

    Args:
        path: folder of the adapter, to which no process is writing now. It need not exist.
    """
    files.sweep(path)
    for staged in path.parent.glob(f".{glob.escape(path.name)}-*"):
        if _STAGING.fullmatch(staged.name.removeprefix(f".{path.name}")):
            shutil.rmtree(staged)


def _plain_config(model: PeftModel, adapter: str, experts: Mapping[str, int], rank: int, scale: float) -> PeftConfig:
    """The ``LoraConfig`` of this rank and s = alpha / r on these layers, with the other settings of the one trained
    with."""
    from peft import LoraConfig

    trained = model.peft_config[adapter]
    modules = [name for name, count in experts.items() if not count]
    by_weight = set(misread(model.get_base_model(), modules))
    parameters = sorted([name for name, count in experts.items() if count] + [f"{name}.weight" for name in by_weight])
    alpha = scale * rank
    whole = round(alpha)
    config = LoraConfig(
        r=rank,
        # Whole, as PEFT declares it, where it can be: other loaders parse it strictly. PEFT takes any number.
        lora_alpha=whole if math.isclose(alpha, whole, rel_tol=1e-9) else alpha,  # type: ignore[arg-type]
        # PEFT refuses dropout beside parameters; what is exported is for use, where there is none.
        lora_dropout=0.0 if parameters else getattr(trained, "lora_dropout", 0.0),
        target_modules=[name for name in modules if name not in by_weight],
        target_parameters=parameters or None,
        fan_in_fan_out=trained.fan_in_fan_out,
        # Never rank-stabilized: not every reader knows the flag, and all scale by alpha / r without it.
        use_rslora=False,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return _described(config, model)


def _described(config: Config, model: PeftModel) -> Config:
    config.inference_mode = True
    config.base_model_name_or_path = _base_path(model)
    config.target_modules = sorted(config.target_modules)  # PEFT keeps a set: the file would differ from run to run
    return config


def _base_path(model: PeftModel) -> str | None:
    """A hub id, or the absolute path of a directory: the adapter is loaded from anywhere."""
    name: str | None = getattr(model.get_base_model(), "name_or_path", None) or None
    folder = files.expanded(name) if name else None
    return str(folder.resolve()) if folder is not None and folder.is_dir() else name
