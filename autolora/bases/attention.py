"""How a base computes attention, if the specification names an implementation of ``transformers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autolora.adapters.statistics import evaluating
from autolora.bases.blank import blank_model
from autolora.bases.device import dtype_name
from autolora.bases.errors import ModelError
from autolora.bases.memory import out_of_memory
from autolora.errors import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

    from autolora.bases.base import Base

KEY = "base.attn_implementation"
SERVING = "paged|"
"""How names of implementations begin that are for continuous batching alone: some attend to later tokens elsewhere."""
LENGTH = 4
"""Tokens of the row in :func:`check_works`."""


def check_available(asked: str | None, config: PretrainedConfig) -> None:
    """Refuse an implementation that the model does not have on this machine, before its weights are loaded.

    Args:
        asked: the implementation; None is the model's own default.
        config: of the model.

    Raises:
        ModelError: ``transformers`` does not know it, its package is not installed, or the model does not support it.
    """
    if asked is None:
        return
    problem = _problem(asked, config)
    if problem is None:
        return
    usable = [name for name in _known() if _problem(name, config) is None]
    if usable:  # a model that cannot be built without weights says nothing of its attention
        raise ModelError(_refusal(asked, problem, usable))


def check_object(asked: str | None, model: PreTrainedModel) -> None:
    """Raise ``ModelError`` if a model object computes attention in another way than asked."""
    own = model.config._attn_implementation
    if asked not in (None, own):
        raise ModelError(
            f"{KEY} is {asked!r}, but the {type(model).__name__} given uses {own!r}, and a model object is used as it "
            f"is: load it with attn_implementation={asked!r}, or leave {KEY} out"
        )


def check_works(asked: str | None, base: Base) -> None:
    """Take one forward and backward pass, as some implementations work on certain devices and dtypes only.

    Raises:
        ModelError: it fails.
    """
    import torch

    if asked is None:
        return

    def start(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.detach().requires_grad_()  # the weights are frozen

    rows = torch.full((1, LENGTH), base.pad_token_id, device=base.device)
    hook = base.model.get_input_embeddings().register_forward_hook(start)
    try:
        with evaluating(base.model), torch.enable_grad():
            with base.autocast():
                logits = base.model(input_ids=rows, use_cache=False).logits
            logits.float().logsumexp(-1).sum().backward()
    except Exception as error:  # each implementation refuses in its own way
        if out_of_memory(error):
            raise
        where = f"in {dtype_name(base.dtype)} on {base.device}"
        raise ModelError(_refusal(asked, f"it fails {where}: {_said(error)}", None)) from error
    finally:
        hook.remove()


def _problem(name: str, config: PretrainedConfig) -> str | None:
    """Why a model cannot be built with an implementation; None if it can."""
    if name.startswith(SERVING):
        return "it is for serving, not for training"
    try:
        blank_model(config, name)
    except Exception as error:  # ValueError, ImportError, and what models of repositories raise
        return _said(error)
    return None


def _known() -> list[str]:
    """Names of implementations in ``transformers``."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    names = ["sdpa", "eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    return [name for name in dict.fromkeys(names) if not name.startswith(SERVING)]


def _refusal(asked: str, problem: str, usable: list[str] | None) -> str:
    choice = f"one that the model has here ({', '.join(usable)})" if usable else "another one, such as sdpa or eager,"
    return f"{KEY} is {asked!r}, which cannot be used: {problem.rstrip('.')}. Name {choice} or leave the key out."


def _said(error: Exception) -> str:
    """The first sentence of an error; what follows is advice on calls that users do not write."""
    return first_line(error).partition(". ")[0][:300]
