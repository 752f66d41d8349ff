"""What a LoRA variant is. A new one is one file in this folder: a subclass of :class:`Variant`, registered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints

from autolora.errors import AutoloraError
from autolora.space import Traits

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from autolora.variants.targets import LinearLayer


class Allotment(NamedTuple):
    """What one layer gets."""

    rank: int
    alpha: float


class VariantError(AutoloraError, ValueError):
    """A variant cannot be used as asked; the message names the model, layer or setting and what would be right."""


@dataclass(frozen=True)
class Variant:
    """One LoRA variant: how it attaches, what it trains with, how it leaves.

    Subclasses override the hooks they differ in; the defaults are plain LoRA. Torch is imported inside functions, so
    that listing variants and searching over them needs neither torch nor peft.

    The fields that a subclass adds are the variant's own hyperparameters, see :attr:`options`.

    Attributes:
        name: registry key.
        title: name as published.
        paper: where it is defined.
        kind: what it changes of plain LoRA: "reference", "scaling", "start", "architecture" or "optimiser".
        traits: what the scaling laws need to know.
        needs: inputs of ``attach`` beyond the model: any of "gradients", "activations", "horizon".
        constraints: what it asks of ranks, layers and settings, in words; :meth:`check` and ``attach`` see to it.
        optimiser: what trains it, in words.
        export_form: the plain LoRA that it leaves as, exactly: "rank r", "rank 2r", "rank kr" (a multiple of r), "rank
            r+" (more than r); "native" where PEFT has a format of its own for it; "own" where only
            :func:`autolora.load_adapter` reads it.
        cost: time of a training step relative to plain LoRA's at width 1024, from studies/variants; None: not measured.
        factored: it trains two factors A and B of each layer, as PEFT's ``LoraLayer`` holds them.
        moves_at_start: its start is not subtracted: attaching it changes the model's outputs, as its paper means it to.
        starts_as_lora: at s = 1 its Hessian in {A, B} at initialisation is plain LoRA's, so curvature tells nothing of
            it.
        redundant_with_alpha: own hyperparameters that under Adam do what alpha does: never searched together.
        peft_options: ``LoraConfig`` options with which plain PEFT trains this variant, beyond rank, alpha, dropout and
            target modules; None: PEFT has none, and other trainers cannot be configured for it.
    """

    name: str
    title: str
    paper: str
    traits: Traits = field(default_factory=Traits)
    kind: str = "start"
    needs: tuple[str, ...] = ()
    constraints: str = "r <= min(m, n)"
    optimiser: str = "AdamW"
    export_form: str = "rank r"
    cost: float | None = None
    factored: bool = True
    starts_as_lora: bool = False
    moves_at_start: bool = False
    redundant_with_alpha: tuple[str, ...] = ()
    above_zero: tuple[str, ...] = ()
    peft_options: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def options(self) -> dict[str, Any]:
        """The variant's own hyperparameters and their values: the fields that its class adds."""
        shared = {field.name for field in fields(Variant)}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in shared}

    def default(self, option: str, rank: int) -> Any:
        """The value that one of the :attr:`options` has at this rank where it is left to the variant."""
        return self.options[option]

    def configured(self, **options: Any) -> Variant:
        """This variant with some of its :attr:`options` set; raises ``VariantError`` where it has no such option,
        or not of such a value."""
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise VariantError(f"{self.name} has no option {name!r}; its options: {known}")
            kinds = self.kinds(name)
            fits = type(value) in kinds or (type(value) is int and float in kinds)
            if not fits or (isinstance(value, float) and not math.isfinite(value)):
                expected = " or ".join(sorted(kind.__name__.removesuffix("Type") for kind in kinds))
                raise VariantError(f"{self.name} got {name} = {value!r}: it takes a finite {expected}")
        return replace(self, **options)

    def kinds(self, option: str) -> set[type]:
        """What one of the :attr:`options` is declared as; its default alone would not tell where that is None."""
        declared = get_type_hints(type(self))[option]
        return set(get_args(declared)) or {declared}

    @property
    def has_own_curvature(self) -> bool:
        """Whether the curvature of {A, B} at its start tells more of its learning rate than plain LoRA's does."""
        return self.factored and not self.starts_as_lora

    @property
    def needs_batches(self) -> bool:
        """Whether the start is computed from data."""
        return bool({"gradients", "activations"} & set(self.needs))

    def allocate(
        self, model: PreTrainedModel, layers: Mapping[str, LinearLayer], rank: int, alpha: float, batches: Any
    ) -> dict[str, Allotment]:
        """Rank and alpha of each layer, by name, before anything is injected; one that is left out gets no adapter."""
        return dict.fromkeys(layers, Allotment(rank, alpha))

    def lora_config(self, rank: int, alpha: float, dropout: float, target_modules: list[str]) -> Any:
        """The PEFT configuration of the adapter as trained: a ``LoraConfig``, or another method's."""
        from peft import LoraConfig

        return LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=target_modules,
            use_rslora=self.traits.rank_stabilised,
            bias="none",
            task_type="CAUSAL_LM",
        )

    def plain_factors(self, layer: Any) -> tuple[Tensor, Tensor]:
        """A (r, n) and B (m, r) with which the layer's trained adapter is s B A."""
        from autolora.variants.subtraction import ADAPTER

        return layer.lora_A[ADAPTER].weight.detach(), layer.lora_B[ADAPTER].weight.detach()

    def initialise(self, model: PeftModel, seed: int, batches: Any, horizon: int | None) -> None:
        """Overwrite the freshly injected adapter (A Kaiming-uniform, B = 0) with the variant's own start."""

    def check(self, model: nn.Module, layers: Mapping[str, LinearLayer], rank: int, dropout: float) -> None:
        """Raise ``VariantError`` where the variant cannot be trained so, before anything is changed.

        Args:
            model: the base, for messages.
            layers: of it that get an adapter.
            rank, dropout: of the adapter.
        """
        from autolora.variants.targets import check_rank

        check_rank(model, layers, rank)

    def attach(
        self,
        model: PreTrainedModel,
        rank: int,
        alpha: float,
        batches: Any = None,
        horizon: int | None = None,
        seed: int = 0,
        dropout: float = 0.0,
        allotted: Mapping[str, Allotment] | None = None,
    ) -> PeftModel:
        """Inject the adapter into every linear layer but the output head.

        Args:
            model: a causal language model without adapters; its layers are wrapped in place, see
                :func:`autolora.variants.detach`.
            rank, alpha: r, and the numerator of the scaling.
            batches: token batches, where ``needs`` asks for gradients or activations.
            horizon: optimiser steps of the full run, where ``needs`` asks for it.
            seed: of the random initialisation.
            dropout: on the adapter's input.
            allotted: rank and alpha of each layer, where a trained adapter goes on whose variant shares them out
                (:func:`autolora.variants.attachment.allotment`); None: as the variant has it.

        Returns:
            A ``PeftModel`` whose only trainable parameters are the adapter's, in float32. Train it with
            :meth:`optimizer`, on the loss and :meth:`penalty`; :meth:`export` writes it, where ``save_pretrained`` of
            PEFT would leave out what PEFT does not know.

        Raises:
            VariantError: no linear layers, what ``needs`` asks for is missing, or what :meth:`check` refuses.
        """
        from autolora.variants.attachment import inject

        return inject(self, model, rank, alpha, batches, horizon, seed, dropout, allotted)

    def parameter_groups(self, model: PeftModel, learning_rate: float) -> list[dict[str, Any]]:
        """Optimiser groups over the trainable parameters."""
        return [{"params": [p for p in model.parameters() if p.requires_grad], "lr": learning_rate}]

    def optimizer(self, model: PeftModel, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        """AdamW over :meth:`parameter_groups`, or the variant's own optimiser."""
        import torch

        groups = self.parameter_groups(model, learning_rate)
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)

    def clip_gradients(self, model: PeftModel, optimizer: torch.optim.Optimizer, max_norm: float) -> float:
        """Scale the gradients in place so that their global norm is at most ``max_norm``; returns the norm before."""
        import torch

        return float(torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_norm))

    def penalty(self, model: PeftModel) -> Tensor | None:
        """What training minimises beside the loss: a scalar, of the last forward pass in training mode; or nothing."""
        return None

    def export(self, model: PeftModel, path: str | Path) -> None:
        """Write an adapter folder that plain PEFT loads on the *unmodified* base with the same outputs.

        Where ``export_form`` is "own", :func:`autolora.load_adapter` does.
        """
        from autolora.variants.export import NATIVE, OWN, save_native, save_own, save_plain

        if self.export_form == OWN:
            save_own(self, model, Path(path))
        elif self.export_form == NATIVE:
            save_native(model, Path(path))
        else:
            save_plain(model, Path(path), self.plain_factors)


_REGISTRY: dict[str, Variant] = {}


def register(variant: Variant) -> Variant:
    """Add a variant to the registry; raises ``ValueError`` where the name is taken."""
    if variant.name in _REGISTRY:
        raise ValueError(f"a variant named {variant.name!r} is registered already")
    _REGISTRY[variant.name] = variant
    return variant


def registry() -> Mapping[str, Variant]:
    return _REGISTRY
