"""An axolotl configuration. Names as in axolotl's ``utils/schemas``."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from pathlib import Path

from autolora import files
from autolora.bases.packed import KEYS
from autolora.recipes.data import Data, Source, by_hand
from autolora.recipes.recipe import Recipe, yaml_file
from autolora.trainers.configurations.axolotl import OPTIONS

TOOL, FILE = "axolotl", "axolotl.yaml"
COMPUTE: dict[str, dict[str, object]] = {
    "auto": {"bf16": "auto"},  # float16 on a GPU without bfloat16
    "bfloat16": {"bf16": True},
    "float16": {"bf16": False, "fp16": True},
    "float32": {"bf16": False, "fp16": False},
}
FIELDS = ("instruction", "input")
"""What axolotl's own prompt formats can name."""


def write(recipe: Recipe, out: Path) -> list[Path]:
    """Write ``axolotl.yaml``."""
    training, config = recipe.training, recipe.config
    switches = recipe.peft_options(TOOL, OPTIONS)
    if recipe.loraplus_ratio != 1:
        switches["loraplus_lr_ratio"] = recipe.loraplus_ratio
    data = _expressible(recipe.data).in_folder(out)
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
            **_datasets(data),
            "train_on_inputs": False,
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


def _expressible(data: Data) -> Data:
    data = data.known_to(TOOL, READINGS).plain_alpaca(TOOL)
    if data.template is not None and _format(data.template, data.columns) is None:
        return by_hand(f"axolotl formats know {' and '.join(FIELDS)} only, so the template is not for it.", of=data)
    return data


def _datasets(data: Data) -> dict[str, object]:
    reading = READINGS[data.format](data)
    train = {**_place(data.train), **reading}
    if data.eval is None:
        return {"datasets": [train], "val_set_size": data.eval_size}
    return {
        "datasets": [train],
        "test_datasets": [{**_place(data.eval, data.eval_size), **reading}],
    }


def _place(source: Source, rows: float | None = None) -> dict[str, object]:
    place: dict[str, object] = {"path": source.path}
    if source.kind not in ("folder", "hub"):
        place["ds_type"] = source.kind
    if source.name is not None:
        place["name"] = source.name
    place["split"] = f"{source.split}[:{rows}]" if rows and "[" not in source.split else source.split
    return place


def _conversation(role: str, content: str) -> Callable[[Data], dict[str, object]]:
    def reading(data: Data) -> dict[str, object]:
        return {
            "type": "chat_template",
            "field_messages": data.columns[0],
            "message_property_mappings": {"role": role, "content": content},
            **data.beside(system="field_system", tools="field_tools"),
        }

    return reading


def _alpaca(data: Data) -> dict[str, object]:
    from autolora.tasks.causal_lm.formats.alpaca import WITH_INPUT, WITHOUT_INPUT

    return {"type": _prompt(FIELDS, "output", WITH_INPUT, WITHOUT_INPUT)}


def _prompt_completion(data: Data) -> dict[str, object]:
    *fields, completion = data.columns
    template = _format(data.template, data.columns) if data.template is not None else "{instruction}\n"
    assert template is not None
    return {"type": _prompt(fields, completion, template, template.replace("{input}", ""))}


READINGS: dict[str, Callable[[Data], dict[str, object]]] = {
    "prompt_completion": _prompt_completion,
    "messages": _conversation("role", "content"),
    "sharegpt": _conversation("from", "value"),
    "alpaca": _alpaca,
    "text": lambda data: {"type": "completion", "field": data.columns[0]},
    "tokenized": lambda data: {},
}
"""By format, the type of a data set: axolotl's own where it gives the same text."""


def _prompt(fields: Sequence[str], completion: str, template: str, without_input: str) -> dict[str, str]:
    return {
        "field_instruction": fields[0],
        "field_input": fields[-1],
        "field_output": completion,
        "format": template,
        "no_input_format": without_input,
        "system_format": "",  # a column named system is not put before the prompt
    }


def _format(template: str, columns: tuple[str, ...]) -> str | None:
    """The template with axolotl's field names for the columns; None where that is not possible."""
    names = dict(zip(columns[:-1], FIELDS, strict=False))
    if not 1 <= len(columns[:-1]) <= len(FIELDS):
        return None
    parts = []
    for text, field, specification, conversion in string.Formatter().parse(template):
        parts.append(text.replace("{", "{{").replace("}", "}}"))
        if field is not None:
            if field not in names or specification or conversion:
                return None
            parts.append(f"{{{names[field]}}}")
    return "".join(parts)
