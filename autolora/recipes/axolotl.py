"""An axolotl configuration. Names as in axolotl's ``utils/schemas``."""

from __future__ import annotations

from pathlib import Path

from autolora import files
from autolora.bases.packed import KEYS
from autolora.recipes.recipe import Recipe, yaml_file
from autolora.trainers.configurations.axolotl import OPTIONS
from autolora.trainers.configurations.axolotl_data import expressible, settings
from autolora.trainers.configurations.data import Data

TOOL, FILE = "axolotl", "axolotl.yaml"
COMPUTE: dict[str, dict[str, object]] = {
    "auto": {"bf16": "auto"},  # float16 on a GPU without bfloat16
    "bfloat16": {"bf16": True},
    "float16": {"bf16": False, "fp16": True},
    "float32": {"bf16": False, "fp16": False},
}


def write(recipe: Recipe, out: Path) -> list[Path]:
    """Write ``axolotl.yaml``."""
    training, config = recipe.training, recipe.config
    switches = recipe.peft_options(TOOL, OPTIONS)
    if recipe.loraplus_ratio != 1:
        switches["loraplus_lr_ratio"] = recipe.loraplus_ratio
    data = expressible(recipe.data).in_folder(out)
    trusted = bool(recipe.spec["trust_remote_code"])
    model = {"base_model": recipe.whole_model(TOOL), "trust_remote_code": trusted}
    if recipe.spec["revision"]:
        model["revision_of_model"] = recipe.spec["revision"]
    if recipe.base_bits:
        model |= {KEYS[recipe.base_bits]: True}
    sections = {
        "model": model,
        "adapter": {
            "adapter": "qlora" if recipe.base_bits == 4 else "lora",
            "lora_r": config.rank,
            "lora_alpha": recipe.whole_alpha(TOOL),
            "lora_dropout": training.dropout,
            **_targets(recipe),
            **switches,
        },
        "data": {
            **settings(data),
            "sequence_len": training.max_length,
            "excess_length_strategy": "truncate",
            "sample_packing": False,
        },
        "training": {
            "output_dir": str(out.absolute() / recipe.variant.name),
            "micro_batch_size": recipe.micro_batch,
            "gradient_accumulation_steps": recipe.accumulation,
            "max_steps": recipe.steps,
            "learning_rate": config.learning_rate,
            "optimizer": "adamw_torch_fused",
            **recipe.adamw(TOOL),
            "weight_decay": training.weight_decay,
            "lr_scheduler": training.schedule,
            "warmup_steps": recipe.warmup_steps,
            "max_grad_norm": training.max_grad_norm,
            "seed": recipe.seed,
            **COMPUTE[training.dtype],
        },
    }
    return [
        yaml_file(
            out / FILE,
            recipe,
            [f"Train with: axolotl train {files.argument(out / FILE)}", *_notes(recipe, data)],
            sections,
        )
    ]


def _targets(recipe: Recipe) -> dict[str, object]:
    if recipe.layers is None:
        return {"lora_target_linear": True}
    modules, parameters = recipe.layers
    return {"lora_target_modules": modules, **({"lora_target_parameters": parameters} if parameters else {})}


def _notes(recipe: Recipe, data: Data) -> list[str]:
    notes = ["micro_batch_size is for one GPU: with several, divide gradient_accumulation_steps by their number."]
    if recipe.warmup_steps == 1:
        notes.append("axolotl makes a warmup of 1 step 2.")
    if recipe.variant.export_form == "rank 2r":
        notes.append(
            f"What axolotl saves loads on the base that {recipe.variant.title} started from, not on the original one: "
            "merge it with `axolotl merge-lora` on the machine it was trained on."
        )
    if data.format == "tokenized":
        notes.append("axolotl takes rows as tokens where all of input_ids, attention_mask and labels are there.")
    if recipe.whole_alpha(TOOL) != recipe.config.alpha:
        notes.append(f"lora_alpha is rounded from {recipe.config.alpha:.6g}.")
    return [*notes, *data.notes]
