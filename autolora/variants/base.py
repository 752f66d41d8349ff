"""What a LoRA variant is. A new one is one file in this folder: a subclass of :class:`Variant`, registered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from autolora.adapters.attachment import inject
from autolora.adapters.errors import VariantError
from autolora.adapters.export import NATIVE, OWN, save_native, save_own, save_plain
from autolora.adapters.optimizers import ADAMW, Optimizer
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.start import DEFAULT_NAME, Allotment, Start
from autolora.adapters.targets import DEFAULT, LinearLayer, check_rank, describe, survey
from autolora.files import expanded
from autolora.space import Traits

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from torch import Tensor
    from transformers import PreTrainedModel

    from autolora.adapters.groups import Group
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Batch


@dataclass(frozen=True)
class Variant:
    """One LoRA variant: how it attaches, what it trains with, how it leaves.

    Subclasses override the hooks they differ in; the defaults are plain LoRA. Torch is imported inside functions, so
    that listing variants and searching over them needs neither torch nor peft.

    The fields that a subclass adds are the variant's own hyperparameters, see :attr:`options`.

    Attributes:
        name: registry key: a letter, then letters, digits, - and _.
        title: name as published.
        paper: where it is defined.
        kind: what it changes of plain LoRA: "reference", "scaling", "start", "architecture" or "optimizer".
        traits: what the scaling laws need to know.
        needs: inputs of ``attach`` beyond the model: any of "gradients", "activations", "horizon".
        constraints: what it asks of ranks, layers and settings, in words; :meth:`check` and ``attach`` see to it.
        optimizer_name: what trains it, in words.
        export_form: the plain LoRA that it leaves as, exactly: "rank r", "rank 2r", "rank kr" (a multiple of r), "rank
            r+" (more than r); "native" where PEFT has a format of its own for it; "own" where only
            :func:`autolora.load_adapter` reads it.
        cost: time of a training step relative to plain LoRA's at width 1024, from studies/variants; None: not measured.
        factored: it trains two factors A and B of each layer, as PEFT's ``LoraLayer`` holds them.
        shares_ranks: layers get ranks of their own, and some may get none.
        own_forward: its forward pass is none that PEFT knows, so PEFT cannot merge the adapter as it was trained.
        mixture: a router weighs several experts for each token.
        lean_forward: class in place of PEFT's own with the same values in less time or memory, or for more models, as
            "package.module:Class"; empty if PEFT's is used. Without its ``forward`` it does what PEFT's does.
        linear_only: it adapts ``nn.Linear`` and not ``Conv1D``; :meth:`check` refuses models that have it.
        adapts_experts: it adapts experts that are one parameter, each with factors of its own; otherwise :meth:`check`
            refuses models that have some among the layers to adapt.
        bits: of a base's weights, besides full precision, on which it trains and leaves as an adapter that loads there;
            :meth:`check` refuses others.
        subtracts: its start is subtracted from the base, whose own weights are kept on the CPU while it trains. From a
            base in few bits it is subtracted by a product of its own beside the frozen weights.
        moves_at_start: its start is not subtracted: attaching it changes the model's outputs, as its paper means it to.
        starts_as_lora: at s = 1 its Hessian in {A, B} at initialization is plain LoRA's, so curvature tells nothing of
            it.
        redundant_with_alpha: own hyperparameters that under Adam do what alpha does: never searched together.
        above_zero: own hyperparameters whose values must be above 0; a space that names others is refused.
        peft_options: ``LoraConfig`` options with which plain PEFT trains this variant, beyond rank, alpha, dropout and
            target modules; None: PEFT has none, and other trainers cannot be configured for it.
        loading: what to know of loading its exported adapter, in words; empty if it loads as any other of its form.
        revision: raised where a version of the variant computes something else than the one before, so that a study
            does not go on with trials of both.
    """

    name: str
    title: str
    paper: str
    traits: Traits = field(default_factory=Traits)
    kind: str = "start"
    needs: tuple[str, ...] = ()
    constraints: str = "r <= min(m, n)"
    optimizer_name: str = "AdamW"
    export_form: str = "rank r"
    cost: float | None = None
    factored: bool = True
    shares_ranks: bool = False
    own_forward: bool = False
    mixture: bool = False
    lean_forward: str = ""
    linear_only: bool = False
    adapts_experts: bool = False
    bits: tuple[int, ...] = (4, 8)
    starts_as_lora: bool = False
    subtracts: bool = False
    moves_at_start: bool = False
    redundant_with_alpha: tuple[str, ...] = ()
    above_zero: tuple[str, ...] = ()
    peft_options: Mapping[str, object] | None = field(default=None, hash=False)
    loading: str = ""
    revision: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The variant's own hyperparameters and their values: the fields that its class adds."""
        shared = {field.name for field in fields(Variant)}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in shared}

    def default(self, option: str, rank: int) -> float:
        """The value that one of the :attr:`options` has at this rank where it is left to the variant."""
        value: float = self.options[option]
        return value

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
            self._check_above_zero(name, value)
        return replace(self, **options)

    def _check_above_zero(self, option: str, value: float | None) -> None:
        if option in self.above_zero and value is not None and not value > 0:
            raise VariantError(f"{self.name} got {option} = {value!r}: set space.options.{self.name}.{option} above 0")

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

    @property
    def own_step(self) -> bool:
        """Whether a training step computes something else than plain LoRA's: in its forward pass, in what it trains,
        or in its optimizer."""
        return self.kind in ("architecture", "optimizer")

    def exported_rank(self, rank: int, layers: Mapping[str, LinearLayer]) -> int | None:
        """Rank of the plain LoRA that an adapter of this rank leaves as.

        Args:
            rank: as trained.
            layers: of the model that it trained on.

        Returns:
            None if the rank depends on the data or the training, or the adapter leaves in another form.
        """
        if self.shares_ranks:
            return None
        return {"rank r": rank, "rank 2r": 2 * rank}.get(self.export_form)

    def allocate(self, start: Start[LinearLayer]) -> dict[str, Allotment]:
        """Rank and alpha of each layer, by name, before anything is injected; one that is left out gets no adapter.

        Args:
            start: the base model, its linear layers, and all that a start is computed from.
        """
        return dict.fromkeys(start.layers, Allotment(start.rank, start.alpha))

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig:
        """The PEFT configuration of the adapter as trained: a ``LoraConfig``, or another method's.

        Args:
            start: as in :meth:`allocate`.
            target_modules: names of the modules that get an adapter, which experts in one parameter are not.
        """
        from peft import LoraConfig

        return LoraConfig(
            r=start.rank,
            lora_alpha=start.alpha,  # type: ignore[arg-type]  # PEFT takes any number
            lora_dropout=start.dropout,
            target_modules=target_modules,
            use_rslora=self.traits.rank_stabilized,
            bias="none",
            task_type="CAUSAL_LM",
        )

    def tuner(self) -> type[BaseTuner] | None:
        """The class that injects the adapter, derived from PEFT's for this method; None means PEFT's own."""
        return None

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        """A (r, n) and B (m, r) with which the layer's trained adapter is s B A."""
        return layer.a.detach(), layer.b.detach()

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """Overwrite the freshly injected adapter (A Kaiming-uniform, B = 0) with the variant's own start.

        Args:
            start: the attached model, its adapted layers, and all that a start is computed from.
        """

    def check(self, start: Start[LinearLayer]) -> None:
        """Raise ``VariantError`` if the variant cannot be trained so, before anything is changed.

        Args:
            start: the base model, its linear layers, and what the adapter is asked to be; ``batches`` and ``horizon``
                may be missing still.
        """
        check_rank(start.model, start.layers, start.rank)
        for option in self.above_zero:
            self._check_above_zero(option, getattr(self, option))
        for name, layer in start.layers.items():
            if layer.experts:
                self._check_experts(name, start)
            if layer.bits is not None and layer.bits not in self.bits:
                raise VariantError(
                    f"PEFT cannot load {self.title} on weights in {layer.bits} bits, as those of {name!r} of "
                    f"{describe(start.model)} are: leave {self.name} out of variants, or use a base in "
                    f"{' or '.join([*(f'{bits} bits' for bits in self.bits), 'full precision'])}"
                )
            if self.linear_only and layer.transposed:
                raise VariantError(
                    f"PEFT has {self.title} for nn.Linear and not for Conv1D, as layer {name!r} of "
                    f"{describe(start.model)} is: {self.name} cannot be trained on this model"
                )

    def _check_experts(self, name: str, start: Start[LinearLayer]) -> None:
        without = "set adapter.target_parameters: null to train without adapters on experts"
        if not self.adapts_experts:
            raise VariantError(
                f"{self.name} cannot adapt experts that are one parameter, as {name!r} of {describe(start.model)} is: "
                f"leave {self.name} out of variants, or {without}"
            )
        if start.dropout:
            raise VariantError(
                f"dropout {start.dropout:g} does not go with experts that are one parameter, as {name!r} of "
                f"{describe(start.model)} is, for PEFT has none there: set it to 0, or {without}"
            )

    def attach(
        self,
        model: PreTrainedModel,
        rank: int,
        alpha: float,
        batches: Sequence[Batch] | None = None,
        horizon: int | None = None,
        seed: int = 0,
        dropout: float = 0.0,
        allotted: Mapping[str, Allotment] | None = None,
        adapter_name: str = DEFAULT_NAME,
        adapter: AdapterSpec = DEFAULT,
    ) -> PeftModel:
        """Inject the adapter into the layers that ``adapter`` names, by default all of the language model's but its
        output head and routers, see :func:`autolora.adapters.targets.survey`.

        Args:
            model: a causal language model without adapters; its layers are wrapped in place, see
                :func:`autolora.variants.detach`.
            rank, alpha: r, and the numerator of the scaling.
            batches: list of token batches, if ``needs`` asks for gradients or activations.
            horizon: optimizer steps of the full run, if ``needs`` asks for it.
            seed: of the random initialization.
            dropout: on the adapter's input.
            allotted: rank and alpha of each layer, for a trained adapter whose variant shares them out
                (:func:`autolora.adapters.state.allotment`); None means that :meth:`allocate` decides.
            adapter_name: PEFT's name of the adapter; without a dot.
            adapter: which layers.

        Returns:
            A ``PeftModel`` whose only trainable parameters are the adapter's, in float32. Train it with
            :meth:`optimizer`, on the loss and :meth:`penalty`; :meth:`export` writes it, where ``save_pretrained`` of
            PEFT would leave out what PEFT does not know.

        Raises:
            VariantError: no such layers, what ``needs`` asks for is missing, or what :meth:`check` refuses.
        """
        start = Start(
            model=model,
            layers=survey(model, adapter).at_rank(rank),
            rank=rank,
            alpha=alpha,
            seed=seed,
            batches=batches,
            horizon=horizon,
            adapter_name=adapter_name,
            dropout=dropout,
        )
        return inject(self, start, allotted)

    def parameter_groups(self, model: PeftModel, learning_rate: float) -> list[Group]:
        """Optimizer groups over the trainable parameters."""
        return [{"params": [p for p in model.parameters() if p.requires_grad], "lr": learning_rate}]

    def optimizer(self, model: PeftModel, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        """AdamW over :meth:`parameter_groups`, or the variant's own optimizer."""
        import torch

        groups = self.parameter_groups(model, learning_rate)
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)

    @property
    def has_own_optimizer(self) -> bool:
        """Whether an optimizer of its own trains it, in place of AdamW or what a specification names."""
        return type(self).optimizer is not Variant.optimizer

    def trained_by(
        self, model: PeftModel, learning_rate: float, weight_decay: float = 0.0, asked: Optimizer = ADAMW
    ) -> torch.optim.Optimizer:
        """:meth:`optimizer`, or the one that a specification asks for.

        Raises:
            VariantError: the variant has an optimizer of its own, and another is asked for.
        """
        if asked == ADAMW:
            return self.optimizer(model, learning_rate, weight_decay=weight_decay)
        if self.has_own_optimizer:
            raise VariantError(f"{self.name} has an optimizer of its own ({self.optimizer_name}), not {asked}")
        return asked.over(self.parameter_groups(model, learning_rate), learning_rate, weight_decay)

    def clip_gradients(self, model: PeftModel, optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor | float:
        """Scale the gradients in place so that their global norm is at most ``max_norm``.

        Returns:
            The norm before: a scalar on the gradients' device, which the training loop reads together with the loss;
            a number does as well, but on an accelerator it is waited for.
        """
        import torch

        return torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_norm)

    def penalty(self, model: PeftModel) -> Tensor | None:
        """What training minimizes beside the loss: a scalar, of the last forward pass in training mode; or nothing."""
        return None

    def export(self, model: PeftModel, path: str | Path) -> None:
        """Write an adapter folder that plain PEFT loads on the *unmodified* base with the same outputs.

        Where ``export_form`` is "own", :func:`autolora.load_adapter` does.
        """
        folder = expanded(path)
        if self.export_form == OWN:
            save_own(self, model, folder)
        elif self.export_form == NATIVE:
            save_native(model, folder)
        else:
            save_plain(model, folder, self.plain_factors)
