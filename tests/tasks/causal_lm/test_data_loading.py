"""Files, Dataset objects, directories and the hub."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d\ne"}]
EXPECTED = [{"prompt": "a\n", "completion": "b"}, {"prompt": "c\n", "completion": "d\ne"}]


@pytest.fixture
def load(tokenizer, write, numbered):
    """Prepare with ``eval`` as the evaluation split, and return its rows."""

    def load(eval, **options):
        options.setdefault("train", write("train.jsonl", numbered(3)))
        spec = DataSpec(eval=eval, **options)
        return prepare(spec, tokenizer, max_length=50, examples=None, seed=0, cache_dir=None).eval.rows

    return load


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e.jsonl", '{"prompt": "a", "completion": "b"}\n\n{"prompt": "c", "completion": "d\\ne"}'),
        ("e.json", json.dumps(ROWS)),
        ("e.json", json.dumps({"data": ROWS})),
        ("e.json", "\n".join(map(json.dumps, ROWS))),
        ("e.csv", 'prompt,completion\na,b\nc,"d\ne"\n'),
        ("e.csv", '\ufeffprompt,completion\r\na,b\r\nc,"d\ne"\r\n'),
    ],
    ids=["jsonl", "json list", "json data", "json lines", "csv", "csv of a spreadsheet"],
)
def test_text_files_give_the_same_rows(load, tmp_path, name, text):
    (tmp_path / name).write_text(text, newline="")
    assert load(str(tmp_path / name)) == EXPECTED


def test_parquet_gives_the_same_rows(load, tmp_path):
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "e.parquet")
    assert load(str(tmp_path / "e.parquet")) == EXPECTED


def test_a_dataset_gives_the_same_rows(load):
    assert load(datasets.Dataset.from_list(ROWS)) == EXPECTED


def test_a_dataset_dict_gives_the_split_that_suits(load):
    splits = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS[:1]), "test": datasets.Dataset.from_list(ROWS)}
    )
    assert load(splits) == EXPECTED


def test_a_directory_gives_its_splits_by_name(load, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, rows in {"train": [{"prompt": "x", "completion": "y"}], "test": ROWS}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load("test", train=str(folder)) == EXPECTED


def test_a_saved_dataset_is_read_back(load, tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    assert load(str(tmp_path / "saved")) == EXPECTED


def test_a_hub_id_carries_configuration_and_split(load, monkeypatch):
    called = {}

    def load_dataset(path, name=None, split=None):
        called.update(path=path, name=name, split=split)
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load("owner/set:test[:5]", name="main")
    assert called == {"path": "owner/set", "name": "main", "split": "test[:5]"}


def test_an_unreachable_hub_says_what_to_do(load, monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'owner/set' on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"hub cannot be reached.*load_dataset\('owner/set'\).*HF_HOME.*HF_HUB_OFFLINE"):
        load("owner/set")


def test_a_data_set_that_does_not_exist_says_so(load, monkeypatch):
    def load_dataset(*args, **kwargs):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'owner/st' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match="there is no data set 'owner/st'"):
        load("owner/st")


def test_a_split_name_beside_a_file_is_an_error(load):
    with pytest.raises(DataError, match=r"data.eval: 'test' is not a file"):
        load("test")


def test_an_unknown_split_lists_the_splits(load):
    train = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    with pytest.raises(DataError, match="no split 'dev'; the splits are train"):
        load("dev", train=train)


def test_a_line_that_is_no_json_names_file_and_row(load, tmp_path):
    (tmp_path / "e.jsonl").write_text('{"prompt": "a", "completion": "b"}\n\n{"prompt": "a"\n')
    with pytest.raises(DataError, match=r"e.jsonl, row 3 is not JSON"):
        load(str(tmp_path / "e.jsonl"))


def test_blank_lines_count_as_rows_of_a_file(load, tmp_path):
    (tmp_path / "e.jsonl").write_text('{"prompt": "a", "completion": "b"}\n\n{"prompt": "a", "completion": 3}\n')
    with pytest.raises(DataError, match=r"e.jsonl, row 3, column 'completion' must be text"):
        load(str(tmp_path / "e.jsonl"))


def test_a_line_that_is_no_object_names_file_and_row(load, tmp_path):
    (tmp_path / "e.jsonl").write_text('{"prompt": "a", "completion": "b"}\n["a"]\n')
    with pytest.raises(DataError, match=r"e.jsonl, row 2 must be an object"):
        load(str(tmp_path / "e.jsonl"))


def test_json_without_rows_lists_its_keys(load, tmp_path):
    (tmp_path / "e.json").write_text(json.dumps({"rows": ROWS}, indent=1))
    with pytest.raises(DataError, match=r"e.json must hold a list of rows.*\['rows'\]"):
        load(str(tmp_path / "e.json"))


def test_csv_numbers_stay_text(load, tmp_path):
    (tmp_path / "e.csv").write_text("prompt,completion\na,007\n")
    assert load(str(tmp_path / "e.csv"))[0]["completion"] == "007"


def test_a_ragged_csv_row_names_file_and_row(load, tmp_path):
    (tmp_path / "e.csv").write_text("prompt,completion\na,b\na,b,c\n")
    with pytest.raises(DataError, match=r"e.csv is not valid CSV.*Row #3.*header is row 1"):
        load(str(tmp_path / "e.csv"))


def test_a_damaged_parquet_file_is_an_error(load, tmp_path):
    (tmp_path / "e.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"e.parquet cannot be read as Parquet"):
        load(str(tmp_path / "e.parquet"))


@pytest.mark.parametrize("name", ["e.jsonl", "e.csv"])
def test_an_empty_file_is_an_error(load, tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=f"{name} holds no rows"):
        load(str(tmp_path / name))


def test_an_unreadable_suffix_lists_the_readable_ones(load, tmp_path):
    (tmp_path / "e.docx").write_text("a")
    with pytest.raises(DataError, match=r"suffix that cannot be read; give a .*\.jsonl.* file.*\.gz.*a directory"):
        load(str(tmp_path / "e.docx"))


def test_another_object_is_an_error(load):
    with pytest.raises(DataError, match=r"data.eval is list"):
        load(ROWS)
