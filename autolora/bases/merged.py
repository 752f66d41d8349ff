"""An adapter as the model of a study: merged into its base, where tuning then starts."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora import files
from autolora.adapters.combination import plain_factors
from autolora.adapters.export import CONFIG, FACTOR_A, FACTOR_B, OWN_CONFIG, PREFIX
from autolora.adapters.layer import parameter_users
from autolora.bases import folders
from autolora.bases.errors import ModelError
from autolora.bases.memory import out_of_memory
from autolora.bases.source import Source
from autolora.documents import DocumentError, read_json

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
COPIES = ("modules_to_save", "original_module")
"""What PEFT calls the trained copy of a module in ``modules_to_save``, and the module as it was."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of PEFT that change the base: its loaders run them again, which need not give the same."""


@dataclass(frozen=True)
class Merged:
    """An adapter that is merged into its base.

    Attributes:
        source: where the adapter is.
        base: where its base is.
        config: its ``adapter_config.json``.
        weights: its file of weights.
        factors: A (r, n) and s B (m, r) of each layer, float32, once it is merged; None if it is not a plain LoRA.
    """

    source: Source
    base: Source
    config: dict[str, Any]
    weights: Path
    factors: Mapping[str, tuple[Tensor, Tensor]] | None = None

    @property
    def method(self) -> str:
        """Name of its PEFT method, such as LORA."""
        return str(self.config.get("peft_type"))

    def digest(self) -> str:
        """A digest of its weights and of what scales them."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        with self.weights.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def adapter_in(source: Source) -> Merged | None:
    """The adapter that a source holds instead of a model; None if it holds none.

    Raises:
        ModelError: it is damaged, names no base, or cannot be merged into one.
    """
    config = adapter_config(source)
    if config is None:
        return None
    _check_base_is_named(config, source)
    _check_mergeable(config, source)
    weights = next((found for name in WEIGHT_FILES if (found := source.file(name))), None)
    if weights is None:
        raise ModelError(f"model: {source.where} holds {CONFIG} and no {WEIGHT_FILES[0]}: give the whole adapter")
    return Merged(source, base_of(source, config), config, weights)


def adapter_config(source: Source) -> dict[str, Any] | None:
    """The ``adapter_config.json`` of a source that holds an adapter instead of a model; None if it holds none.

    Raises:
        ModelError: it is damaged, or of an adapter in a format of its own.
    """
    if source.folder is not None:
        if not folders.holds_adapter(source.folder):
            return None
    elif source.file(folders.CONFIG) is not None:
        return None
    file = source.file(CONFIG)
    if file is not None:
        return _read(file)
    if source.file(OWN_CONFIG) is None:
        return None
    raise ModelError(
        f"model: {source.where} holds an adapter in autolora's own format, which is not a matrix added to the "
        "weights and cannot be merged into its base: give the base as model"
    )


def merge(model: PreTrainedModel, adapter: Merged) -> Merged:
    """Merge an adapter into its base, in place: each weight in float32, then rounded once to its own dtype.

    Returns:
        The adapter with its factors.

    Raises:
        ModelError: the adapter is damaged, or of another model.
        Exception: memory has run out, see :func:`autolora.bases.memory.out_of_memory`.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    try:
        saved = _shapes(adapter.weights)
        _resize(model, saved)
        adapted = PeftModel.from_pretrained(model, adapter.source.name, revision=adapter.source.revision)
        _check_untied(model, adapter)
        only_factors = _check_all_loaded(adapted, saved, adapter)
        factors = plain_factors(adapted) if only_factors else None
        for layer in [module for module in model.modules() if isinstance(module, BaseTunerLayer)]:
            own = [(p, p.dtype) for p in layer.get_base_layer().parameters() if p.is_floating_point()]
            for parameter, _ in own:
                parameter.data = parameter.data.float()
            layer.merge(safe_merge=True)
            for parameter, dtype in own:
                parameter.data = parameter.data.to(dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="All adapters are already merged")
            merged = adapted.merge_and_unload()
    except ModelError:
        raise
    except Exception as error:  # damaged weights raise what PEFT, safetensors and torch please
        if out_of_memory(error):
            raise
        raise adapter.source.failure(f"the adapter ({adapter.method}) onto {adapter.base.name}", error) from error
    assert merged is model, "PEFT adapts the model in place"
    return replace(adapter, factors=factors)


def _check_untied(model: PreTrainedModel, adapter: Merged) -> None:
    """Raise ``ModelError`` if an adapted layer shares its weight with another, which a merge would change, too."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    users = parameter_users(model)
    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer) or isinstance(module, TrainableTokensLayer):
            continue
        if any(users[id(weight)] > 1 for weight in module.get_base_layer().parameters()):
            raise ModelError(
                f"model: {adapter.source.where} adapts {name}, whose weight {adapter.base.name} shares with another "
                "layer (tie_word_embeddings), so that a merge would change both: merge it into a model whose "
                "embeddings are not tied, and give that"
            )


def _shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what an adapter's file of weights holds."""
    if weights.suffix != ".safetensors":
        import torch

        loaded = torch.load(weights, map_location="meta", weights_only=True)
        return {name: tuple(tensor.shape) for name, tensor in loaded.items()}
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def _resize(model: PreTrainedModel, saved: Mapping[str, tuple[int, ...]]) -> None:
    """Give the base the vocabulary of an adapter that was saved with embeddings of more tokens."""
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    shape = saved.get(f"{PREFIX}{name}.weight")
    if shape is not None and shape[0] != embeddings.weight.shape[0]:
        model.resize_token_embeddings(shape[0], mean_resizing=False)


def _saved_twice(name: str, saved: Collection[str]) -> bool:
    """Whether it is the embedding or head of ``modules_to_save``, which PEFT writes by its plain name as well."""
    return any(name.replace(f".{copy}.", ".") in saved for copy in COPIES if f".{copy}." in name)


def _check_all_loaded(adapted: PeftModel, saved: Mapping[str, tuple[int, ...]], adapter: Merged) -> bool:
    """Refuse an adapter of which PEFT has left a part out, of which it only warns at best.

    Returns:
        Whether the adapter holds nothing but A and B.
    """
    from peft import get_peft_model_state_dict

    own = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    base = {f"{PREFIX}{name}" for name, _ in adapted.get_base_model().named_parameters()}
    unused = sorted(name for name in saved.keys() - own.keys() - base if not _saved_twice(name, saved))
    # other methods share tensors between layers, and save one of them
    missing = sorted(own.keys() - saved.keys()) if adapter.method == "LORA" else []
    for names, what in ((unused, "has no place for"), (missing, "finds nothing for")):
        if names:
            raise ModelError(
                f"model: {adapter.source.where} holds an adapter of another model: its base {adapter.base.name} {what} "
                f"{len(names)} weights, such as {names[0]}"
            )
    return all(name.endswith((FACTOR_A, FACTOR_B)) for name in saved)


def _read(file: Path) -> dict[str, Any]:
    try:
        config = read_json(file)
    except (OSError, DocumentError) as error:
        raise ModelError(f"model: {error}: copy or download it again") from error
    if not isinstance(config, dict):
        raise ModelError(f"model: {file} holds {type(config).__name__}, not an object: copy or download it again")
    return config


def _check_base_is_named(config: dict[str, Any], source: Source) -> None:
    if not config.get("base_model_name_or_path"):
        raise ModelError(
            f"model: {source.where} holds an adapter, and its {CONFIG} does not name the base "
            "(base_model_name_or_path): write it there, or merge the adapter and give the merged model"
        )
    if not isinstance(config["base_model_name_or_path"], str):
        raise ModelError(
            f"model: {source.where} holds an adapter, and base_model_name_or_path in its {CONFIG} is "
            f"{config['base_model_name_or_path']!r:.80}: write the path or hub id of its base there"
        )


def base_of(source: Source, config: dict[str, Any]) -> Source:
    """Where the base of an adapter is: by a path that is relative to the adapter, too.

    Args:
        source: the adapter's.
        config: its :func:`adapter_config`.

    Raises:
        ModelError: it is not named, the path leads to no directory, or to another adapter.
    """
    _check_base_is_named(config, source)
    name = str(config["base_model_name_or_path"])
    beside = None if source.folder is None else source.folder / name
    if beside is not None and not Path(name).is_dir() and beside.is_dir():
        name = str(beside)
    base = Source.at(name, config.get("revision"), source.trust_remote_code)
    if base.folder is None and files.expanded(name).is_absolute():
        raise ModelError(
            f"model: {source.where} holds an adapter whose base is not there: {name}. Write where the base is into its "
            f"{CONFIG} (base_model_name_or_path)"
        )
    if base.folder is not None and folders.holds_adapter(base.folder):
        raise ModelError(
            f"model: {source.where} holds an adapter on another adapter, that of {base.where}: merge the first into "
            "its base (PEFT's merge_and_unload, then save_pretrained) and name the result in the second's "
            f"{CONFIG} (base_model_name_or_path)"
        )
    return base


def _check_mergeable(config: dict[str, Any], source: Source) -> None:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils import PeftType

    method = str(config.get("peft_type"))
    known = {kind.value: tuner for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()}
    tuner = known.get(PeftType(method)) if method in set(PeftType) else None
    if tuner is None or not issubclass(tuner, BaseTuner):
        raise ModelError(
            f"model: {source.where} holds a {method} adapter, which cannot be merged into its base: give the base as "
            "model, or another adapter"
        )
    if config.get("layer_replication"):
        raise ModelError(
            f"model: {source.where} holds an adapter of repeated layers (layer_replication), which share their base "
            "weights and cannot be merged: give another adapter"
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        raise ModelError(
            f"model: {source.where} holds an adapter of a base that {start} has changed (init_lora_weights), and "
            "running that start again need not give the same base: convert the adapter to a plain LoRA with PEFT "
            "(path_initial_model_for_weight_conversion), or merge it where it was trained and give the merged model"
        )
