"""What is learned with published templates is what TRL learns with its training versions of them."""

from __future__ import annotations

import pytest

from autolora.tasks.causal_lm.chat.conventions import CONVENTIONS, digest

pytest.importorskip("trl.chat_template_utils", reason="needs trl, see tests/oracles.txt", exc_type=ImportError)

from studies.compatibility.templates import marked_by_trl, row_of, templates, tokenizer_for

TEMPLATES = dict(templates([]))
# its call of a tool ends with the token that opens the answer, which the model generates, too
OTHERWISE = {"trl/diffusion_gemma": {"tool call", "ends in a call"}}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_learned_stretches_are_equal(name):
    row = row_of(name, TEMPLATES[name])
    assert row.different.keys() == OTHERWISE.get(name, set())


def test_every_convention_is_of_a_template_that_trl_marks():
    marked = {digest(source) for source in TEMPLATES.values() if marked_by_trl(tokenizer_for(source))}
    assert set(CONVENTIONS) <= marked
