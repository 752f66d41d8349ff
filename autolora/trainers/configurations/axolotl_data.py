"""Rows of a specification as axolotl reads them: the entries of ``datasets`` and what belongs to them."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

from autolora.trainers.configurations.data import Data, Source, by_hand

TOOL = "axolotl"
FIELDS = ("instruction", "input")
"""What axolotl's own prompt formats can name."""


def expressible(data: Data) -> Data:
    """These rows, or if axolotl cannot read them, rows that the user has to write out."""
    data = data.known_to(TOOL, READINGS).plain_alpaca(TOOL)
    if data.template is not None and _format(data.template, data.columns) is None:
        return by_hand(f"axolotl formats know {' and '.join(FIELDS)} only, so the template is not for it.", of=data)
    return data


def settings(data: Data) -> dict[str, object]:
    """The settings for rows that are expressible."""
    reading = READINGS[data.format](data)
    train = {**_place(data.train), **reading}
    if data.eval is None:
        return {"datasets": [train], "val_set_size": data.eval_size, "train_on_inputs": False}
    held_out = {**_place(data.eval, data.eval_size), **reading}
    return {"datasets": [train], "test_datasets": [held_out], "train_on_inputs": False}


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
