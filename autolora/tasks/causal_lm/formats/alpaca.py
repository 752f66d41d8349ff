"""Alpaca's instruction, input and output, in the text of its paper's repository.

Two more columns are those of LLaMA-Factory's form of it: ``system`` stands in place of the opening sentences, and
``history`` holds earlier instructions and answers, which stand before the instruction and are not learned.
"""

from __future__ import annotations

from autolora.tasks.causal_lm.examples import Pair
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.cells import require, text
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.nested import is_blank, nested
from autolora.tasks.data.table import Row, Table

NAME = "alpaca"
COLUMNS = ("instruction", "input", "output", "system", "history")
OPENING = "Below is an instruction that describes a task"
CLOSING = "Write a response that appropriately completes the request.\n\n"
OPENING_WITH_INPUT = f"{OPENING}, paired with an input that provides further context. {CLOSING}"
OPENING_WITHOUT_INPUT = f"{OPENING}. {CLOSING}"
REQUEST_WITHOUT_INPUT = "### Instruction:\n{instruction}\n\n### Response:\n"
REQUEST_WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
WITH_INPUT = OPENING_WITH_INPUT + REQUEST_WITH_INPUT
WITHOUT_INPUT = OPENING_WITHOUT_INPUT + REQUEST_WITHOUT_INPUT


def _read(table: Table, keys: Keys) -> Layout:
    require(table, ("instruction", "output"), "format: alpaca needs instruction and output (and maybe input)")
    columns = tuple(column for column in COLUMNS if column in table.columns)
    unlearned = " (whose answers are not learned)" if "history" in columns else ""
    renewed = "system" in columns or "history" in columns
    return Layout(NAME, ", ".join(columns) + unlearned, columns, _example, renewed)


def _example(row: Row, where: str) -> Pair:
    has_input = _optional(row, "input", where) != ""
    opening = OPENING_WITH_INPUT if has_input else OPENING_WITHOUT_INPUT
    system = _optional(row, "system", where)
    if system.strip():
        opening = f"{system}\n\n"
    request = REQUEST_WITH_INPUT if has_input else REQUEST_WITHOUT_INPUT
    request = request.format(instruction=text(row, "instruction", where), input=row.get("input"))
    return Pair(opening + _history(row, where) + request, text(row, "output", where))


def _optional(row: Row, column: str, where: str) -> str:
    return "" if row.get(column) is None else text(row, column, where)


def _history(row: Row, where: str) -> str:
    value = row.get("history")
    if is_blank(value):
        return ""
    place = f"{where}, column 'history'"
    exchanges = nested(value, place)
    if not isinstance(exchanges, list):
        raise DataError(f"{place} must be a list of [instruction, answer], not {show(value)}")
    return "".join(_exchange(exchange, f"{place}[{i}]") for i, exchange in enumerate(exchanges))


def _exchange(value: object, place: str) -> str:
    match value:
        case [str(instruction), str(answer)]:
            return REQUEST_WITHOUT_INPUT.format(instruction=instruction) + f"{answer}\n\n"
    raise DataError(f"{place} must be [instruction, answer], both text, not {show(value)}")


register(
    Format(NAME, _read, fits=lambda table: {"instruction", "output"} <= set(table.columns), precedence=40, makes=Pair)
)
