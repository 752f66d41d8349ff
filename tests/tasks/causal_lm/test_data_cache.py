"""Tokenized once, found again, and rebuilt where the file is damaged."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from autolora.tasks.causal_lm import cache, preparation
from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError


class Counting:
    """Passes everything on to a tokenizer and counts the calls."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.tokenizer(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@pytest.fixture
def tokenizer(tokenizer):
    return Counting(tokenizer)


@pytest.fixture
def spec(write, numbered):
    return DataSpec(train=write("train.jsonl", [*numbered(30), {"prompt": "x" * 90, "completion": "y"}]), test_size=4)


@pytest.fixture
def run(spec, tokenizer, tmp_path):
    def run(**options):
        options = {"max_length": 50, "examples": None, "seed": 0, "cache_dir": tmp_path / "cache"} | options
        return prepare(spec, tokenizer, **options)

    return run


def _arrays(data):
    return [a.tolist() for s in data.splits.values() for a in (s.tokens, s.offsets, s.targets)]


def test_a_second_run_does_not_tokenize(run, tokenizer):
    run()
    before = tokenizer.calls
    run()
    assert tokenizer.calls == before


def test_the_cached_arrays_are_the_same(run):
    assert _arrays(run()) == _arrays(run())


def test_the_cached_types_are_the_same(run):
    run()
    split = run().train
    assert [a.dtype for a in (split.tokens, split.offsets, split.targets)] == [np.int32, np.int64, bool]


def test_the_cached_report_and_rows_are_the_same(run):
    first, second = run(), run()
    assert (first.report, first.eval.rows) == (second.report, second.eval.rows)


def test_other_options_are_tokenized_anew(run):
    assert run(max_length=50).fingerprint != run(max_length=40).fingerprint


def test_examples_are_checked_on_cached_data_too(run):
    run(examples=5)
    with pytest.raises(DataError, match="examples asks for"):
        run(examples=24)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: _flip(b)])
def test_a_damaged_cache_is_rebuilt(run, tmp_path, damage):
    first = run()
    (path,) = (tmp_path / "cache").glob("*.npz")
    path.write_bytes(damage(path.read_bytes()))
    assert _arrays(run()) == _arrays(first)


def _flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def test_a_file_with_the_name_of_another_is_not_taken_for_it(run, tmp_path, caplog):
    first, other = run(), run(seed=1)
    paths = {path.name: path for path in (tmp_path / "cache").glob("*.npz")}
    mine, theirs = (next(paths[name] for name in paths if each.fingerprint[:20] in name) for each in (first, other))
    mine.write_bytes(theirs.read_bytes())
    assert _arrays(run()) == _arrays(first) != _arrays(other)
    assert str(mine) in caplog.text


def test_a_damaged_cache_is_reported(run, tmp_path, caplog):
    run()
    (path,) = (tmp_path / "cache").glob("*.npz")
    path.write_bytes(b"nonsense")
    with caplog.at_level(logging.WARNING):
        run()
    assert str(path) in caplog.text


def test_no_half_written_file_stays(run, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        run()
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_cache_does_not_depend_on_earlier_calls_of_the_tokenizer(run, tokenizer):
    first = run().fingerprint
    tokenizer.tokenizer("abc", truncation=True, max_length=2)
    assert run().fingerprint == first


def test_a_file_of_an_earlier_version_is_made_again_without_a_warning(run, tokenizer, tmp_path, caplog):
    """It has no places of rows in their tables; its fingerprint, by which a study is continued, is the same."""
    first = run()
    [path] = (tmp_path / "cache").glob("*.npz")
    with np.load(path) as stored:
        earlier = {name: stored[name] for name in stored if not name.endswith("_indices")}
    np.savez(path, **earlier)
    before = tokenizer.calls
    with caplog.at_level(logging.WARNING):
        again = run(whole_rows=True)
    assert tokenizer.calls > before
    assert not caplog.records
    assert (again.fingerprint, _arrays(again)) == (first.fingerprint, _arrays(first))
    assert all("prompt" in row.columns for row in again.eval.rows)


def test_sources_are_read_once_for_tokens_and_columns(run, spec, monkeypatch):
    from autolora.tasks.data.readers import reader

    reads = []
    genuine = reader._readers[".jsonl"]
    counting = replace(genuine, read=lambda file: reads.append(1) or genuine.read(file))
    monkeypatch.setitem(reader._readers, ".jsonl", counting)
    run(whole_rows=True)
    assert len(reads) == 1
    run(whole_rows=True)
    assert len(reads) == 2
    run()
    assert len(reads) == 2


TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.fixture
def chats(write, chat_tokenizer, tmp_path):
    rows = [{"messages": [*TALK, {"role": "user", "content": str(i)}, TALK[1]]} for i in range(9)]
    spec = DataSpec(train=write("chats.jsonl", rows))
    return lambda: prepare(spec, chat_tokenizer, max_length=90, examples=None, seed=0, cache_dir=tmp_path / "cache")


def test_conversations_are_found_again(chats, monkeypatch):
    first = chats()
    monkeypatch.delattr(preparation, "_build")
    assert _arrays(chats()) == _arrays(first)


def test_conversations_of_another_version_are_kept_and_it_is_said(chats, monkeypatch, tmp_path):
    ours = chats()
    monkeypatch.setattr(preparation, "_kept", lambda data: data)
    fingerprints = []
    monkeypatch.setattr(cache, "load", lambda folder, fingerprint: fingerprints.append(fingerprint))
    chats()
    monkeypatch.undo()
    cache.save(tmp_path / "cache", replace(ours, fingerprint=fingerprints[0]))
    kept = chats()
    assert kept.fingerprint == fingerprints[0] != ours.fingerprint
    assert "as an earlier version of autolora rendered them" in kept.report.lines()[-1]
    assert not any("earlier version" in line for line in ours.report.lines())


def test_what_was_counted_is_found_again(write, chat_tokenizer, tmp_path):
    rows = [{"messages": [*TALK, {"role": "user", "content": str(i)}, TALK[1]]} for i in range(9)]
    spec = DataSpec(train=write("chats.jsonl", [*rows, {"messages": TALK[:1]}]), eval_size=2)
    options = {"max_length": 90, "examples": None, "seed": 1, "cache_dir": tmp_path / "cache"}
    assert (
        prepare(spec, chat_tokenizer, **options).report.lines()
        == prepare(spec, chat_tokenizer, **options).report.lines()
    )
