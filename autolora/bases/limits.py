"""What a model can take of a row, read off its configuration and its modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autolora.tasks.causal_lm.limits import Limits

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

POSITION_KEYS = (
    *("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"),
    *("max_target_positions", "max_decoder_position_embeddings"),
)
"""What configurations call the number of positions; the first that is there counts."""
OFFSET = 8
"""A table of positions may have some rows more than there are positions, as OPT's has two."""


def limits_of(model: PreTrainedModel) -> Limits:
    """The limits of a language model.

    Beyond its positions a model fails if it looks them up in a table, learned (GPT-2, OPT) or not (GPT-J, CTRL), or
    has biases for that many (MPT). It computes on if it has rotary embeddings, which are known by their frequencies,
    and no such table. A model whose configuration names no number of positions has no limit, such as BLOOM or Mamba.
    """
    from torch import nn

    words = _input_embedding(model)
    vocabulary = None if words is None else int(words.get_parameter("weight").shape[0])
    positions = _configured(model.config.get_text_config())
    if positions is None:
        return Limits(vocabulary)
    rotary = any(name.endswith("inv_freq") for name, _ in model.named_buffers())
    tables = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        and module is not words
        and positions <= module.num_embeddings <= positions + OFFSET
    ]
    # Where padding has a row, positions begin behind it, as RoBERTa's do.
    behind_padding = [table.num_embeddings - table.padding_idx - 1 for table in tables if table.padding_idx is not None]
    return Limits(vocabulary, min([positions, *behind_padding]), hard=bool(tables) or not rotary)


def _input_embedding(model: PreTrainedModel) -> nn.Module | None:
    try:
        found: nn.Module = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # a model of the user's own need not tell
        return None
    return found


def _configured(config: PretrainedConfig) -> int | None:
    for key in POSITION_KEYS:
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
