"""What a training changes of a model, to be saved and put back, however the adapter was attached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

ATTACHED, TRAINED, BUFFER = "attached.", "trained.", "buffer."
"""What the names of tensors begin with: of an attachment of ours, other trained parameters, buffers."""


def carries_adapter(model: nn.Module) -> bool:
    """Whether a model has an adapter: PEFT's, one of ours, or one of transformers' own ``add_adapter``."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


def trained_state(model: nn.Module, attached: PeftModel | None) -> dict[str, Tensor]:
    """Copies on the CPU of all that training changes.

    Args:
        model: of the trainer.
        attached: the same, if a variant was attached to it.
    """
    from autolora.adapters.state import adapter_state

    state = {} if attached is None else {ATTACHED + name: each for name, each in adapter_state(attached).items()}
    own = {name: tensor.detach().to("cpu", copy=True) for name, tensor in _live(model, attached).items()}
    return {name: tensor.contiguous() for name, tensor in {**state, **own}.items()}


def attached_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of :func:`autolora.adapters.state.adapter_state` in a state; none where nothing was attached."""
    return {name.removeprefix(ATTACHED): each for name, each in state.items() if name.startswith(ATTACHED)}


def load_trained_state(model: nn.Module, attached: PeftModel | None, state: Mapping[str, Tensor]) -> None:
    """Put back what :func:`trained_state` took.

    Raises:
        AutoloraError: the model trains other parameters than the one that the state is of.
    """
    import torch

    from autolora.adapters.state import load_adapter_state

    adapter, live = attached_part(state), _live(model, attached)
    others = {name: tensor for name, tensor in state.items() if not name.startswith(ATTACHED)}
    shapes = {name: tuple(tensor.shape) for name, tensor in live.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in others.items()} or bool(adapter) != bool(attached):
        differ = sorted(shapes.keys() ^ others.keys()) or [
            name for name, shape in shapes.items() if shape != tuple(others[name].shape)
        ]
        raise AutoloraError(
            "the trainer trains other parameters than when the trial's checkpoint was written"
            f"{f', such as {differ[0]}' if differ else ''}: it must make the same model every time it is given the "
            "same trial. Undo the change, or tune in a new directory"
        )
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(others[name])
    if attached is not None:
        load_adapter_state(attached, adapter)


def _live(model: nn.Module, attached: PeftModel | None) -> dict[str, Tensor]:
    """The trainable parameters that are not the attachment's, and the buffers that a checkpoint of a model has."""
    from autolora.adapters.attachment import attachment

    layers = [] if attached is None else attachment(attached).layers.values()
    ours = {id(parameter) for layer in layers for parameter in layer.parameters.values()}
    parameters = {
        TRAINED + name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in ours
    }
    buffers = {} if attached is not None else _kept_buffers(model)
    return {**parameters, **buffers}


def _kept_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Those of a model's checkpoint; one that several modules share, as VeRA's bases, under its first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                found.setdefault(id(buffer), (f"{BUFFER}{prefix}{'.' if prefix else ''}{name}", buffer))
    return dict(found.values())
