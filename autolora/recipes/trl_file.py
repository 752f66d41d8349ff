"""TRL's own configuration file with tuned values, of a study that was tuned with one."""

from __future__ import annotations

from pathlib import Path

import yaml

from autolora import files
from autolora.recipes.recipe import Recipe, RecipeError
from autolora.space import FIELDS, Named
from autolora.trainers.trl.configuration import ALIASES, Configuration, TrlError

TOOL = "TRL"
OPTIONS = {"use_dora": "use_dora", "use_rslora": "use_rslora"}
"""Options of ``LoraConfig`` that TRL's files have, by name."""
DEFAULT_NAME = "trl.yaml"


def write(recipe: Recipe, out: Path) -> list[Path]:
    """Write the user's file under its own name, or what TRL's defaults and the specification say as ``trl.yaml``."""
    trainer = recipe.trainer
    kind, file = str(trainer["trl"]), trainer.get("config")
    path = None if file is None else Path(str(file))
    if path is not None and not path.is_file():
        raise RecipeError(f"no such file: {files.shown(path)}, which the study was tuned with; restore it from a copy")
    target = out / (DEFAULT_NAME if path is None else path.name)
    if path is not None and target.resolve() == path.resolve():
        raise RecipeError(f"{files.shown(path)} is your own file, which is not replaced: choose another folder")
    if recipe.loraplus_ratio != 1:
        raise recipe.inexpressible(TOOL)
    configuration = Configuration(kind, file, on_cpu=True)  # read alone: any machine will do
    try:
        content = {**configuration.content, **_tuned(recipe, configuration)}
    except TrlError as error:
        raise RecipeError(str(error)) from None
    notes = [recipe.summary, f"Train with: trl {kind} --config {files.argument(target)}"]
    if recipe.spec["data"]:
        notes.append("The rows were those of the specification: name them by dataset_name or datasets.")
    out.mkdir(parents=True, exist_ok=True)
    dumped = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    files.write(target, "".join(f"# {note}\n" for note in notes) + dumped)
    return [target]


def _tuned(recipe: Recipe, configuration: Configuration) -> dict[str, object]:
    """The keys that the study has found, or that it was told in place of the file's."""
    config = recipe.config
    parsed = configuration.as_written
    micro = min(parsed.training.per_device_train_batch_size, config.batch_size)
    micro = next(size for size in range(micro, 0, -1) if config.batch_size % size == 0)
    found: dict[str, object] = {
        "learning_rate": config.learning_rate,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // micro,
        "use_peft": True,
        "lora_r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_target_modules": parsed.model.lora_target_modules or "all-linear",
        **recipe.peft_options(TOOL, OPTIONS),
    }
    found |= {key: config.value(name) for name, key in ALIASES.items() if config.value(name) is not None}
    found |= Named.of(config.value(FIELDS.name) or ()).as_dict()
    if recipe.spec["model"]:
        found["model_name_or_path"] = recipe.whole_model(TOOL)
    if recipe.longer or recipe.spec["training"].get("examples") or recipe.config.value("duration") is not None:
        found["max_steps"] = recipe.steps
    return found
