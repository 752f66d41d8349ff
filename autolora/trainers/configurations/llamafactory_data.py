"""Rows of a specification as LLaMA-Factory reads them: its list of data sets, and the settings that name them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from autolora.trainers.configurations.data import Data, Source, by_hand

TOOL, DATASETS = "LLaMA-Factory", "dataset_info.json"


def expressible(data: Data) -> Data:
    """These rows, or if LLaMA-Factory cannot read them, rows that the user has to write out."""
    if data.template is not None:
        return by_hand("LLaMA-Factory has no prompt templates over several columns.", of=data)
    if data.format == "tokenized":
        return by_hand("LLaMA-Factory reads no columns of token ids.", of=data)
    return data.known_to(TOOL, READINGS)


def settings(data: Data, folder: Path) -> dict[str, object]:
    """The settings for rows that are expressible.

    Args:
        data: the rows.
        folder: that the list of data sets is in.
    """
    return {
        "dataset_dir": str(folder.absolute()),
        "dataset": "train",
        **({"val_size": data.eval_size} if data.eval is None else {"eval_dataset": "eval"}),
        **_template(data),
        **({"mask_history": True} if _has_history(data) else {}),
    }


def stage(data: Data) -> str:
    """The stage that trains on such rows."""
    return "pt" if data.format == "text" else "sft"


def listed(data: Data) -> str:
    """The content of the list of data sets."""
    return json.dumps(_datasets(data), indent=2, ensure_ascii=False) + "\n"


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
