"""Putting an adapter on a model, taking it off without a trace, and its state in between."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autolora.variants.base import Allotment, VariantError
from autolora.variants.subtraction import ADAPTER, Subtracted, put_residual, restore, set_factors, subtract
from autolora.variants.targets import linear_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from autolora.variants.base import Variant

FACTOR_A = "lora_A"
"""PEFT's name of A, and the purpose of the randomness that it starts from."""

ALLOTTED = "allotted"
_RECORD = "_autolora_attachment"


@dataclass
class Attachment:
    """What was done to a base model, kept on the ``PeftModel`` so that it can be undone and exported.

    Attributes:
        layers: the adapted layers, of PEFT's class, by their name in the base.
        horizon: optimiser steps of the full run, where it was given.
        seed: of the adapter's randomness.
        trainable: base parameters that required gradients before.
        input_hooks: the base's own hooks for gradients at the embedding, which PEFT replaces under checkpointing.
        subtracted: by layer name; empty for variants with B0 A0 = 0.
    """

    layers: dict[str, Any]
    horizon: int | None
    seed: int
    trainable: list[nn.Parameter]
    input_hooks: list[Any] | None
    subtracted: dict[str, Subtracted] = field(default_factory=dict)


def attachment(model: PeftModel) -> Attachment:
    """The record of an attached model; raises ``VariantError`` where none was attached by a variant."""
    record = vars(model).get(_RECORD)
    if record is None:
        raise VariantError(f"this {type(model).__name__} was not attached by a variant, or is detached already")
    return record


def inject(
    variant: Variant,
    model: PreTrainedModel,
    rank: int,
    alpha: float,
    batches: Any,
    horizon: int | None,
    seed: int,
    dropout: float,
    allotted: Mapping[str, Allotment] | None,
) -> PeftModel:
    """Attach plain PEFT LoRA and give it the variant's own start; see :meth:`Variant.attach`.

    PEFT's own initialisations are not used: their adapters re-run the initialisation when they are loaded.
    """
    from peft import get_peft_model

    if not alpha > 0:
        raise VariantError(f"alpha must be above 0, got {alpha}")
    if variant.traits.unit_scale and alpha != rank:
        raise VariantError(
            f"{variant.name} got alpha {alpha:g} at rank {rank}: it is defined at s = 1: use alpha = rank"
        )
    targets = linear_layers(model)
    variant.check(model, targets, rank, dropout)
    if variant.needs_batches and not batches:
        needs = " and ".join(need for need in variant.needs if need != "horizon")
        raise VariantError(f"{variant.name} starts from {needs}: pass batches, a list of tokenised training batches")
    if horizon is None and "horizon" in variant.needs:
        raise VariantError(f"{variant.name} goes by the length of the run: pass horizon, its optimiser steps")
    if allotted is None:
        allotted = variant.allocate(model, targets, rank, alpha, batches)
    config = variant.lora_config(rank, alpha, dropout, list(allotted))
    config.fan_in_fan_out = all(layer.transposed for layer in targets.values())
    if any(own != (rank, alpha) for own in allotted.values()):
        config.rank_pattern = {_exactly(name): own.rank for name, own in allotted.items()}
        config.alpha_pattern = {_exactly(name): own.alpha for name, own in allotted.items()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    hooks = vars(model).get("_require_grads_hooks")
    with _own_randomness(seed):
        attached = get_peft_model(model, config, adapter_name=ADAPTER)
        layers = {name: attached.get_base_model().get_submodule(name) for name in allotted}
        setattr(attached, _RECORD, Attachment(layers, horizon, seed, trainable, hooks))
        try:
            _plain_start(layers, seed)
            variant.initialise(attached, seed, batches, horizon)
            _check_adapter(attached)
        except BaseException:
            remove(attached)
            raise
    return attached


def remove(model: PeftModel) -> PreTrainedModel:
    """Take the adapter off and return the base, bit-identical and with nothing left behind."""
    record = attachment(model)
    base = model.unload()
    for name, kept in record.subtracted.items():
        restore(record.layers[name], kept)
    for parameter in record.trainable:
        parameter.requires_grad_(True)
    if vars(base).get("_require_grads_hooks") is not record.input_hooks:
        base.disable_input_require_grads()
        del base._require_grads_hooks
        if record.input_hooks:
            base._require_grads_hooks = record.input_hooks
            base._require_grads_hook = record.input_hooks[0]
    # PEFT 0.21 does this itself; where it stays, the next attach warns of a second adapter.
    vars(base).pop("peft_config", None)
    delattr(model, _RECORD)
    return base


def frozen_layers(model: PeftModel) -> tuple[PreTrainedModel, dict[str, nn.Module]]:
    """The base of an attached model, and its own linear layers beneath the adapted ones, by name."""
    layers = attachment(model).layers
    return model.get_base_model(), {name: layer.get_base_layer() for name, layer in layers.items()}


def start_from(model: PeftModel, starts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Start the adapter at (A0, B0), each (r, n) and (m, r), and subtract s B0 A0 from the base in float32."""
    layers = attachment(model).layers
    for name, (a0, b0) in starts.items():
        set_factors(layers[name], a0, b0)
    anchor(model, starts)


def anchor(model: PeftModel, anchors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Subtract s B0 A0 from the base in float32, each (k, n) and (m, k); the adapter stays where it is."""
    record = attachment(model)
    base = model.get_base_model()
    users = Counter(id(p) for module in base.modules() for p in module.parameters(recurse=False))
    for name, (a0, b0) in anchors.items():
        layer = record.layers[name]
        shared = users[id(layer.get_base_layer().weight)] > 1
        record.subtracted[name] = subtract(layer, a0, b0, shared)


def adapter_state(model: PeftModel) -> dict[str, Tensor]:
    """The adapter as a flat dictionary of CPU tensors, for ``torch.save`` and ``torch.load(weights_only=True)``.

    It holds every adapter tensor and, for subtracting variants, the anchors A0 and B0; where ranks and alphas differ
    between layers, these too. An initialisation that is run again elsewhere need not give the same.
    """
    import torch

    state = {key: tensor.detach().to("cpu", copy=True) for key, tensor in _state_tensors(model).items()}
    if getattr(model.peft_config[ADAPTER], "rank_pattern", None):
        for name, layer in attachment(model).layers.items():
            own = [float(layer.r[ADAPTER]), float(layer.lora_alpha[ADAPTER])]
            state[f"{name}.{ALLOTTED}"] = torch.tensor(own, dtype=torch.float64)
    return state


def allotment(state: Mapping[str, Tensor]) -> dict[str, Allotment] | None:
    """What :func:`adapter_state` says of each layer's rank and alpha; None where all are alike."""
    found = {}
    for key, tensor in state.items():
        name, _, kind = key.rpartition(".")
        if kind == ALLOTTED:
            rank, alpha = tensor.tolist()
            found[name] = Allotment(int(rank), alpha)
    return found or None


def load_adapter_state(model: PeftModel, state: Mapping[str, Tensor]) -> None:
    """Restore :func:`adapter_state` into a freshly attached model, its subtracted base weights included.

    Raises:
        VariantError: the state belongs to another variant, rank or model.
    """
    import torch

    own = _state_tensors(model)
    state = {key: tensor for key, tensor in state.items() if not key.endswith(f".{ALLOTTED}")}
    if own.keys() != state.keys():
        key = min(own.keys() ^ state.keys())
        where = "misses" if key in own else "has, and the model lacks,"
        raise VariantError(f"the state is of another rank, variant or model: it {where} {key!r}")
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            sizes = f"{tuple(state[key].shape)}, the model's is {tuple(tensor.shape)}"
            raise VariantError(f"the state is of another rank or model: {key!r} is {sizes}")
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(state[key])
    record = attachment(model)
    for name, kept in record.subtracted.items():
        put_residual(record.layers[name], kept)


def adapter_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the adapter added to a layer, trainable or not."""
    return {key: p for key, p in layer.named_parameters() if not key.startswith("base_layer.")}


def base_parameters(base: nn.Module) -> list[nn.Parameter]:
    """A model's parameters without those of an adapter that is attached to it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [module for module in base.modules() if isinstance(module, BaseTunerLayer)]
    adapters = {id(parameter) for layer in adapted for parameter in adapter_parameters(layer).values()}
    return [parameter for parameter in base.parameters() if id(parameter) not in adapters]


def random_stream(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for one purpose, the same on every device."""
    import torch

    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def draw_kaiming(a: Tensor, generator: torch.Generator) -> None:
    """A (r, n) anew, Kaiming-uniform, bound 1/sqrt(n), drawn in float32 on the CPU."""
    import torch

    bound = a.shape[1] ** -0.5
    a.data.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))


def _state_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The live tensors behind the state; one that several layers share, as RaSA's pools, under its first name."""
    record = attachment(model)
    # RandLoRA's bases, which all layers share, are buffers of PEFT's model.
    tensors: dict[str, Tensor] = {key: t for key, t in model.base_model.named_buffers() if key.endswith(f".{ADAPTER}")}
    seen: set[int] = set()
    for name, layer in record.layers.items():
        own = {f"{name}.{key}": p for key, p in adapter_parameters(layer).items() if id(p) not in seen}
        tensors.update(own)
        seen.update(map(id, own.values()))
    for name, kept in record.subtracted.items():
        tensors[f"{name}.anchor_A"] = kept.a0
        tensors[f"{name}.anchor_B"] = kept.b0
    return tensors


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """PEFT draws from the global generator; the caller's is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, unlike torch.manual_seed
        yield


def _plain_start(layers: Mapping[str, Any], seed: int) -> None:
    """A Kaiming-uniform, bound 1/sqrt(n), drawn in float32: PEFT draws it in the base's precision. B = 0 stays."""
    generator = random_stream(seed, FACTOR_A)
    for layer in layers.values():
        for parameter in adapter_parameters(layer).values():
            parameter.data = parameter.data.float()
        if hasattr(layer, FACTOR_A):
            draw_kaiming(layer.lora_A[ADAPTER].weight, generator)


def _exactly(name: str) -> str:
    """PEFT's patterns are regular expressions that also match the end of a longer name."""
    return f"^{re.escape(name)}"


def _check_adapter(model: PeftModel) -> None:
    """Only the adapter trains, in float32: in bfloat16 an Adam step at a small learning rate rounds to nothing."""
    import torch

    own = {id(p) for layer in attachment(model).layers.values() for p in adapter_parameters(layer).values()}
    for name, parameter in model.named_parameters():
        if id(parameter) in own:
            assert parameter.dtype == torch.float32, f"{name} is {parameter.dtype}"
        else:
            assert not parameter.requires_grad, f"{name} of the base is trainable"
