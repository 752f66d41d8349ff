"""What a ``transformers.Trainer`` cannot train, refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.space import Config
from autolora.spec import Spec
from autolora.trainers.transformers.facts import Facts
from autolora.variants import Variant

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HOOKS = {
    "penalty": "adds a term of its own to the loss",
    "clip_gradients": "clips gradients in a way of its own",
}
"""What of a training step our own loop takes from a variant, and a ``transformers.Trainer`` does not."""


def check_variant(variant: Variant) -> None:
    """Raise ``VariantError`` for a variant whose training step is none that a ``transformers.Trainer`` takes."""
    for hook, what in HOOKS.items():
        if getattr(type(variant), hook) is not getattr(Variant, hook):
            raise VariantError(
                f"{variant.name} {what}, which transformers.Trainer does not: leave {variant.name} out of variants, or "
                "use trainer: builtin"
            )


def check_configs(
    facts: Facts, variant: Variant, configs: Iterable[Config], spec: Spec, base: PreTrainedModel | None
) -> None:
    """Raise ``VariantError`` for what a variant refuses, and for a rank that does not fit the adapted layers.

    Args:
        facts: of a trainer that was made.
        variant: to be trained.
        configs: each with values that it may refuse.
        spec: of the study.
        base: the language model beneath the adapter, if that is known; without it only ranks are looked at.
    """
    for config in configs:
        own = variant.configured(**dict(config.options))
        _check_rank(facts, config.rank)
        if base is not None:
            _check_on(base, facts, own, config, spec)


def _check_rank(facts: Facts, rank: int) -> None:
    name, shape = min(facts.layers.items(), key=lambda item: min(item[1]), default=("", (rank, rank)))
    if rank > min(shape):
        raise VariantError(
            f"rank {rank} does not fit layer {name!r} of {facts.model} ({shape[0]} x {shape[1]}): use 1 to {min(shape)}"
        )


def _check_on(base: PreTrainedModel, facts: Facts, variant: Variant, config: Config, spec: Spec) -> None:
    from autolora.adapters.start import Start
    from autolora.adapters.targets import survey

    adapter = spec.adapter.of_trial(config)
    # What a trainer has made tells of its own trial's layers alone.
    told = None if adapter != spec.adapter else facts.layers
    layers = {name: each for name, each in survey(base, adapter).layers.items() if told is None or name in told}
    if layers:
        dropout = spec.training.of_trial(config).dropout
        variant.check(Start(model=base, layers=layers, rank=config.rank, alpha=config.alpha, dropout=dropout))
