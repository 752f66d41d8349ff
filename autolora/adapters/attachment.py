"""Putting an adapter on a model, and taking it off without a trace."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from autolora.adapters.draws import FACTOR_A, draw_kaiming, random_stream
from autolora.adapters.errors import VariantError
from autolora.adapters.layer import AdaptedLayer, adapted_layer, parameter_users
from autolora.adapters.packed import weights_kept
from autolora.adapters.renaming import as_written, misread
from autolora.adapters.start import Allotment, Start
from autolora.adapters.subtraction import Subtracted, subtract
from autolora.adapters.targets import LinearLayer

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

    from autolora.adapters.declaration import Declaration

_RECORD = "_autolora_attachment"
_tuners = Lock()


@dataclass
class Attachment:
    """What was done to a base model, kept on the ``PeftModel`` so that it can be undone and exported.

    Attributes:
        adapter_name: PEFT's name of the adapter.
        layers: the adapted layers by their name in the base.
        rank, alpha: as asked for; a layer's own may differ.
        horizon: optimizer steps of the full run; None if not given.
        seed: of the adapter's randomness.
        trainable: base parameters that required gradients before.
        input_hooks: the base's own hooks for gradients at the embedding, which PEFT replaces under checkpointing.
        subtracted: by layer name; empty for variants with B0 A0 = 0.
        order: names of the parameters of each module that holds experts, as they were: PEFT's forward pass changes it.
    """

    adapter_name: str
    layers: dict[str, AdaptedLayer]
    rank: int
    alpha: float
    horizon: int | None
    seed: int
    trainable: list[nn.Parameter]
    input_hooks: list[RemovableHandle] | None
    subtracted: dict[str, Subtracted] = field(default_factory=dict)
    order: dict[nn.Module, list[str]] = field(default_factory=dict)


def attachment(model: PeftModel) -> Attachment:
    """The record of an attached model; raises ``VariantError`` if none was attached by a variant."""
    record: Attachment | None = vars(model).get(_RECORD)
    if record is None:
        raise VariantError(f"this {type(model).__name__} was not attached by a variant, or is detached already")
    return record


def inject(
    variant: Declaration,
    start: Start[LinearLayer],
    allotted: Mapping[str, Allotment] | None = None,
) -> PeftModel:
    """Attach what PEFT has and give it the variant's own start; see ``Variant.attach``.

    PEFT's own initializations are not used: their adapters re-run the initialization when they are loaded.

    Args:
        variant: what to attach.
        start: its inputs; ``layers`` are those of :func:`~autolora.adapters.targets.survey`.
        allotted: rank and alpha of each layer; None means that the variant allots them.

    Raises:
        VariantError: the adapter's name cannot be used, an input is missing, or what the variant's ``check`` refuses.
    """
    base, targets = start.model, start.layers
    _check(variant, start)
    variant.check(start)
    _check_needs(variant, start)
    if allotted is None:
        allotted = variant.allocate(start)
    experts = [name for name in allotted if targets[name].experts]
    config = variant.lora_config(start, [name for name in allotted if not targets[name].experts])
    config.fan_in_fan_out = all(layer.transposed for layer in targets.values())
    if experts:
        config.target_parameters = experts
    if any(own != (start.rank, start.alpha) for own in allotted.values()):
        config.rank_pattern = {_exactly(name): own.rank for name, own in allotted.items()}
        config.alpha_pattern = {_exactly(name): own.alpha for name, own in allotted.items()}
    trainable = [p for p in base.parameters() if p.requires_grad]
    hooks = vars(base).get("_require_grads_hooks")
    holders = {base.get_submodule(name.rpartition(".")[0]) for name in experts}
    order = {holder: list(holder._parameters) for holder in holders}
    with _own_randomness(start.seed), _quiet_patterns():
        with whole_or_untouched(base), weights_kept(base):
            attached = _peft_model(base, config, start.adapter_name, variant.tuner())
        inner: PreTrainedModel = attached.get_base_model()
        layers = {name: adapted_layer(inner, name, start.adapter_name) for name in allotted}
        record = Attachment(
            adapter_name=start.adapter_name,
            layers=layers,
            rank=start.rank,
            alpha=start.alpha,
            horizon=start.horizon,
            seed=start.seed,
            trainable=trainable,
            input_hooks=hooks,
            order=order,
        )
        setattr(attached, _RECORD, record)
        try:
            _plain_start(layers, start.seed)
            variant.initialize(replace(start, model=attached, layers=layers))  # type: ignore[arg-type]
            _check_adapter(attached)
            _check_devices(layers, variant.name)
        except BaseException:
            remove(attached)
            raise
    return attached


def remove(model: PeftModel) -> PreTrainedModel:
    """Take the adapter off and return the base, bit-identical and with nothing left behind."""
    record = attachment(model)
    base = model.unload()
    for name, kept in record.subtracted.items():
        kept.restore(record.layers[name])
    for holder, names in record.order.items():
        holder._parameters = {name: holder._parameters[name] for name in names}
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


@contextmanager
def whole_or_untouched(base: PreTrainedModel) -> Iterator[None]:
    """Context in which PEFT wraps layers of a model: if that fails amid the layers, of memory, a file or Ctrl-C, the
    model is as it was."""
    children = [(module, dict(module._modules)) for module in base.modules()]
    trainable = [parameter for parameter in base.parameters() if parameter.requires_grad]
    attributes = set(vars(base))
    try:
        yield
    except BaseException:
        for module, own in children:
            module._modules = own
        for parameter in trainable:
            parameter.requires_grad_(True)
        added = set(vars(base)) - attributes
        if "_require_grads_hooks" in added:
            base.disable_input_require_grads()
        for name in added & set(vars(base)):
            delattr(base, name)
        raise


def frozen_layers(model: PeftModel) -> tuple[PreTrainedModel, dict[str, nn.Module]]:
    """The base of an attached model, and its own linear layers beneath the adapted ones, by name."""
    layers = attachment(model).layers
    return model.get_base_model(), {name: layer.base_layer for name, layer in layers.items()}


def start_from(model: PeftModel, starts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Start the adapter at (A0, B0), each (r, n) and (m, r), and subtract s B0 A0 from the base in float32."""
    layers = attachment(model).layers
    for name, (a0, b0) in starts.items():
        layers[name].set_factors(a0, b0)
    anchor(model, starts)


def anchor(model: PeftModel, anchors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Subtract s B0 A0 from the base in float32, each (k, n) and (m, k); the adapter stays where it is."""
    record = attachment(model)
    base = model.get_base_model()
    users = parameter_users(base)
    for name, (a0, b0) in anchors.items():
        layer = record.layers[name]
        shared = users[id(layer.base_layer.weight)] > 1
        record.subtracted[name] = subtract(layer, a0, b0, shared)


def _check(variant: Declaration, start: Start[LinearLayer]) -> None:
    if not start.alpha > 0:
        raise VariantError(f"alpha must be above 0, got {start.alpha}")
    if variant.traits.unit_scale and start.alpha != start.rank:
        raise VariantError(
            f"{variant.name} got alpha {start.alpha:g} at rank {start.rank}: it is defined at s = 1: use alpha = rank"
        )
    if not start.adapter_name or "." in start.adapter_name:
        raise VariantError(f"adapter_name={start.adapter_name!r} cannot name an adapter: use a name without a dot")


def _check_needs(variant: Declaration, start: Start[LinearLayer]) -> None:
    if variant.needs_batches and not start.batches:
        needs = " and ".join(need for need in variant.needs if need != "horizon")
        raise VariantError(f"{variant.name} starts from {needs}: pass batches, a list of tokenized training batches")
    if start.horizon is None and "horizon" in variant.needs:
        raise VariantError(
            f"{variant.name} needs the length of the run: pass horizon, the number of its optimizer steps"
        )


def _peft_model(
    base: PreTrainedModel, config: PeftConfig, adapter_name: str, tuner: type[BaseTuner] | None
) -> PeftModel:
    """PEFT's model with its adapter injected, by PEFT's own tuner or a class derived from it."""
    from peft import get_peft_model
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as TUNERS
    from peft.utils import PeftType

    names = sorted(config.target_modules)
    if config.peft_type == PeftType.LORA and misread(base, names):
        tuner = as_written(tuner or TUNERS[PeftType.LORA], names)
        config.target_modules = []
    if tuner is None:
        return get_peft_model(base, config, adapter_name=adapter_name)
    # PEFT looks its tuner up by the method and takes none as an argument. One thread at a time: another would keep
    # this tuner as the one to put back.
    method = PeftType(config.peft_type)
    with _tuners:
        own = TUNERS[method]
        TUNERS[method] = tuner
        try:
            return get_peft_model(base, config, adapter_name=adapter_name)
        finally:
            TUNERS[method] = own


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """PEFT draws from the global generator; the caller's is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, unlike torch.manual_seed
        yield


@contextmanager
def _quiet_patterns() -> Iterator[None]:
    """PEFT looks for the names of its patterns among modules, and warns of those of parameters, which it does find."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys did not match")
        yield


def _plain_start(layers: Mapping[str, AdaptedLayer], seed: int) -> None:
    """A Kaiming-uniform, bound 1/sqrt(n), drawn in float32: PEFT draws it in the base's precision. B = 0 stays."""
    generator = random_stream(seed, FACTOR_A)
    for layer in layers.values():
        for parameter in layer.parameters.values():
            parameter.data = parameter.data.float()
        if hasattr(layer.module, FACTOR_A):
            draw_kaiming(layer.a, generator)


def _exactly(name: str) -> str:
    """PEFT's patterns are regular expressions that also match the end of a longer name."""
    return f"^{re.escape(name)}"


def _check_devices(layers: Mapping[str, AdaptedLayer], variant: str) -> None:
    """Refuse parameters that layers on different devices would share."""
    for name, layer in layers.items():
        own = next(layer.base_layer.parameters()).device
        elsewhere = {str(p.device) for p in layer.parameters.values() if p.device != own}
        if elsewhere:
            raise VariantError(
                f"{variant} shares parameters between layers, and of this model layer {name!r} is on {own} while they "
                f"are on {', '.join(sorted(elsewhere))}: leave {variant} out of variants, or have the model on one "
                "device (resources.gpu, device_map)"
            )


def _check_adapter(model: PeftModel) -> None:
    """Only the adapter trains, in float32: in bfloat16 an Adam step at a small learning rate rounds to nothing."""
    import torch

    own = {id(p) for layer in attachment(model).layers.values() for p in layer.parameters.values()}
    for name, parameter in model.named_parameters():
        if id(parameter) in own:
            assert parameter.dtype == torch.float32, f"{name} is {parameter.dtype}"
        else:
            assert not parameter.requires_grad, f"{name} of the base is trainable"
