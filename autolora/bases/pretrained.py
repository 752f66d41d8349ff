"""What a specification's model is loaded from: a directory, the hub, or an object in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora import quickstart
from autolora.bases.errors import ModelError
from autolora.spec import Spec

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_weights(spec: Spec, dtype: torch.dtype) -> PreTrainedModel:
    """The model that the specification names, on the CPU."""
    return _from_pretrained("AutoModelForCausalLM", spec, dtype=dtype)


def load_tokenizer(spec: Spec) -> PreTrainedTokenizerBase:
    """The tokenizer of the specification's model; light enough for planning without the model's weights."""
    return _from_pretrained("AutoTokenizer", spec)


def load_config(spec: Spec) -> PretrainedConfig:
    """The model's configuration, without its weights."""
    return _from_pretrained("AutoConfig", spec) if isinstance(spec.model, str) else spec.model.config


def hidden_size(config: PretrainedConfig) -> int | None:
    """Width of the language model; None if the configuration names none."""
    width: int | None = getattr(config.get_text_config(), "hidden_size", None)
    return width


def _from_pretrained(kind: str, spec: Spec, **options: object) -> Any:
    import transformers

    name = spec.model if isinstance(spec.model, str) else spec.model.name_or_path
    path = Path(quickstart.resolve(name)).expanduser()
    source = str(path) if path.is_dir() else name
    try:
        return getattr(transformers, kind).from_pretrained(
            source, revision=spec.revision, trust_remote_code=spec.trust_remote_code, **options
        )
    except (OSError, ValueError) as error:
        where = (
            f"the directory {source}" if path.is_dir() else f"the hub id {name!r} (no directory of that name is here)"
        )
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model: cannot load {kind} from {where}: {first_line}\n"
            "Give a directory that holds config.json, the weights and the tokenizer, or a hub id that this machine "
            "can reach or has in its cache."
        ) from error
