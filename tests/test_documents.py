"""Files that people write: keys that are given twice, keys that are merged, and errors without secrets."""

from __future__ import annotations

import pytest

from autolora.documents import DocumentError, parse_yaml


def test_a_merged_key_that_is_given_again_is_not_given_twice():
    text = "x:\n  b: &b\n    <<: {p: 1}\n    p: 2\nc:\n  <<: *b\n"
    assert parse_yaml(text, "a.yaml") == {"x": {"b": {"p": 2}}, "c": {"p": 2}}


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "x: &x {a: 1, a: 2}\n", "x:\n  y: &y {a: 1, a: 2}\nz:\n  <<: *y\n"])
def test_a_key_that_is_given_twice_is_refused(text):
    with pytest.raises(DocumentError, match="the key 'a' is there already, in line"):
        parse_yaml(text, "a.yaml")


@pytest.mark.parametrize(
    "value", ['"postgresql://me:s3cret@host/db', "%postgresql://me:s3cret@host/db", "@s3cret", "[s3cret"]
)
def test_an_error_quotes_no_line(value):
    with pytest.raises(DocumentError, match=r"a\.yaml is not valid YAML: .* \(line \d, column \d+\)") as error:
        parse_yaml(f"model: a\nstorage: {value}\n", "a.yaml")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("text", ["{command: train {rank}, examples: 4}", "{command: {rank} train}", "a: {b} c"])
def test_a_brace_without_quotes_is_hinted_at(text):
    with pytest.raises(DocumentError, match="A value that holds braces must be in quotes"):
        parse_yaml(text, "spec.yaml")
