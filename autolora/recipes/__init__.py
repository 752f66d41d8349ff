"""The tuned settings of a variant, written for other trainers. A target is a file of this folder and a line below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autolora import files
from autolora.analysis.carrying import Carried
from autolora.recipes import axolotl, configured, llamafactory, lora, peft, trl, trl_file
from autolora.recipes.recipe import Recipe, RecipeError
from autolora.trainer_specs import BUILTIN
from autolora.trainers.configurations import TOOLS

__all__ = ["TARGETS", "Carried", "Recipe", "RecipeError", "carried", "write", "write_lora"]

TARGETS: dict[str, Callable[[Recipe, Path], list[Path]]] = {
    "peft": peft.write,
    "trl": trl.write,
    "axolotl": axolotl.write,
    "llamafactory": llamafactory.write,
}
OWN_FILES: dict[str, Callable[[Recipe, Path], list[Path]]] = {
    "trl": trl_file.write,
    **dict.fromkeys(TOOLS, configured.write),
}
"""By kind of trainer, what writes its own configuration with tuned values. The kind is the target's name, too."""


def write(folder: Path, variant: str, target: str, out: Path, examples: int | None = None) -> list[Path]:
    """Write what a trainer needs to train a variant with its tuned settings.

    Args:
        folder: run directory of a finished study.
        variant: one of its variants.
        target: "peft" (the trained adapter itself), "trl", "axolotl" or "llamafactory". Of a study that was tuned with
            a configuration file of the user's, the tool of that file: the file with tuned values is written.
        out: folder to write into; made where it does not exist, files of the same names are replaced.
        examples: training examples of the run that is written: the tuned learning rate is carried to it by the law of
            length. None: as many as it was tuned on.

    Returns:
        The files written.

    Raises:
        RecipeError: the target is unknown, the variant has no result, or the target cannot express it.
        ResultError, NoStudyError: the folder holds no finished study.
    """
    if target not in TARGETS:
        raise RecipeError(
            f"unknown target {target!r}: use {', '.join(TARGETS)}; --to lora, or write_lora, writes a plain LoRA"
        )
    recipe = Recipe.load(files.expanded(folder), variant)
    if examples is not None:
        if target == "peft":
            raise RecipeError(
                "--to peft writes the adapter that was trained, and examples are of a run to come: use --to trl"
            )
        recipe = replace(recipe, longer=examples)
    return _writer(recipe, target)(recipe, files.expanded(out))


def carried(folder: Path, variant: str, examples: int) -> Carried:
    """The tuned learning rate of a variant, carried to a run of another length.

    Args:
        folder, variant: as for :func:`write`.
        examples: training examples of that run.

    Raises:
        RecipeError: the variant has no result.
        ResultError, NoStudyError: the folder holds no finished study.
    """
    found = replace(Recipe.load(files.expanded(folder), variant), longer=examples).carried
    assert found is not None
    return found


def _writer(recipe: Recipe, target: str) -> Callable[[Recipe, Path], list[Path]]:
    kind = recipe.trainer_kind
    if kind == BUILTIN or target == "peft":
        return TARGETS[target]
    if kind == target and kind in OWN_FILES:
        return OWN_FILES[kind]
    left = recipe.without_adapter
    ways = [f"--to {kind}, which writes your own file"] if kind in OWN_FILES else []
    ways += ["--to peft, which copies the adapter"] if left is None else []
    answers = ([f"use {', or '.join(ways)}"] if ways else []) + ([left] if left is not None else [])
    raise RecipeError(
        f"the study was tuned with trainer {kind!r}, whose settings a recipe for {target} does not know: "
        + "; ".join(answers)
    )


def write_lora(folder: Path, variant: str, out: Path, rank: int | None = None) -> lora.PlainLora:
    """Write a plain LoRA that stands for the adapter of a variant which has a format of its own, and say how well.

    Args:
        folder, variant, out: as for :func:`write`.
        rank: of the plain LoRA; None: twice the trained one.

    Raises:
        RecipeError: the variant has no result, its adapter is a plain LoRA already, or none is near it.
    """
    return lora.write(Recipe.load(files.expanded(folder), variant), files.expanded(out), rank)
