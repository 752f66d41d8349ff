"""A LLaMA-Factory configuration and its list of data sets. Names as in LLaMA-Factory's ``hparams``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from autolora import files
from autolora.recipes.data import Data, Source, by_hand
from autolora.recipes.recipe import Recipe, RecipeError, yaml_file
from autolora.trainers.configurations.llamafactory import INITIALIZATIONS, OPTIONS

TOOL, FILE, DATASETS = "LLaMA-Factory", "llamafactory.yaml", "dataset_info.json"
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
    data = _expressible(recipe.data).in_folder(out)
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
            "stage": "pt" if data.format == "text" else "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_rank": config.rank,
            "lora_alpha": recipe.whole_alpha(TOOL),
            "lora_dropout": training.dropout,
            "lora_target": _target(recipe),
            **switches,
        },
        "data": {
            "dataset_dir": str(out.absolute()),
            "dataset": "train",
            **({"val_size": data.eval_size} if data.eval is None else {"eval_dataset": "eval"}),
            **_template(data),
            **({"mask_history": True} if _has_history(data) else {}),
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
    files.write(datasets, json.dumps(_datasets(data), indent=2, ensure_ascii=False) + "\n")
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


def _expressible(data: Data) -> Data:
    if data.template is not None:
        return by_hand("LLaMA-Factory has no prompt templates over several columns.", of=data)
    if data.format == "tokenized":
        return by_hand("LLaMA-Factory reads no columns of token ids.", of=data)
    return data.known_to(TOOL, READINGS)


def _template(data: Data) -> dict[str, str]:
    """The template's name; for conversations none, so that the tokenizer's own is taken."""
    names = {"prompt_completion": "fewshot", "alpaca": "alpaca"}
    return {"template": names[data.format]} if data.format in names else {}


def _datasets(data: Data) -> dict[str, dict[str, object]]:
    entries = {"train": {**_place(data.train), **READINGS[data.format](data)}}
    if data.eval is not None:
        rows = {} if data.eval_size is None else {"num_samples": data.eval_size}
        entries["eval"] = {**_place(data.eval), **rows, **READINGS[data.format](data)}
    return entries


def _place(source: Source) -> dict[str, object]:
    if source.kind != "hub":
        return {"file_name": source.path}
    subset = {} if source.name is None else {"subset": source.name}
    return {"hf_hub_url": source.path, **subset, "split": source.split}


def _conversation(role: str, content: str, user: str, assistant: str) -> Callable[[Data], dict[str, object]]:
    tags = {
        "role_tag": role,
        "content_tag": content,
        "user_tag": user,
        "assistant_tag": assistant,
        "observation_tag": "tool",
        "system_tag": "system",
    }

    def reading(data: Data) -> dict[str, object]:
        columns = {"messages": data.columns[0], **data.beside(system="system", tools="tools")}
        return {"formatting": "sharegpt", "columns": columns, "tags": tags}

    return reading


def _alpaca(data: Data) -> dict[str, object]:
    optional = {"query": "input", "system": "system", "history": "history"}
    columns = {key: column for key, column in optional.items() if column in data.columns}
    return {"columns": {"prompt": "instruction", **columns, "response": "output"}}


def _has_history(data: Data) -> bool:
    return data.format == "alpaca" and "history" in data.columns


def _prompt_completion(data: Data) -> dict[str, object]:
    prompt, completion = data.columns
    return {"columns": {"prompt": prompt, "response": completion}}


READINGS: dict[str, Callable[[Data], dict[str, object]]] = {
    "prompt_completion": _prompt_completion,
    "messages": _conversation("role", "content", "user", "assistant"),
    "sharegpt": _conversation("from", "value", "human", "gpt"),
    "alpaca": _alpaca,
    "text": lambda data: {"columns": {"prompt": data.columns[0]}},
}
"""By format, how LLaMA-Factory finds the parts of a row."""
