"""The trained adapter itself, which plain PEFT loads on the unmodified base."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from autolora.recipes.recipe import Recipe, RecipeError

FILES = ("adapter_config.json", "adapter_model.safetensors")
SETTINGS, README = "autolora.yaml", "README.md"


def write(recipe: Recipe, out: Path) -> list[Path]:
    """Copy the adapter and write its settings beside it."""
    missing = [name for name in FILES if not (recipe.adapter / name).is_file()]
    if missing:
        raise RecipeError(f"{recipe.adapter} holds no {' and no '.join(missing)}: run `autolora tune` to its end again")
    out.mkdir(parents=True, exist_ok=True)
    written = [Path(shutil.copyfile(recipe.adapter / name, out / name)) for name in FILES]
    settings = out / SETTINGS
    settings.write_text(yaml.safe_dump(_settings(recipe), sort_keys=False))
    readme = out / README
    readme.write_text(_readme(recipe))
    return [*written, settings, readme]


def _settings(recipe: Recipe) -> dict[str, object]:
    tuned = recipe.tuned
    return {
        "variant": recipe.variant.name,
        "model": recipe.model,
        "config": recipe.config.as_dict(),
        "training": recipe.training.model_dump(exclude_none=True),
        "metric": recipe.metric,
        "value": tuned.value,
        "seeds": list(tuned.seeds),
        "baseline": tuned.baseline,
        "test": tuned.test,
    }


def _readme(recipe: Recipe) -> str:
    config = recipe.config
    return f"""---
base_model: {recipe.model}
library_name: peft
tags: [lora, autolora]
---
# {recipe.summary}

| learning rate | batch size | rank | alpha |
| --- | --- | --- | --- |
| {config.learning_rate:.4g} | {config.batch_size} | {config.rank} | {config.alpha:.6g} |

These are the settings of the training; `adapter_config.json` is how the trained adapter loads, whose rank is another
where the variant's start was subtracted from the base or its ranks differ between layers. The other settings are in
`{SETTINGS}`.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({recipe.model!r}), "path/of/this/folder")
```
"""
