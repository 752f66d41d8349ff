"""What is learned of conversations with published chat templates, and what is dropped or refused.

python -m studies.compatibility.templates FOLDER... [--no-trl] [--out templates.md]

A folder holds .jinja files, such as llama.cpp's models/templates; those that the installed trl ships come first. Each
template is set on a tokenizer of one token a byte that has the tags of the template as special tokens. Where TRL has a
training version of a template, with marks around what the assistant generates, its stretches are compared with ours.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import trl
from trl.chat_template_utils import get_training_chat_template

from autolora.tasks.causal_lm.chat.conventions import digest
from autolora.tasks.causal_lm.examples import Chat, Message
from autolora.tasks.causal_lm.tokenize import Encoded, Encoder
from autolora.tasks.data.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAG = re.compile(r"<[^<>\s{}'\"]+>|\[/?[A-Z_]+\]")
MOST = 320  # characters of a cell's refusal
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city"}},
                "required": ["city"],
            },
        },
    }
]


def _said(role: str, content: str | None, **more: Any) -> Message:
    return {"role": role, "content": content, **more}


ONE = [_said("user", "q one"), _said("assistant", "a one")]
CALL = [
    _said("user", "q oslo"),
    _said(
        "assistant",
        None,
        tool_calls=[
            {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
        ],
    ),
]
THOUGHTS = [
    _said("user", "q one"),
    _said("assistant", "a one", reasoning_content="t one"),
    _said("user", "q two"),
    _said("assistant", "a two", reasoning_content="t two"),
]
CONVERSATIONS = {
    "one turn": Chat(ONE),
    "two turns": Chat([*ONE, _said("user", "q two"), _said("assistant", "a two")]),
    "system": Chat([_said("system", "be brief"), *ONE]),
    "tool call": Chat(
        [*CALL, _said("tool", "rain", name="weather", tool_call_id="call00001"), _said("assistant", "it rains")], TOOLS
    ),
    "ends in a call": Chat(CALL, TOOLS),
    "thinking": Chat(THOUGHTS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--no-trl", action="store_true", help="leave out the templates that trl ships")
    parser.add_argument("--out", type=Path, help="default: templates.md beside this file")
    arguments = parser.parse_args()
    out = arguments.out or Path(__file__).with_name("templates.md")
    rows = [row_of(name, source) for name, source in templates(arguments.folders, not arguments.no_trl)]
    packages = ", ".join(f"{name} {version(name)}" for name in ("transformers", "trl", "jinja2"))
    compared = [row for row in rows if row.compared]
    equal = sum(not row.different for row in compared)
    lines = [
        "# Chat templates",
        "",
        f"Written by `python -m studies.compatibility.templates FOLDER...` with {packages}.",
        "",
        f"{len(rows)} templates. TRL has a training version of {len(compared)} of them; for {equal} the learned "
        "stretches are equal in every conversation. Stretches are in quotes, one a learned turn; what a template "
        "leaves out and what is refused is in italics. A text differs from the tokenizer's own rendering only if the "
        "cell says so.",
        "",
        "| template | sha256 | " + " | ".join(CONVERSATIONS) + " | TRL |",
        "| --- " * (len(CONVERSATIONS) + 3) + "|",
        *[row.line() for row in rows],
    ]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{out}: {len(rows)} templates, {equal} of {len(compared)} equal to TRL's marks")


def templates(folders: list[Path], with_trl: bool = True) -> Iterator[tuple[str, str]]:
    """Name and source of each template; those of TRL first."""
    shipped = [Path(trl.__file__).with_name("chat_templates")] if with_trl else []
    for folder in [*shipped, *folders]:
        label = "trl" if folder in shipped else folder.name
        for path in sorted(folder.glob("*.jinja")):
            if not path.stem.endswith("_training"):
                yield f"{label}/{path.stem}", path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Row:
    """One template: its cells by conversation, and where TRL learns other stretches (None: TRL has no marks)."""

    name: str
    digest: str
    cells: dict[str, str]
    compared: bool
    different: dict[str, str]

    def line(self) -> str:
        told = "equal" if not self.different else "; ".join(f"{k}: {v}" for k, v in self.different.items())
        columns = [self.name, f"`{self.digest}`", *self.cells.values(), told if self.compared else "-"]
        return "| " + " | ".join(column.replace("|", "\\|") for column in columns) + " |"


def row_of(name: str, source: str) -> Row:
    """What is learned of each conversation with this template."""
    tokenizer = tokenizer_for(source)
    marks = marked_by_trl(tokenizer)
    cells, different = {}, {}
    for title, chat in CONVERSATIONS.items():
        cells[title], learned = cell_of(tokenizer, chat)
        expected = None if marks is None else stretches_of(tokenizer, marks, chat)
        if expected is not None and learned is not None and expected != learned:
            different[title] = quoted(expected)
    return Row(name, digest(source), cells, marks is not None, different)


def cell_of(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[str, list[str] | None]:
    """What is learned, dropped or refused; and the learned stretches, None if there is none."""
    try:
        [row] = Encoder(tokenizer, max_length=1 << 20).encode([chat], ["row"])
    except DataError as error:
        return f"*error: {str(error)[:MOST]}*", None
    if not isinstance(row, Encoded):
        return f"*not used: {row.reason[:MOST]}*", None
    learned = runs(tokenizer, row.ids.tolist(), row.targets.tolist())
    notes = [f"*{what}: {count}*" for what, count in row.left_out.items()]
    own = own_text(tokenizer, chat)
    if own is not None and own != tokenizer.decode(row.ids):
        notes.append("*text differs*")
    return " ".join([quoted(learned), *notes]), learned


def own_text(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str | None:
    """The tokenizer's own rendering; None if the template does not take the messages as they are."""
    try:
        text: str = tokenizer.apply_chat_template(chat.messages, tools=chat.tools, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError):
        return None
    said = [message["content"] for message in chat.messages if message["content"]]
    return text if all(content in text for content in said) else None


def tokenizer_for(source: str) -> PreTrainedTokenizerBase:
    """One token a byte, and one for each tag of the template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(TAG.findall(source)) - {"<s>", "</s>"})})
    tokenizer.chat_template = source
    return tokenizer


def marked_by_trl(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """TRL's training version of the tokenizer's template; None if it has none."""
    try:
        template: str | None = get_training_chat_template(tokenizer)
    except (jinja2.TemplateError, TypeError, ValueError):  # it says so of one that it does not know, or fails to try it
        return None
    return template


def stretches_of(tokenizer: PreTrainedTokenizerBase, template: str, chat: Chat) -> list[str] | None:
    """What TRL learns of a conversation; None if its template does not take it."""
    messages = [{**message, "content": message["content"] or ""} for message in chat.messages]
    if not _takes_text(tokenizer, template):
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    try:
        encoded = tokenizer.apply_chat_template(
            messages, tools=chat.tools, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
    except (jinja2.TemplateError, TypeError, ValueError):
        return None
    return runs(tokenizer, encoded["input_ids"], encoded["assistant_masks"])


def _takes_text(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Whether the template writes messages whose content is text and not a list of parts."""
    messages = [{"role": "user", "content": "wordfortest"}]
    try:
        text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError):
        return False
    return "wordfortest" in text


def runs(tokenizer: PreTrainedTokenizerBase, ids: list[int], mask: list[int]) -> list[str]:
    """The text of each unbroken stretch of marked tokens."""
    learned: list[list[int]] = []
    before = 0
    for token, marked in zip(ids, mask, strict=True):
        if marked and not before:
            learned.append([])
        if marked:
            learned[-1].append(token)
        before = marked
    return [tokenizer.decode(stretch) for stretch in learned]


def quoted(stretches: list[str]) -> str:
    return " ".join("`" + repr(stretch)[1:-1] + "`" for stretch in stretches)


if __name__ == "__main__":
    main()
