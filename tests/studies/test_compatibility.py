"""The tables of what works: no row is silent."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("trl.chat_template_utils", reason="needs trl, see tests/oracles.txt", exc_type=ImportError)

from studies.compatibility import templates

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
