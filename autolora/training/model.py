"""The resident base model: loaded once a process, shared by all its trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora import quickstart
from autolora.errors import AutoloraError
from autolora.spec import Spec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ModelError(AutoloraError, ValueError):
    """The base model cannot be loaded; the message says what was tried and what to do."""


@dataclass(frozen=True)
class Base:
    """A frozen causal language model on its device, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype

    @property
    def pad_token_id(self) -> int:
        """Padding is masked everywhere, so any token will do where the tokenizer names none."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def load(spec: Spec) -> Base:
    """Load the model and tokenizer of a specification onto its device.

    Raises:
        ModelError: not found, the hub cannot be reached, or not a causal language model.
    """
    device = find_device(spec.training.device)
    dtype = find_dtype(spec.training.dtype, device)
    model = load_weights(spec, dtype) if isinstance(spec.model, str) else spec.model
    model = model.to(device=device, dtype=dtype)
    model.requires_grad_(False)
    return Base(model, load_tokenizer(spec), device, dtype)


def load_weights(spec: Spec, dtype: torch.dtype) -> PreTrainedModel:
    """The model that the specification names, on the CPU."""
    return _from_pretrained("AutoModelForCausalLM", spec, dtype=dtype)


def load_tokenizer(spec: Spec) -> PreTrainedTokenizerBase:
    """The tokenizer of the specification's model; light enough for planning without the model's weights."""
    return _from_pretrained("AutoTokenizer", spec)


def load_config(spec: Spec) -> Any:
    """The model's configuration, without its weights."""
    return _from_pretrained("AutoConfig", spec) if isinstance(spec.model, str) else spec.model.config


def hidden_size(config: Any) -> int | None:
    """Width of the language model, or None where the configuration names none."""
    text = config.get_text_config()
    return getattr(text, "hidden_size", None)


def find_device(name: str) -> torch.device:
    """The device named, or the best there is: cuda, then mps, then cpu."""
    import torch

    if name != "auto":
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ModelError(f"training.device is {name!r}, but this machine shows no CUDA device; use 'auto' or 'cpu'")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype named, or bfloat16 on a GPU that has it and float32 elsewhere."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _from_pretrained(kind: str, spec: Spec, **options: Any) -> Any:
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
