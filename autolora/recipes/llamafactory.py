"""A LLaMA-Factory configuration and its list of data sets. Names as in LLaMA-Factory's ``hparams``."""

from __future__ import annotations

from pathlib import Path

from autolora import files
from autolora.recipes.recipe import Recipe, RecipeError, yaml_file
from autolora.trainers.configurations.data import Data
from autolora.trainers.configurations.llamafactory import INITIALIZATIONS, OPTIONS
from autolora.trainers.configurations.llamafactory_data import DATASETS, expressible, listed, settings, stage

TOOL, FILE = "LLaMA-Factory", "llamafactory.yaml"
COMPUTE: dict[str, dict[str, object]] = {
    "auto": {"bf16": True},
    "bfloat16": {"bf16": True},
    "float16": {"bf16": False, "fp16": True},
    "float32": {"bf16": False},
}


def write(recipe: Recipe, out: Path) -> list[Path]:
    """Write ``llamafactory.yaml`` and the ``dataset_info.json`` that it refers to."""
    training, config = recipe.training, recipe.config
    switches = _switches(recipe)
    data = expressible(recipe.data).in_folder(out)
    model = {
        "model_name_or_path": recipe.whole_model(TOOL),
        "trust_remote_code": bool(recipe.spec["trust_remote_code"]),
    }
    if recipe.spec["revision"]:
        model["model_revision"] = recipe.spec["revision"]
    if recipe.bits:
        model |= {"quantization_bit": recipe.bits, "double_quantization": True}
    sections: dict[str, dict[str, object]] = {
        "model": model,
        "method": {
            "stage": stage(data),
            "do_train": True,
            "finetuning_type": "lora",
            "lora_rank": config.rank,
            "lora_alpha": recipe.whole_alpha(TOOL),
            "lora_dropout": training.dropout,
            "lora_target": _target(recipe),
            **switches,
        },
        "data": {
            **settings(data, out),
            "cutoff_len": training.max_length,
            "packing": False,
        },
        "training": {
            "output_dir": str(out.absolute() / recipe.variant.name),
            "per_device_train_batch_size": recipe.micro_batch,
            "gradient_accumulation_steps": recipe.accumulation,
            "max_steps": recipe.steps,
            "learning_rate": config.learning_rate,
            "optim": "adamw_torch",
            **recipe.adamw(TOOL),
            "weight_decay": training.weight_decay,
            "lr_scheduler_type": training.schedule,
            "warmup_steps": recipe.warmup_steps,
            "max_grad_norm": training.max_grad_norm,
            "seed": recipe.seed,
            **COMPUTE[training.dtype],
            "do_eval": True,
            "report_to": "none",
        },
    }
    notes = [f"Train with: llamafactory-cli train {files.argument((out / FILE).absolute())}", *_notes(recipe, data)]
    out.mkdir(parents=True, exist_ok=True)
    datasets = out / DATASETS
    files.write(datasets, listed(data))
    return [yaml_file(out / FILE, recipe, notes, sections), datasets]


def _target(recipe: Recipe) -> str:
    if recipe.layers is None:
        return "all"
    modules, parameters = recipe.layers
    if parameters:
        raise RecipeError(
            f"{TOOL} trains no parameter by its name, and {parameters[0]} was trained so: export to trl or axolotl, or "
            "tune with adapter.target_parameters: null"
        )
    return ",".join(modules)


def _switches(recipe: Recipe) -> dict[str, object]:
    switches = recipe.peft_options(TOOL, OPTIONS)
    start = switches.pop("init_lora_weights", None)
    if start is not None:
        if start not in INITIALIZATIONS:
            raise recipe.inexpressible(TOOL)
        switches |= INITIALIZATIONS[start]
    if recipe.loraplus_ratio != 1:
        switches["loraplus_lr_ratio"] = recipe.loraplus_ratio
    return switches


def _notes(recipe: Recipe, data: Data) -> list[str]:
    notes = [
        "per_device_train_batch_size is for one GPU: with several, divide gradient_accumulation_steps by their number."
    ]
    if recipe.training.dtype == "auto":
        notes.append("On a GPU without bfloat16 write fp16: true in place of bf16: true.")
    if recipe.whole_alpha(TOOL) != recipe.config.alpha:
        notes.append(f"lora_alpha is rounded from {recipe.config.alpha:.6g}.")
    if data.format == "prompt_completion":
        notes.append(
            "The template 'fewshot' is the nearest to the text that was tuned on: it has no line break between prompt "
            "and completion, and two behind the completion."
        )
    if data.format == "alpaca":
        notes.append("LLaMA-Factory's alpaca text puts an input under the instruction, without a heading of its own.")
    return [*notes, *data.notes]
