"""The tables of what works: no row is silent."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("trl.chat_template_utils", reason="needs trl, see tests/oracles.txt", exc_type=ImportError)

from autolora import head
from studies.compatibility import reading, templates

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSING = "{{ raise_exception('no | conversations') }}"


def test_the_table_of_templates_has_a_row_for_each_file(tmp_path, monkeypatch):
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "chatml.jinja").write_text(CHATML)
    (folder / "refusing.jinja").write_text(REFUSING)
    out = tmp_path / "templates.md"
    monkeypatch.setattr(sys, "argv", ["templates", str(folder), "--no-trl", "--out", str(out)])
    templates.main()
    rows = [line for line in out.read_text().splitlines() if line.startswith("| some/")]
    assert len(rows) == 2
    assert "`a one<|im_end|>`".replace("|", "\\|") in rows[0]
    assert rows[0].count("leaves out the tool calls") == 2
    assert rows[1].count("refuses the conversation: no \\| conversations") == len(templates.CONVERSATIONS)


def test_shortcuts_are_compared_with_whole_logits_for_each_architecture(monkeypatch, tmp_path):
    monkeypatch.setattr(head, "CHUNK", head.CHUNK)  # the study sets it
    monkeypatch.setattr(sys, "argv", ["reading", "--only", "llama,opt", "--out", str(tmp_path / "out.md")])
    reading.main()
    llama, opt = (tmp_path / "out.md").read_text(encoding="utf-8").splitlines()[-2:]
    assert llama.startswith("| llama | left out | apart |")
    assert opt.startswith("| opt | left out | whole logits |")
    assert llama.endswith("| equal |")
