"""The user's own configuration file with tuned values, of a study that trained through the tool that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autolora import files
from autolora.recipes.recipe import Recipe, RecipeError
from autolora.trainers.configurations import TOOLS, ConfigFile, ConfigurationError


def write(recipe: Recipe, out: Path) -> list[Path]:
    """Write the file, under its own name."""
    trainer = recipe.trainer
    tool = TOOLS[recipe.trainer_kind]
    path = Path(str(trainer[tool.kind]))
    if not path.is_file():
        raise RecipeError(f"no such file: {files.shown(path)}, which the study was tuned with; restore it from a copy")
    file = ConfigFile.read(tool, path, int(trainer.get("devices") or 1))
    notes = [recipe.summary, f"Run it in {files.shown(str(trainer.get('cwd')))}, where its own paths begin."]
    known = recipe.fingerprint(tool.kind)
    if known is not None and known != file.digest:
        notes.append(f"{files.shown(path)} has changed since: what is not tuned is as it says now.")
    full_run = recipe.examples_of_study or trainer.get("examples") or file.examples
    if full_run is None:
        raise RecipeError(f"{files.shown(path)} does not say how long a full run is, and the study is gone")
    config = {name: value for name, value in recipe.config.as_dict().items() if name != "options"}
    model = recipe.model if recipe.spec["model"] else None
    data: dict[str, Any] = {}
    beside: dict[Path, str] = {}
    try:
        if recipe.spec["data"]:
            data, beside = tool.data(recipe.data, out)
            notes += recipe.data.notes
        text = file.tuned(config, recipe.variant, recipe.longer or recipe.shortened(int(full_run)), notes, model, data)
    except ConfigurationError as error:
        raise RecipeError(str(error)) from None
    target = out / path.name
    if target.resolve() == path.resolve():
        raise RecipeError(f"{files.shown(path)} is your own file, which is not replaced: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    for written, content in {target: text, **beside}.items():
        files.write(written, content)
    return [target, *beside]
