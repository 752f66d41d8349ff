"""Hessian-vector products of a causal language model's loss, by double backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from autolora.adapters.statistics import evaluating
from autolora.losses import target_count, token_losses

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    Batch = Mapping[str, Tensor]


@contextmanager
def twice_differentiable(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """A context in which second derivatives of the model exist and are exact; the model is as before afterwards.

    Attention runs in the MATH kernel where the model uses PyTorch's, else eagerly: fused kernels have no second
    derivative. Weights and adapters are float32. Dropout and gradient checkpointing, which go with the training mode,
    are off; memory is bounded by the size of the batches instead.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    attention = base.config._attn_implementation
    narrow = {p: p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if attention not in ("sdpa", "eager"):
            base.set_attn_implementation("eager")
            stack.callback(base.set_attn_implementation, attention)
        for parameter, dtype in narrow.items():  # both ways without loss
            parameter.data = parameter.data.float()
            stack.callback(_cast, parameter, dtype)
        yield


def hessian_product(
    model: nn.Module, batches: Sequence[Batch], parameters: Sequence[Tensor]
) -> Callable[[Tensor], Tensor]:
    """v to H v for the Hessian of the loss in some parameters, flattened one after the other.

    Args:
        model: inside :func:`twice_differentiable`.
        batches: as in training; the loss is the average over all their target tokens.
        parameters: that require gradients; the others' part of the graph is not walked.

    Returns:
        A function from (size,) to (size,), size the number of the parameters' elements. The gradient's graph is built
        once and kept for as long as the function is: a product is then one backward pass through it.
    """
    import torch

    targets = sum(map(target_count, batches))
    sizes = [p.numel() for p in parameters]
    gradients = []
    for batch in batches:
        losses, _, _ = token_losses(model, batch)
        gradients.append(torch.autograd.grad(losses.sum() / targets, parameters, create_graph=True))

    def product(vector: Tensor) -> Tensor:
        parts = [part.view_as(p) for part, p in zip(torch.split(vector, sizes), parameters, strict=True)]
        total = torch.zeros_like(vector)
        for gradient in gradients:
            images = torch.autograd.grad(
                gradient, parameters, grad_outputs=parts, retain_graph=True, materialize_grads=True
            )
            total += torch.cat([image.flatten() for image in images])
        return total

    return product


def _cast(parameter: nn.Parameter, dtype: torch.dtype) -> None:
    parameter.data = parameter.data.to(dtype)
