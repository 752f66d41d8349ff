"""A plain LoRA for tools that know no other: what the adapter changes, cut to a rank, with the error of that."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autolora.recipes.recipe import Recipe, RecipeError

if TYPE_CHECKING:
    from autolora.adapters.export import Approximation


@dataclass(frozen=True)
class PlainLora:
    """Where it was written, and how good it is."""

    files: list[Path]
    approximation: Approximation

    @property
    def summary(self) -> str:
        worst, error = max(self.approximation.errors.items(), key=lambda item: item[1])
        return (
            f"rank {self.approximation.rank}; relative error of the weights' change: {self.approximation.overall:.2g} "
            f"over all layers, {error:.2g} in the worst, {worst}. Exact is --to peft."
        )


def write(recipe: Recipe, out: Path, rank: int | None = None) -> PlainLora:
    """Write the best plain LoRA of ``rank``, by default twice the trained one.

    Raises:
        RecipeError: the variant's adapter is a plain LoRA already, or no matrix added to the weights.
    """
    import torch
    from peft import PeftModel

    from autolora import spec as specs
    from autolora.adapters.export import CONFIG, NATIVE, OWN, WEIGHTS, save_approximation
    from autolora.bases.device import placement
    from autolora.bases.packed import bits_held
    from autolora.bases.pretrained import load_weights

    variant = recipe.variant
    if variant.export_form == OWN:
        raise RecipeError(
            f"{variant.title}'s adapter is no matrix added to the weights, so no plain LoRA is near it: use --to peft, "
            "and autolora.load_adapter to load it"
        )
    if variant.export_form != NATIVE:
        raise RecipeError(f"{variant.title}'s adapter is a plain LoRA already, exactly: use --to peft")
    model = recipe.whole_model("a plain LoRA")
    where = {key: recipe.spec[key] for key in ("revision", "trust_remote_code") if key in recipe.spec}
    base = specs.BaseSpec.model_validate(recipe.spec.get("base") or {})
    spec = specs.Spec.model_construct(model=model, base=base, **where)  # not validated: files of data may have gone
    loaded = load_weights(spec, torch.float32, placement(torch.device("cpu"), 1)).model
    bits = bits_held(loaded)
    if bits:  # what the adapter changes is what it was trained on, and can be merged in full precision
        loaded = loaded.dequantize()
    with warnings.catch_warnings():
        # PEFT misses the other names of a tensor that layers share and that is saved once, as RandLoRA's bases are.
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        adapted = PeftModel.from_pretrained(loaded, recipe.adapter)
    found = save_approximation(adapted, out, rank or 2 * recipe.config.rank, bits)
    return PlainLora([out / CONFIG, out / WEIGHTS], found)
