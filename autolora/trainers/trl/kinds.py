"""TRL's trainers by the name that its command has for them: what each is built with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora import references
from autolora.trainers.trl.configuration import TrlError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from autolora.spec import Spec

LENGTH_PUNISHMENT = "get_soft_overlong_punishment"
"""A function of TRL's that makes a reward; ``trl grpo`` takes it by name, with the settings below."""
PUNISHED = {"max_completion_len": 1280, "soft_punish_cache": 256}


@dataclass(frozen=True)
class Kind:
    """One trainer of TRL's.

    Attributes:
        trainer: name of its class in ``trl``.
        reads_tokens: whether it takes rows that are tokenized.
        classifies: whether its model has a head with one output.
        extras: what its class is given beside model, rows, arguments and tokenizer, from the first part of what TRL
            parses.
    """

    trainer: str
    reads_tokens: bool = False
    classifies: bool = False
    extras: Callable[[Any], Mapping[str, object]] = lambda script: {}


def _rewards(script: Any) -> dict[str, object]:
    found: list[object] = [script.reward_model_name_or_path] if script.reward_model_name_or_path else []
    found += map(_reward, script.reward_funcs or [])
    if not found:
        raise TrlError(
            "trainer.config: reward_funcs is missing: name a function of yours, as in my_rewards.brief, or one of TRL's"
        )
    return {"reward_funcs": found}


def _reward(name: str) -> object:
    """A reward function by the name that TRL's command takes, or as "module:function"."""
    import trl.rewards

    if name == LENGTH_PUNISHMENT:
        return trl.rewards.get_soft_overlong_punishment(**PUNISHED)
    if "." not in name and ":" not in name:
        if not hasattr(trl.rewards, name):
            raise TrlError(f"trainer.config: reward_funcs: TRL has no reward {name!r}; write module.function for yours")
        return getattr(trl.rewards, name)
    reference = name if ":" in name else ":".join(name.rsplit(".", 1))
    try:
        return references.named(reference)
    except references.ReferenceFault as fault:
        raise TrlError(f"trainer.config: reward_funcs: {name!r}: {fault}") from fault


KINDS: Mapping[str, Kind] = {
    "sft": Kind("SFTTrainer", reads_tokens=True),
    "dpo": Kind("DPOTrainer"),
    "kto": Kind("KTOTrainer"),
    "reward": Kind("RewardTrainer", classifies=True),
    "grpo": Kind("GRPOTrainer", extras=_rewards),
    "rloo": Kind("RLOOTrainer", extras=_rewards),
}


def load_scorer(spec: Spec) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model with one output, for rewards, and its tokenizer."""
    from autolora.bases.device import find_device, find_dtype
    from autolora.bases.packed import bits_asked
    from autolora.bases.pretrained import load_tokenizer
    from autolora.bases.source import Source

    if bits_asked(spec.base):
        raise TrlError(
            "base: a reward model cannot be loaded in 4 or 8 bits here: leave load_in_4bit and load_in_8bit out"
        )
    tokenizer = load_tokenizer(spec)
    dtype = find_dtype(spec.training.dtype, find_device(spec.training.device))
    model = Source.of(spec).read("AutoModelForSequenceClassification", num_labels=1, dtype=dtype)
    model.requires_grad_(False)
    if model.config.pad_token_id is None:
        padding = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.eos_token_id if padding is None else padding
    return model, tokenizer
