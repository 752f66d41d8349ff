"""Text in other encodings is read, or named by file and row."""

import codecs
import json

import pytest

from autolora.tasks.data.errors import DataError

ROWS = [{"text": "Prüfung"}, {"text": "größer 😀"}]
CONTENTS = {
    "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "json": json.dumps(ROWS, ensure_ascii=False),
    "csv": "text\nPrüfung\ngrößer 😀\n",
    "tsv": "text\nPrüfung\ngrößer 😀\n",
    "txt": "Prüfung\ngrößer 😀\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_every_unicode_encoding_is_read(read, tmp_path, kind, encoding):
    (tmp_path / f"rows.{kind}").write_text(CONTENTS[kind], encoding=encoding)
    if encoding.startswith("utf-16-") and kind in ("csv", "tsv", "txt"):  # as some editors write it
        mark = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else codecs.BOM_UTF16_BE
        (tmp_path / f"rows.{kind}").write_bytes(mark + CONTENTS[kind].encode(encoding))
    assert read(str(tmp_path / f"rows.{kind}")) == ROWS


@pytest.mark.parametrize("kind", CONTENTS)
def test_another_encoding_is_named_with_file_and_row(read, tmp_path, kind):
    (tmp_path / f"rows.{kind}").write_bytes(CONTENTS[kind].replace(" 😀", "").replace("ü", "ue").encode("latin-1"))
    row = {"json": 1, "jsonl": 2, "txt": 2}.get(kind, 3)
    with pytest.raises(DataError, match=rf"rows\.{kind}, row {row} is not text in UTF-8: .*gr'; save the file as"):
        read(str(tmp_path / f"rows.{kind}"))


def test_utf_16_that_ends_in_half_a_character_is_named(read, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(CONTENTS["jsonl"].encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2 is not text in UTF-16, which it begins in"):
        read(str(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        (
            "a.jsonl",
            '{"text": "fine \\ud83d\\ude00"}\n{"text": "cut \\ud83d"}\n',
            "row 2, column 'text' has .* character 5",
        ),
        ("a.jsonl", '{"text": "cut \\uDE00 in the middle"}', "row 1, column 'text'"),
        ("a.json", '[{"text": "a"}, {"text": "\\ud83d"}]', "row 2, column 'text'"),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\\ud83d"}]}',
            "row 1, column 'messages', item 2, 'content'",
        ),
    ],
)
def test_half_of_a_surrogate_pair_is_named_with_row_and_column(read, tmp_path, name, content, place):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name}, {place}.*half of a surrogate pair"):
        read(str(tmp_path / name))


def test_whole_pairs_are_read(read, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude00"}', encoding="utf-8")
    assert read(str(tmp_path / "a.jsonl")) == [{"text": "😀"}]


def test_half_of_a_pair_encoded_as_bytes_is_named(read, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xed\xa0\xbd"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, row 2 is not text in UTF-8"):
        read(str(tmp_path / "a.jsonl"))
