"""The output head on target tokens alone, in chunks: what trains and scores never holds the logits of a whole batch.

A causal language model of ``transformers`` is a backbone and what comes behind it: the head, and whatever its
architecture does with the logits. Here the backbone runs once, and what is behind it runs on those tokens alone that
predict a target, a chunk at a time. Whether a model can be taken apart so is found out on the model itself, see
:mod:`autolora.bases.reading`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from autolora.losses import all_logits, target_logits, target_places

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

CHUNK = 1 << 24
"""Most logits that are there at once: 64 MB in float32, and three times that with their gradients."""


def summed_loss(model: nn.Module, batch: Mapping[str, Tensor], apart: bool, scale: float = 1.0) -> Tensor:
    """Cross-entropy summed over the target tokens of a batch, to train on.

    Args:
        model: a causal language model, with an adapter or without.
        batch: input_ids and labels, each (batch, seq); attention_mask and position_ids where the model needs them.
            Labels are -100 where no loss is taken.
        apart: the head runs on target tokens alone; otherwise on all tokens.
        scale: about what the loss is multiplied by before its backward pass. Gradients that are computed along with it
            are computed with this factor, and divided by it in the end: in float16 they would vanish otherwise.

    Returns:
        A scalar in float32 or finer, differentiable once. With ``apart`` the gradient at the backbone's output, and
        that of what trains behind it, are computed along with the loss, so that no chunk is kept.
    """
    if not apart:
        logits, targets = target_logits(model, batch)
        return cross_entropy(logits, targets, reduction="sum")
    parts = _Parts.of(model, batch)
    if not torch.is_grad_enabled():
        return sum((loss.sum() for loss, _ in parts.losses()), parts.targets.new_zeros((), dtype=torch.float32))
    loss: Tensor = _ChunkedLoss.apply(parts, scale, parts.hidden, *parts.trained)  # type: ignore[no-untyped-call]
    return loss


def token_predictions(model: nn.Module, batch: Mapping[str, Tensor], apart: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of each target token of a batch and what is predicted there, to score by; without gradients.

    Args:
        model, batch, apart: see :func:`summed_loss`.

    Returns:
        Losses (targets,), predicted tokens (targets,), and the targets (targets,).
    """
    with torch.no_grad():
        if not apart:
            logits, targets = target_logits(model, batch)
            return cross_entropy(logits, targets, reduction="none"), logits.argmax(-1), targets
        parts = _Parts.of(model, batch)
        losses, predicted = zip(*((loss, logits.argmax(-1)) for loss, logits in parts.losses()), strict=True)
        return torch.cat(losses), torch.cat(predicted), parts.targets


def separate_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """:func:`autolora.losses.target_logits` with the head apart, all targets at once.

    Raises:
        Exception: whatever comes of a model that cannot be taken apart.
    """
    parts = _Parts.of(model, batch)
    return parts.tail(parts.hidden), parts.targets


@dataclass(frozen=True)
class _Parts:
    """A forward pass that stopped behind the backbone.

    Attributes:
        inner: the model proper, without PEFT around it.
        output: of the backbone.
        hidden: (targets, hidden), the backbone's states that predict a target.
        targets: (targets,), the tokens that they should predict.
        vocabulary: logits for each.
    """

    inner: PreTrainedModel
    output: Any
    hidden: Tensor
    targets: Tensor
    vocabulary: int

    @classmethod
    def of(cls, model: nn.Module, batch: Mapping[str, Tensor]) -> _Parts:
        inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        outputs: list[Any] = []

        def shorten(module: nn.Module, inputs: object, output: Any) -> Any:
            outputs.append(output)
            return _with_states(output, output.last_hidden_state[:, :1])

        hook = inner.base_model.register_forward_hook(shorten)
        try:
            logits = all_logits(model, batch)
        finally:
            hook.remove()
        [output] = outputs
        places = target_places(batch)
        hidden = output.last_hidden_state  # on the device of the last layer, where a model is spread over several
        states = hidden.flatten(0, 1).index_select(0, places.to(hidden.device))
        targets = batch["labels"].flatten().index_select(0, places + 1)
        return cls(inner, output, states, targets, logits.shape[-1])

    @property
    def trained(self) -> list[nn.Parameter]:
        """What trains behind the backbone, as an adapter of the head does."""
        backbone = {id(parameter) for parameter in self.inner.base_model.parameters()}
        return [p for p in self.inner.parameters() if p.requires_grad and id(p) not in backbone]

    def tail(self, states: Tensor) -> Tensor:
        """Logits (n, vocabulary) in float32 or finer of hidden states (n, hidden)."""
        tokens = self.targets.new_zeros(1, len(states))
        with _standing_in(self.inner.base_model, _with_states(self.output, states[None])):
            logits: Tensor = self.inner(input_ids=tokens, use_cache=False).logits[0]
        return logits if logits.dtype == torch.float64 else logits.float()

    def chunks(self) -> Iterator[slice]:
        """All targets, as many at a time as CHUNK allows; once where there are none."""
        size = max(1, CHUNK // self.vocabulary)
        for begin in range(0, max(1, len(self.targets)), size):
            yield slice(begin, begin + size)

    def losses(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Losses (n,) and logits (n, vocabulary), chunk by chunk."""
        for chunk in self.chunks():
            logits = self.tail(self.hidden[chunk])
            yield cross_entropy(logits, self.targets[chunk], reduction="none"), logits


class _ChunkedLoss(torch.autograd.Function):
    """The sum of a batch's losses, with its gradients computed chunk by chunk on the way forward."""

    @staticmethod
    def forward(ctx: Any, parts: _Parts, scale: float, hidden: Tensor, *trained: Tensor) -> Tensor:
        gradients = [torch.empty_like(hidden), *map(torch.zeros_like, trained)]
        total = parts.targets.new_zeros((), dtype=torch.float32)
        for chunk in parts.chunks():
            states = hidden[chunk].detach().requires_grad_()
            with torch.enable_grad():
                loss = cross_entropy(parts.tail(states), parts.targets[chunk], reduction="sum")
                scaled = loss * scale
            total = total + loss.detach()
            at_states, *at_trained = torch.autograd.grad(scaled, [states, *trained])
            gradients[0][chunk] = at_states
            for gradient, more in zip(gradients[1:], at_trained, strict=True):
                gradient += more
        ctx.save_for_backward(*gradients)
        ctx.scale = scale
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        scale = factor / ctx.scale
        return None, None, *(gradient * scale.to(gradient.device) for gradient in ctx.saved_tensors)


def _with_states(output: Any, states: Tensor) -> Any:
    """A backbone's output with other hidden states."""
    other = copy.copy(output)
    other.last_hidden_state = states
    return other


@contextmanager
def _standing_in(backbone: nn.Module, output: object) -> Iterator[None]:
    """A backbone that says ``output`` whatever it is given; what is behind it is then all that runs."""
    own = vars(backbone).get("forward")
    vars(backbone)["forward"] = lambda *_, **__: output
    try:
        yield
    finally:
        del vars(backbone)["forward"]
        if own is not None:
            vars(backbone)["forward"] = own
