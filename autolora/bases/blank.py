"""A model without its weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from autolora.bases import kinds
from autolora.bases.source import LOADING

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def blank_model(config: PretrainedConfig, attention: str = "eager") -> PreTrainedModel:
    """The model of a configuration on the device "meta", where parameters have shapes and no values.

    Args:
        config: stays as it is.
        attention: implementation of attention; "eager" needs no other package.

    Raises:
        Exception: whatever the architecture raises if it cannot be built so.
    """
    import torch
    import transformers

    own = copy.deepcopy(config)  # from_config writes into it
    own._attn_implementation = attention
    with LOADING, without_logs(), torch.device("meta"):
        model: PreTrainedModel = getattr(transformers, kinds.auto_class(config)).from_config(own)
    return model


@contextmanager
def without_logs() -> Iterator[None]:
    """Context in which ``transformers`` logs errors alone: a model that is never run needs no faster kernels."""
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        log.setLevel(level)
