"""One adapted layer of a model, and which of its parameters are an adapter's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from peft.tuners.lora.dora import DoraLinearLayer
    from peft.tuners.lora.layer import LoraVariant
    from torch import Tensor, nn


class Factor(Protocol):
    """One of PEFT's modules for A and B."""

    weight: nn.Parameter
    in_features: int
    out_features: int

    def __call__(self, x: Tensor) -> Tensor: ...


class PeftLayer(Protocol):
    """The members of PEFT's layers that are used here. PEFT declares no type for them; only LoRA's layers have all."""

    training: bool
    in_features: int
    out_features: int
    fan_in_fan_out: bool
    scaling: Mapping[str, float]
    lora_A: Mapping[str, Factor]
    lora_B: Mapping[str, Factor]
    lora_dropout: Mapping[str, nn.Module]
    lora_magnitude_vector: Mapping[str, DoraLinearLayer]
    lora_variant: dict[str, LoraVariant]
    num_experts: int
    parameter_name: str

    def get_base_layer(self) -> nn.Linear: ...

    def get_parameter(self, target: str) -> nn.Parameter: ...

    def get_buffer(self, target: str) -> Tensor: ...

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None: ...

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


@dataclass(frozen=True, eq=False)
class AdaptedLayer:
    """A layer to which PEFT gave an adapter, seen through the adapter's name.

    PEFT keeps what belongs to an adapter in dictionaries by its name. The properties read them for the one adapter.

    Attributes:
        module: the layer, of PEFT's class.
        adapter: name of the adapter.
    """

    module: PeftLayer
    adapter: str

    def entry(self, name: str) -> Any:
        """What one of PEFT's dictionaries of the layer, such as "vera_lambda_d", holds for this adapter."""
        return getattr(self.module, name)[self.adapter]

    @property
    def a(self) -> nn.Parameter:
        """A (r, n), the weight of ``lora_A``."""
        return self.module.lora_A[self.adapter].weight

    @property
    def b(self) -> nn.Parameter:
        """B (m, r), the weight of ``lora_B``."""
        return self.module.lora_B[self.adapter].weight

    @property
    def experts(self) -> int:
        """How many experts' matrices the layer holds in one parameter; 0: it is a linear layer.

        Then A is (experts r, n), expert by expert, and B (m, r experts), rank by rank: see :func:`stacked`.
        """
        return self.module.num_experts if hasattr(self.module, "parameter_name") else 0

    @property
    def rank(self) -> int:
        """r, as PEFT was told it."""
        return int(self.entry("r"))

    @property
    def alpha(self) -> float:
        """The numerator of the scaling; only layers of LoRA's kind have one."""
        alpha: float = self.entry("lora_alpha")
        return alpha

    @property
    def scaling(self) -> float:
        """s of W x + s B A x; 1 if PEFT's method has none, as VeRA."""
        scaling: float = getattr(self.module, "scaling", {}).get(self.adapter, 1.0)
        return scaling

    @property
    def base_layer(self) -> nn.Linear:
        """The model's own layer beneath the adapter; it may be ``Conv1D``, which stores W as (n, m)."""
        return self.module.get_base_layer()

    @property
    def in_features(self) -> int:
        """n of the weight W (m, n)."""
        return self.module.in_features

    @property
    def out_features(self) -> int:
        """m of the weight W (m, n)."""
        return self.module.out_features

    @property
    def branch(self) -> LoraVariant | None:
        """What stands in place of PEFT's forward pass of LoRA; None if nothing does."""
        branch: LoraVariant | None = getattr(self.module, "lora_variant", {}).get(self.adapter)
        return branch

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that the adapter added, trainable or not, by their name in the layer."""
        return adapter_parameters(self.module)

    def times_a(self, x: Tensor) -> Tensor:
        """A x, (..., r), for x (..., n)."""
        return self.module.lora_A[self.adapter](x)

    def times_b(self, h: Tensor) -> Tensor:
        """B h, (..., m), for h (..., r)."""
        return self.module.lora_B[self.adapter](h)

    def install(self, branch: LoraVariant) -> None:
        """Put a forward pass, a ``LoraVariant`` of PEFT's, in place of plain LoRA's."""
        self.module.lora_variant[self.adapter] = branch

    def set_factors(self, a: Tensor, b: Tensor) -> None:
        """Copy (r, n) and (m, r) into A and B."""
        self.a.data.copy_(a)
        self.b.data.copy_(b)

    def replace_factors(self, a: nn.Parameter, b: nn.Parameter) -> None:
        """Train these parameters as A and B, which other layers may hold, too."""
        self.module.lora_A[self.adapter].weight = a
        self.module.lora_B[self.adapter].weight = b

    def give(self, name: str, value: Tensor) -> nn.Parameter:
        """Add a trainable parameter to the adapter, in float32 where A is, and return it."""
        from torch import nn

        return self.share(name, nn.Parameter(value.float().to(self.a.device)))

    def share(self, name: str, parameter: nn.Parameter) -> nn.Parameter:
        """Add a parameter that other layers may hold, too, and return it."""
        self.module.register_parameter(name, parameter)
        return parameter

    def given(self, name: str) -> nn.Parameter:
        """What :meth:`give` or :meth:`share` added under this name."""
        return self.module.get_parameter(name)


def adapted_layer(model: nn.Module, name: str, adapter: str) -> AdaptedLayer:
    """The layer of a name, see :class:`~autolora.adapters.targets.Coverage`, in a model that carries the adapter."""
    return AdaptedLayer(cast("PeftLayer", model.get_submodule(module_path(model, name))), adapter)


def module_path(model: nn.Module, name: str) -> str:
    """Where the adapter of a layer is. PEFT wraps a module once for each of its parameters that get one."""
    try:
        model.get_submodule(name)
        return name
    except AttributeError:
        path, _, parameter = name.rpartition(".")
    while getattr(model.get_submodule(path), "parameter_name", parameter) != parameter:
        path += ".base_layer"
    return path


def stacked(a: Tensor, b: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """A (experts, r, n) and B (experts, m, r) of each expert: views of PEFT's (experts r, n) and (m, r experts)."""
    return a.view(experts, -1, a.shape[1]), b.view(len(b), -1, experts).permute(2, 0, 1)


def unstacked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The way back from :func:`stacked`."""
    return a.reshape(-1, a.shape[2]), b.permute(1, 2, 0).reshape(b.shape[1], -1)


def stored_weight(layer: nn.Module) -> nn.Parameter:
    """The weight of a linear layer, in the way that the layer stores it."""
    return cast("nn.Parameter", layer.weight)


def adapter_parameters(module: nn.Module | PeftLayer) -> dict[str, nn.Parameter]:
    """The parameters that an adapter added to a layer of PEFT's class, trainable or not."""
    return {key: p for key, p in module.named_parameters() if not key.startswith("base_layer.")}


def parameter_users(model: nn.Module) -> Counter[int]:
    """How many modules hold each parameter, by its ``id``: more than one if it is tied."""
    return Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))


def base_parameters(base: nn.Module) -> list[nn.Parameter]:
    """A model's parameters without those of an adapter that is attached to it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [module for module in base.modules() if isinstance(module, BaseTunerLayer)]
    adapters = {id(parameter) for layer in adapted for parameter in adapter_parameters(layer).values()}
    return [parameter for parameter in base.parameters() if id(parameter) not in adapters]


def base_buffers(base: nn.Module) -> list[Tensor]:
    """A model's persistent buffers, some of which are weights, without those of an adapter that is attached to it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapters = [f"{path}." for path, module in base.named_modules() if isinstance(module, BaseTunerLayer)]
    found = []
    for path, module in base.named_modules():
        own = next((prefix for prefix in reversed(adapters) if f"{path}.".startswith(prefix)), None)
        if own is not None and not f"{path}.".startswith(f"{own}base_layer."):
            continue
        names = module._buffers.keys() - module._non_persistent_buffers_set
        found += [buffer for name in sorted(names) if (buffer := module._buffers[name]) is not None]
    return found
