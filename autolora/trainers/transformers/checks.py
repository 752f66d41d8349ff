"""What a ``transformers.Trainer`` cannot train, refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

from autolora.adapters.errors import VariantError
from autolora.space import Config
from autolora.trainers.transformers.facts import Facts
from autolora.variants import Variant

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


def check_configs(facts: Facts, variant: Variant, configs: Iterable[Config]) -> None:
    """Raise ``VariantError`` for a rank that does not fit the adapted layers, or options that the variant refuses."""
    name, shape = min(facts.layers.items(), key=lambda item: min(item[1]), default=("", (0, 0)))
    for config in configs:
        variant.configured(**dict(config.options))
        if name and config.rank > min(shape):
            raise VariantError(
                f"rank {config.rank} does not fit layer {name!r} of {facts.model} ({shape[0]} x {shape[1]}): use 1 to "
                f"{min(shape)}"
            )
