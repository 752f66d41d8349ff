"""Lines of a file: each once, whoever writes the file, however, and in which pieces."""

from __future__ import annotations

import os
import random
import re
import tracemalloc

import pytest

from autolora.trainers.command import lines as module
from autolora.trainers.command.lines import Lines


def texts(lines: Lines, ended: bool = False) -> list[str]:
    return [line for _, line, _ in lines.new(ended)]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_any_size_give_the_lines_of_the_whole(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(module, "CHUNK", 7)
    drawn = random.Random(seed)
    path, content = tmp_path / "file", b"".join(drawn.choices([b"a", b"bc", b"\n", b"\r\n", b"\r"], k=60))
    lines, found, rest = Lines(path), [], content
    while rest:
        size = drawn.randint(1, 5)
        with path.open("ab") as file:
            file.write(rest[:size])
        rest = rest[size:]
        found += texts(lines)
    found += texts(lines, ended=True)
    expected = [each.decode()[-7:] for each in re.split(rb"\r\n|\n|\r", content)]
    assert [each[-6:] for each in found] == [each[-6:] for each in (expected if expected[-1] else expected[:-1])]
    assert texts(lines, ended=True) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"a": 1}\n', '{"a": 2}\n'),  # as long
        ('{"a": 1}\n', '{"a": 2}\n{"a": 3}\n'),  # longer
        ('{"a": 1}\n{"a": 2}\n', '{"a": 3}\n'),  # shorter
        ('{"a": 1}\n{"b": 2}\n', '{"a": 3}\n{"b": 2}\n{"b": 3}\n'),  # different at the beginning alone
        ("x" * 20_000 + "\n", "y" + "x" * 20_000 + "\n"),
        ('{"a": 1', '{"b": 11}\n'),  # in the middle of a line
    ],
)
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_written_again_is_read_again(tmp_path, first, second, replaced):
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text(first)
    lines = Lines(path)
    texts(lines)
    (other if replaced else path).write_text(second)
    if replaced:
        os.replace(other, path)
    found = list(lines.new())
    assert [line for _, line, _ in found] == second.splitlines()
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))


def test_a_file_that_is_replaced_by_itself_and_more_is_read_on(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("a\n")
    lines = Lines(path)
    assert texts(lines) == ["a"]
    other.write_text("a\nb\n")
    os.replace(other, path)
    assert texts(lines) == ["b"]


def test_a_line_without_end_is_neither_kept_nor_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1 << 12)
    path = tmp_path / "file"
    lines = Lines(path)
    tracemalloc.start()
    for _ in range(50):
        with path.open("ab") as file:
            file.write(b"." * (1 << 16))
        assert texts(lines) == []
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 19
    assert lines.offset == 50 << 16
    with path.open("ab") as file:
        file.write(b"accuracy: 0.5\n")
    assert texts(lines)[0].endswith(".accuracy: 0.5")
