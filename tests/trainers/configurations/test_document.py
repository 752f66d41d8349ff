"""Files are changed in place: what is not changed stays as written, and what is written is what was asked for."""

from __future__ import annotations

import random

import pytest
import yaml

from autolora.trainers.configurations.document import Change, as_number, edited

TEXT = """\
# head
a: 1   # one
list:
  - x  # first
  - y
# about b
b: "two"
block: |
  several
  lines
nothing:
c: {d: 1, e: [2]}
"""


def test_a_value_is_replaced_where_it_stands():
    assert edited(TEXT, [Change("a", 2.5), Change("b", "three")], "new") == TEXT.replace("a: 1 ", "a: 2.5 ").replace(
        '"two"', "three"
    )


def test_blocks_are_replaced_and_comments_of_the_next_key_stay():
    text = edited(TEXT, [Change("list", ["z"]), Change("block", "short"), Change("nothing", True)], "new")
    assert yaml.safe_load(text) == {**yaml.safe_load(TEXT), "list": ["z"], "block": "short", "nothing": True}
    assert "# about b\nb:" in text


def test_keys_are_removed_with_their_lines_and_new_ones_follow():
    text = edited(TEXT, [Change(key, removed=True) for key in ("a", "list", "c", "gone")] + [Change("z", 1)], "ours")
    assert yaml.safe_load(text) == {"b": "two", "block": "several\nlines\n", "nothing": None, "z": 1}
    assert text.endswith("\n# ours\nz: 1\n")
    assert text.startswith("# head\n")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": [1, 2]}',
        "base: &base {x: 1}\na: &one 1\nb: *one\nc: *base\n",
        "--- \na: 1\nb: 2\n...\n",
        "a: 1",
        "",
        "# nothing\n",
        "a: &x 1\nb:\n  <<: {k: *x}\n",
    ],
)
def test_what_cannot_be_changed_in_place_is_written_whole(text):
    content = yaml.safe_load(text) or {}
    assert yaml.safe_load(edited(text, [Change("a", [7]), Change("q", "é")], "new")) == {**content, "a": [7], "q": "é"}


@pytest.mark.parametrize("value", ["1234e567", "'1234e567'", "1e-8", "12e3", "'0123'", "1e400", "yes please", "0x1f"])
def test_values_that_are_not_changed_keep_their_meaning_when_a_file_is_written_whole(value):
    text = f"a: &x 1\nb: *x\nkept: {value}\n"
    written = edited(text, [Change("a", 2)], "new")
    assert yaml.safe_load(written) == {"a": 2, "b": 1, "kept": yaml.safe_load(value)}
    if value == "1e-8":  # as the user wrote it: other readers of YAML take it for a number
        assert "kept: 1e-8\n" in written


def test_comments_that_are_left_out_are_said():
    text = "a: &x 1  # why\nb: *x\n"
    assert edited(text, [Change("a", 2)], "new").startswith("# Comments of the file are left out")
    assert "left out" not in edited(text.replace("  # why", ""), [Change("a", 2)], "new")


def test_text_that_no_float_holds_is_no_number():
    assert [as_number(each) for each in ("1e400", "-1e400", "1e-400", "2e-4")] == ["1e400", "-1e400", 0.0, 2e-4]


VALUES = (
    1,
    -2.5,
    1e-7,
    True,
    None,
    "",
    "x: y",
    "# no comment",
    "yes",
    "1e-4",
    "'",
    "é\n2",
    [],
    [1, {"a": None}],
    {"k": [1]},
)
STYLES = ({}, {"default_flow_style": True}, {"default_flow_style": False, "indent": 4}, {"default_style": '"'})


@pytest.mark.parametrize("seed", range(60))
def test_any_change_of_any_file_gives_what_was_asked_for(seed):
    rng = random.Random(seed)
    keys = rng.sample(["a", "b", "long_key", "d d", "e"], rng.randint(0, 5))
    content = {key: rng.choice(VALUES) for key in keys}
    pieces = [
        yaml.safe_dump({key: value}, allow_unicode=True, **rng.choice(STYLES[:3:2])) for key, value in content.items()
    ]
    text = "".join(rng.choice(["", "# comment\n", "\n"]) + piece for piece in pieces)
    if rng.random() < 0.3:
        text = yaml.safe_dump(content, **rng.choice(STYLES)) if content else "{}"
    changes = [
        Change(key, rng.choice(VALUES), removed=rng.random() < 0.3)
        for key in rng.sample(["a", "b", "long_key", "z"], 3)
    ]
    expected = dict(yaml.safe_load(text) or {})
    for change in changes:
        expected.pop(change.key, None)
        if not change.removed:
            expected[change.key] = change.value
    found = yaml.safe_load(edited(text, changes, "new")) or {}
    assert {key: as_number(value) for key, value in found.items()} == {
        key: as_number(value) for key, value in expected.items()
    }


def test_numbers_that_yaml_takes_for_text_are_numbers():
    assert [as_number(each) for each in ("2e-4", "1E3", "-1.5e+2", "1e", "x", 3)] == [2e-4, 1e3, -150.0, "1e", "x", 3]
