"""Alpaca's instruction, input and output, in the text of its paper's repository."""

from __future__ import annotations

from autolora.tasks.causal_lm.examples import Pair
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.cells import require, text
from autolora.tasks.data.table import Row, Table

NAME = "alpaca"
OPENING = "Below is an instruction that describes a task"
CLOSING = "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n"
WITH_INPUT = (
    f"{OPENING}, paired with an input that provides further context. {CLOSING}### Input:\n{{input}}\n\n### Response:\n"
)
WITHOUT_INPUT = f"{OPENING}. {CLOSING}### Response:\n"


def _read(table: Table, keys: Keys) -> Layout:
    require(table, ("instruction", "output"), "format: alpaca needs instruction and output (and maybe input)")
    columns = tuple(column for column in ("instruction", "input", "output") if column in table.columns)

    def example(row: Row, where: str) -> Pair:
        has_input = row.get("input") is not None and text(row, "input", where) != ""
        template = WITH_INPUT if has_input else WITHOUT_INPUT
        prompt = template.format(instruction=text(row, "instruction", where), input=row.get("input"))
        return Pair(prompt, text(row, "output", where))

    return Layout(NAME, ", ".join(columns), columns, example)


register(
    Format(NAME, _read, fits=lambda table: {"instruction", "output"} <= set(table.columns), precedence=40, makes=Pair)
)
