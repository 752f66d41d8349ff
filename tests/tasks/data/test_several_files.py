"""Several files as one data set, compressed files, and every kind of file."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest

from autolora.tasks.causal_lm.preparation import Reader
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.readers import Reader as FileReader
from autolora.tasks.data.readers import register, suffixes
from autolora.tasks.data.sources import open_source

ROWS = [{"text": f"row {number}"} for number in range(5)]
FIRST, LAST = ROWS[:2], ROWS[2:]


@pytest.fixture
def both(write):
    return [write("a.jsonl", FIRST), write("b.jsonl", LAST)]


def test_a_list_is_read_in_its_order(both, read):
    assert read(both) == ROWS
    assert read(both[::-1]) == LAST + FIRST


@pytest.mark.parametrize("pattern", ["*.jsonl", "?.jsonl", "[ab].jsonl", "**/*.jsonl"])
def test_a_pattern_is_read_in_the_order_of_names(both, read, tmp_path, pattern):
    assert read(str(tmp_path / pattern)) == ROWS


def test_patterns_may_stand_in_a_list(both, read, write, tmp_path):
    assert read([write("z.ndjson", [{"text": "first"}]), str(tmp_path / "*.jsonl")]) == [{"text": "first"}, *ROWS]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(both, read, write):
    assert read(write("[ab].jsonl", ROWS[:1])) == ROWS[:1]


def test_paths_are_recorded_as_text(both):
    assert DataSpec(train=Path(both[0])).train == both[0]
    assert DataSpec(train=tuple(map(Path, both))).train == both


def test_the_identity_is_that_of_the_contents_in_order(both, write, tmp_path):
    def identity(train):
        return open_source("train", DataSpec(train=train)).identity

    copies = [write("copied.jsonl", FIRST), write("copied too.jsonl", LAST)]
    assert identity(both) == identity(copies) == identity(str(tmp_path / "[ab].jsonl"))
    assert len({identity(both), identity(both[::-1]), identity(both[0])}) == 3


def test_an_error_names_the_very_file_and_row(write):
    files = [
        write("a.jsonl", [{"prompt": "p", "completion": "c"}]),
        write("b.jsonl", [{"prompt": "p", "completion": 3}]),
    ]
    with pytest.raises(DataError, match=r"b\.jsonl, row 1, column 'completion' must be text, not 3"):
        _ = Reader.of("train", DataSpec(train=files)).keys


def test_rows_of_several_files_come_in_the_order_asked_for(both):
    table = open_source("train", DataSpec(train=both)).table
    assert table.fetch([4, 0, 2], ["text"]) == [ROWS[4], ROWS[0], ROWS[2]]
    assert [table.place(index).rpartition("/")[2] for index in (1, 2)] == ["a.jsonl, row 2", "b.jsonl, row 1"]


def test_different_columns_are_named(write, read):
    files = [write("a.jsonl", [{"text": "a"}]), write("b.jsonl", [{"text": "b", "source": "x"}])]
    with pytest.raises(DataError, match=r"b\.jsonl and .*a\.jsonl have different columns: only one .* 'source'"):
        read(files)


def test_a_file_without_rows_among_several_is_named(write, read):
    with pytest.raises(DataError, match=r"b\.jsonl holds no rows; leave it out"):
        read([write("a.jsonl", ROWS), write("b.jsonl", [])])


def test_a_list_holds_files_alone(write):
    with pytest.raises(DataError, match=r"data\.train is a list, of which 'owner/set' is not a file"):
        open_source("train", DataSpec(train=[write("a.jsonl", ROWS), "owner/set"]))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("{}/*.csv", "no file matches .*csv"),
        (["{}/a.jsonl", "{}/c.jsonl"], r"no such file: .*c\.jsonl \(did you mean .*\.jsonl\?\)"),
        (["{}/a.jsonl", "{}/no*.jsonl"], r"no file matches .*/no\*\.jsonl"),
        ([], "the list is empty"),
    ],
)
def test_what_is_not_there_is_said_when_the_specification_is_read(both, tmp_path, train, message):
    filled = train.format(tmp_path) if isinstance(train, str) else [name.format(tmp_path) for name in train]
    with pytest.raises(ValueError, match=message):
        DataSpec(train=filled)


ZSTANDARD = pa.Codec("zstd")
COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": ZSTANDARD.compress}
CONTENTS = {
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    ".ndjson": "".join(json.dumps(row) + "\n" for row in ROWS),
    ".json": json.dumps(ROWS),
    ".csv": "text\n" + "".join(f"{row['text']}\n" for row in ROWS),
    ".tsv": "text\n" + "".join(f"{row['text']}\n" for row in ROWS),
    ".txt": "\n\n".join(row["text"] for row in ROWS) + "\n",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_every_kind_of_text_file_gives_the_rows(read, tmp_path, kind):
    (tmp_path / f"rows{kind}").write_text(CONTENTS[kind], encoding="utf-8")
    assert read(str(tmp_path / f"rows{kind}")) == ROWS


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_compressed_file_is_read_as_what_it_holds(read, tmp_path, kind, compression):
    content = COMPRESSED[compression](CONTENTS[kind].encode())
    (tmp_path / f"rows{kind}{compression.upper()}").write_bytes(bytes(content))
    assert read(str(tmp_path / f"rows{kind}{compression.upper()}")) == ROWS


def test_a_compressed_copy_has_the_identity_of_the_file(write, tmp_path):
    plain = write("a.jsonl", ROWS)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(Path(plain).read_bytes()))
    identities = {
        open_source("train", DataSpec(train=f"{tmp_path}/{name}")).identity for name in ("a.jsonl", "b.jsonl.gz")
    }
    assert len(identities) == 1


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("damaged", [lambda content: b"nonsense" * 9, lambda content: content[: len(content) // 2]])
def test_a_damaged_archive_is_named(read, tmp_path, compression, damaged):
    content = bytes(COMPRESSED[compression](CONTENTS[".jsonl"].encode() * 50))
    (tmp_path / f"rows.jsonl{compression}").write_bytes(damaged(content))
    with pytest.raises(
        DataError, match=rf"rows\.jsonl{compression} cannot be decompressed as {compression}|is not JSON"
    ):
        read(str(tmp_path / f"rows.jsonl{compression}"))


def test_tabs_separate_cells_that_hold_commas(read, tmp_path):
    (tmp_path / "rows.tsv").write_text('prompt\tcompletion\na, b\t007\n"c\td"\te\n', encoding="utf-8")
    assert read(str(tmp_path / "rows.tsv")) == [
        {"prompt": "a, b", "completion": "007"},
        {"prompt": "c\td", "completion": "e"},
    ]


def test_the_home_is_found_in_every_place(write, read, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("a.jsonl", ROWS)
    assert read("~/a.jsonl") == read("~/*.jsonl") == read(["~/a.jsonl"]) == ROWS


def test_the_home_of_nobody_is_a_path_that_is_not_there():
    with pytest.raises(ValueError, match=r"no such file: ~nobody_of_that_name/a\.jsonl"):
        DataSpec(train="~nobody_of_that_name/a.jsonl")


def test_a_suffix_has_one_reader():
    with pytest.raises(ValueError, match=r"a reader of \.csv files is registered already"):
        register(FileReader(".new", lambda file: None, also=(".csv",)))
    assert ".new" not in suffixes()


def test_the_suffix_of_a_compressed_file_is_that_of_its_content():
    file = LocalFile(Path("a.JSONL.GZ"), "a")
    assert (file.suffix, file.compression) == (".jsonl", ".gz")
