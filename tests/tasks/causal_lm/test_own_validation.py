"""Data sets that have a validation split of their own."""

import json

import datasets
import pytest

from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.spec import EVAL_MOST, DataSpec

NOTE = "eval: the data set's own validation split"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


@pytest.fixture
def load(tokenizer):
    def load(train, **options):
        spec = DataSpec(train=train, **options)
        return prepare(spec, tokenizer, max_length=50, examples=None, seed=0, cache_dir=None)

    return load


@pytest.fixture
def splits(numbered):
    return datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_list(numbered(20)),
            "validation": datasets.Dataset.from_list(numbered(5, start=100)),
            "test": datasets.Dataset.from_list(numbered(4, start=200)),
        }
    )


@pytest.fixture
def folder(splits, tmp_path):
    for name, rows in splits.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(tmp_path)


def check(data, rows=5):
    assert (len(data.train), len(data.eval), data.test) == (20, rows, None)
    assert data.eval.rows[0]["prompt"] == "p100\n"
    assert any(line.startswith(NOTE) for line in data.report.lines())


def test_that_of_a_dataset_dict_is_used_and_said(load, splits):
    data = load(splits)
    check(data)
    assert "data.eval (split 'validation')" in data.report.lines()[1]


def test_that_of_a_directory_is_used_and_said(load, folder):
    data = load(folder)
    check(data)
    assert f"{folder}:validation" in data.report.lines()[1]


def test_that_of_a_hub_data_set_is_used_and_said(load, splits, monkeypatch):
    calls = []

    def load_dataset(path, name=None, split=None):
        calls.append((path, name, split))
        return splits

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load("owner/set", name="main")
    check(data)
    assert "owner/set:validation" in data.report.lines()[1]
    assert calls == [("owner/set", "main", None)]  # loaded once


def test_eval_size_takes_some_of_its_rows(load, splits):
    check(load(splits, eval_size=3), rows=3)


def test_of_a_long_one_as_many_rows_are_taken_as_would_be_held_out(load, splits, numbered):
    splits["validation"] = datasets.Dataset.from_list(numbered(EVAL_MOST + 100, start=100))
    data = load(splits)
    check(data, rows=EVAL_MOST)
    assert "100 not needed" in data.report.lines()[1]


def test_null_holds_out_training_rows_as_before(load, splits):
    data = load(splits, eval=None)
    assert (len(data.train), len(data.eval)) == (18, 2)
    assert not any(line.startswith(NOTE) for line in data.report.lines())


def test_a_training_split_that_is_named_stands_alone(load, splits, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name=None, split=None: splits[split])
    assert len(load("owner/set:train").eval) == 2


@pytest.mark.parametrize("name", ["valid", "dev"])
def test_other_names_of_it_are_known(load, splits, name):
    splits[name] = splits.pop("validation")
    check(load(splits))


def test_a_test_split_is_not_taken_for_it(load, splits):
    del splits["validation"]
    assert len(load(splits).eval) == 2


def test_the_fingerprint_differs_only_where_the_split_is_used(load, splits, write, numbered):
    assert load(splits).fingerprint != load(splits, eval=None).fingerprint
    file = write("train.jsonl", numbered(20))
    assert load(file).fingerprint == load(file, eval=None).fingerprint
