"""The trained adapter itself, which plain PEFT, or ``autolora.load_adapter``, loads on the unmodified base."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from autolora import files
from autolora.adapters.combination import name_base
from autolora.adapters.export import CONFIG, NATIVE, OWN, WEIGHTS, config_file
from autolora.bases.folders import TOKENIZER_FILES, diagnosis
from autolora.recipes.recipe import AGAIN, Recipe, RecipeError
from autolora.space import registry
from autolora.trainer_specs import BUILTIN
from autolora.variants import Variant

REPACKED = """
On a CPU with AVX-512 and bfloat16, load it with `autolora.load_adapter(base, folder)`: there bitsandbytes evaluates a
base in 4 bits less exactly, or not at all, unless it is told not to.
"""
SETTINGS, README = "autolora.yaml", "README.md"
LOADING = f"""These are the settings of the training; the others are in `{SETTINGS}`. `{CONFIG}` is how the trained
adapter loads."""
PLAIN_LOADING = f"""{LOADING} It is a plain LoRA: every reader gets W + alpha / r B A with the r and alpha that are
there. They are others than in training where the variant's start was subtracted from the base, its ranks differ between
layers, or it scales by alpha / sqrt(r)."""
TOKENIZER = (*TOKENIZER_FILES, "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
"""Files of the tokenizer that lie beside an adapter; earlier versions wrote none."""
OWN_LOADING = f"""These are the settings of the training; the others are in `{SETTINGS}`. No matrix added to the weights
does what this adapter does, so it loads with autolora, not with plain PEFT."""


def write(recipe: Recipe, out: Path) -> list[Path]:
    """Copy the adapter and write its settings beside it."""
    parts = (config_file(recipe.variant.export_form), WEIGHTS)
    missing = [name for name in parts if not (recipe.adapter / name).is_file()]
    if recipe.without_adapter is not None:
        raise RecipeError(f"{recipe.without_adapter}. Copy it from there")
    if missing:
        raise RecipeError(f"{recipe.adapter} holds no {' and no '.join(missing)}: run `autolora tune` to its end again")
    damage = diagnosis(recipe.adapter)
    if damage:
        raise RecipeError(f"{recipe.adapter}: {damage}. {AGAIN}")
    out.mkdir(parents=True, exist_ok=True)
    beside = [name for name in TOKENIZER if (recipe.adapter / name).is_file()]
    written = [Path(shutil.copyfile(recipe.adapter / name, out / name)) for name in (*parts, *beside)]
    named = recipe.named_base
    base = named if named and recipe.model_is_adapter else recipe.model
    if named not in (None, base):  # an earlier version wrote a path as it was given, or the model has been moved
        name_base(out, base, recipe.named_revision)
    settings = out / SETTINGS
    files.write(settings, yaml.safe_dump(_settings(recipe), sort_keys=False))
    readme = out / README
    files.write(readme, _readme(recipe, base))
    return [*written, settings, readme]


def _settings(recipe: Recipe) -> dict[str, object]:
    tuned = recipe.tuned
    return {
        "variant": recipe.variant.name,
        "model": recipe.model,
        "config": recipe.config.as_dict(),
        **_trained_with(recipe),
        "metric": recipe.metric,
        "value": tuned.value,
        "seeds": list(tuned.seeds),
        "baseline": tuned.baseline,
        "test": tuned.test,
    }


def _trained_with(recipe: Recipe) -> dict[str, object]:
    """The settings of the training, or which trainer has them."""
    if recipe.trainer_kind == BUILTIN:
        return {"training": recipe.training.model_dump(exclude_none=True)}
    return {"trainer": recipe.spec["trainer"]}


def _loading(variant: Variant) -> str:
    text = {OWN: OWN_LOADING, NATIVE: LOADING}.get(variant.export_form, PLAIN_LOADING)
    return f"{text} {variant.loading}".strip()


def _readme(recipe: Recipe, base: str) -> str:
    config, own = recipe.config, recipe.variant.export_form == OWN
    settings = {
        "learning rate": f"{config.learning_rate:.4g}",
        "batch size": str(config.batch_size),
        "rank": str(config.rank),
        "alpha": f"{config.alpha:.6g}",
        **{
            dimension.label: dimension.text(config)
            for dimension in registry()
            if dimension.name in dict(config.further)
        },
    }
    named = f"base_model: {base}\n" if base else ""
    return f"""---
{named}library_name: {"autolora" if own else "peft"}
tags: [lora, autolora]
---
# {recipe.summary}

| {" | ".join(settings)} |
| {" | ".join("---" for _ in settings)} |
| {" | ".join(settings.values())} |

{_loading(recipe.variant)}

```python
{_snippet(recipe, base)}
```
{REPACKED if recipe.base_bits == 4 and not own else ""}"""


def _snippet(recipe: Recipe, base: str) -> str:
    """How the adapter is loaded, as Python."""
    own = recipe.variant.export_form == OWN
    loader = "load_adapter" if own else "PeftModel.from_pretrained"
    lines = [f"from {'autolora import load_adapter' if own else 'peft import PeftModel'}"]
    if recipe.trainer_kind == BUILTIN:
        revision = f", revision={recipe.named_revision!r}" if recipe.named_revision else ""
        imported = "AutoModelForCausalLM, BitsAndBytesConfig" if recipe.bits else "AutoModelForCausalLM"
        lines += [
            f"from transformers import {imported}",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({base!r}{revision}{recipe.packing()})",
        ]
    else:
        lines += ["", "base = ...  # as the study's trainer loads it, before the adapter is attached"]
    return "\n".join([*lines, f'model = {loader}(base, "path/of/this/folder")'])
