"""The device and the dtype of a base."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from autolora.adapters.packed import bits_of
from autolora.bases.errors import ModelError
from autolora.errors import first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

    from autolora.spec import Spec


def find_device(name: str) -> torch.device:
    """The device named, or the best there is: cuda, then mps, then cpu."""
    import torch

    if name != "auto":
        return _checked(name)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _checked(name: str) -> torch.device:
    """The device named.

    Raises:
        ModelError: torch does not know it, or the machine has none.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type == "meta" or (device.type in ("cpu", "mps") and device.index):
        raise ModelError(
            f"training.device is {name!r}, which names no device; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"training.device is {name!r}, but this machine shows no CUDA device; use 'auto' or 'cpu'")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"training.device is {name!r}, which does not work here ({first_line(error)}); use 'auto' or 'cpu'"
        ) from None
    return device


def visible_cards() -> int:
    """CUDA devices that this process sees."""
    import torch

    return torch.cuda.device_count()


def cards_for(spec: Spec) -> int:
    """GPUs that the base of a specification is spread over; 1 means that it is on one device.

    They are as many as ``resources.gpu`` asks for. A process that sees fewer, as the driver of a cluster may, uses
    those: executors see to it that what trains has them all.

    Raises:
        ModelError: several are asked for, and the model cannot be spread over them.
    """
    asked = int(spec.resources.gpu or 0)
    if asked < 2:
        return 1
    over = f"resources.gpu is {asked}, which spreads the model over {asked} GPUs"
    if spec.training.device != "auto":
        raise ModelError(
            f"{over}, but training.device is {spec.training.device!r}, which names one device: leave training.device "
            "out, or set resources.gpu to 1"
        )
    if spec.model is None:  # the trainer places its own
        return 1
    if isinstance(spec.model, str):
        return max(1, min(asked, visible_cards()))
    used = len(placed_on(spec.model))
    if used != asked:
        raise ModelError(
            f"{over}, but the {type(spec.model).__name__} given is on {used} device{'s' if used != 1 else ''}, and a "
            "model object is used where it is: load it with device_map='auto', give its directory or hub id as model, "
            f"or set resources.gpu to {used}"
        )
    return 1


def placement(device: torch.device, cards: int) -> dict[str, object]:
    """Arguments of ``from_pretrained`` that load a model onto its device, without a copy of it in main memory first.

    Args:
        device: of a model that is not spread.
        cards: as :func:`cards_for`.
    """
    if cards < 2:
        return {"device_map": {"": device}}
    from accelerate.utils import get_max_memory

    room = get_max_memory()
    # Without an entry for the CPU, what does not fit is an error and not offloaded.
    return {"device_map": "auto", "max_memory": {card: room[card] for card in range(cards)}}


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype named; for "auto" bfloat16 on a CUDA GPU that has it, float16 on one that does not, else float32."""
    import torch

    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def own_dtype(model: nn.Module) -> torch.dtype:
    """The dtype that most weights of a model have, of those in numbers; embeddings count only where there is nothing
    else.

    A model may keep some in another on purpose, such as norms, routers or embeddings in float32.
    """
    from torch import nn

    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    packed = {id(module.weight) for module in model.modules() if bits_of(module)}  # stored as numbers that they are not
    floating = [p for p in model.parameters() if p.is_floating_point() and id(p) not in packed]
    sizes: Counter[torch.dtype] = Counter()
    for parameter in [p for p in floating if id(p) not in embeddings] or floating:
        sizes[parameter.dtype] += parameter.numel()
    return sizes.most_common(1)[0][0]


def dispatched(model: nn.Module) -> bool:
    """Whether the parts of a model were placed on several devices, by ``device_map``."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def placed_on(model: nn.Module) -> set[torch.device]:
    """The devices that hold a model's parameters."""
    return {parameter.device for parameter in model.parameters()}


def dtype_name(dtype: torch.dtype) -> str:
    """Its name without ``torch.``."""
    return str(dtype).removeprefix("torch.")
