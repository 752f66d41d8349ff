"""A run directory is continued by its record alone, from any folder."""

from __future__ import annotations

import shutil
import sys
import textwrap

import pytest
import yaml

import autolora
from autolora import files, quickstart
from autolora import spec as specs
from autolora.driver.directory import record, run_directory
from autolora.driver.records import FORMER, RecordError, recorded_to_spec
from autolora.spec import SpecError
from autolora.study.directory import SPEC_FILE, NoStudyError
from tests.support.specs import SMALL_SPEC, small_spec

SPACES = [
    {"learning_rate": "auto"},
    {"learning_rate": {"choices": [1e-4, 1e-3]}},
    {"learning_rate": [1e-4, 1e-3], "rank": [4, 8], "dropout": [0, 0.1], "warmup_ratio": {"low": 0.0, "high": 0.1}},
    {"alpha": {"low": 4, "high": 64}, "batch_size": [8, 16], "options": {"lora_plus.ratio": 16}},
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """``elsewhere()``: go on in another folder."""

    def go():
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")

    return go


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory with a model and data in it."""
    folder = tmp_path / "home"
    (folder / "rows" / "more").mkdir(parents=True)
    monkeypatch.chdir(folder)
    shutil.copytree(quickstart.resolve("builtin:quickstart"), "model")
    for name in ("train.jsonl", "test.jsonl"):
        shutil.copy(quickstart.resolve(f"builtin:quickstart/{name}"), name)
    shutil.copy("train.jsonl", "rows/part1.jsonl")
    return folder


def save(folder, spec):
    folder.mkdir(exist_ok=True)
    specs.save(spec, folder / SPEC_FILE)
    return folder


@pytest.mark.parametrize("space", SPACES)
def test_a_record_is_the_specification_again(tmp_path, space):
    spec = small_spec(
        space=space,
        variants=["lora", "lora_plus"],
        prior="laws",
        baseline={"learning_rate": 1e-3, "rank": 4, "alpha": 4},
    )
    assert recorded_to_spec(save(tmp_path, spec)) == spec


def test_what_earlier_versions_did_not_record_is_as_it_was_then(tmp_path):
    record = specs.dump(small_spec())
    for key in FORMER:
        section, _, name = key.partition(".")
        del record[section][name]
    files.write(tmp_path / SPEC_FILE, yaml.safe_dump(record))
    found = specs.dump(recorded_to_spec(tmp_path))
    assert {key: found[key.partition(".")[0]][key.partition(".")[2]] for key in FORMER} == FORMER


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"train": "train.jsonl", "eval": "./test.jsonl"}, {"train": "train.jsonl", "eval": "test.jsonl"}),
        ({"train": ["train.jsonl", "rows/../rows/part1.jsonl"]}, {"train": ["train.jsonl", "rows/part1.jsonl"]}),
        ({"train": "rows/*.jsonl", "test": "rows/more/../part?.jsonl"}, {"train": "rows/*.jsonl"}),
        ({"train": "../home/rows/**/*.jsonl"}, {"train": "rows/**/*.jsonl"}),
        ({"train": "rows"}, {"train": "rows"}),
    ],
)
def test_what_is_here_is_recorded_by_its_whole_path(home, elsewhere, given, found):
    spec = specs.load(model="model", data=given, prior={"study": "earlier"}, checkpoints="kept")
    for key, value in found.items():
        whole = [str(home / each) for each in value] if isinstance(value, list) else str(home / value)
        assert getattr(spec.data, key) == whole
    assert (spec.model, spec.prior.study) == (str(home / "model"), str(home / "earlier"))
    assert spec.checkpoints == str(home / "kept")
    save(home / "run", spec)
    elsewhere()
    assert recorded_to_spec(home / "run") == spec


@pytest.mark.parametrize("name", ["owner/name", "owner/name:train[:10]", "builtin:quickstart/train.jsonl", "name"])
def test_what_is_not_here_is_recorded_as_it_is_named(home, name):
    spec = specs.load(model="owner/model", data={"train": name, "eval": "validation"})
    assert (spec.model, spec.data.train, spec.data.eval) == ("owner/model", name, "validation")


def test_a_pattern_in_a_folder_with_signs_of_patterns_stays_a_pattern(tmp_path, monkeypatch, elsewhere):
    folder = tmp_path / "a[1]?*"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shutil.copy(quickstart.resolve("builtin:quickstart/train.jsonl"), "train.jsonl")
    patterned, single = specs.load(model="m", data="*.jsonl"), specs.load(model="m", data="train.jsonl")
    whole = specs.load(model="m", data=".")
    elsewhere()
    from autolora.tasks.data.names import files_of

    assert [file.path for file in files_of(patterned.data.train)] == [folder / "train.jsonl"]
    assert [file.path for file in files_of(single.data.train)] == [folder / "train.jsonl"]
    assert (files_of(whole.data.train), whole.data.train) == ([], str(folder))


def test_a_link_is_not_shortened_to_another_place(home):
    (home / "deep" / "er").mkdir(parents=True)
    (home / "link").symlink_to(home / "deep" / "er")
    shutil.move("model", home / "deep" / "model")
    assert specs.load(model="link/../model", data="d").model == str(home / "link" / ".." / "model")


def test_a_directory_recorded_with_relative_paths_is_continued_from_the_same_folder(home, elsewhere):
    given = {"model": "./model", "data": {"train": ["train.jsonl"], "eval": "test.jsonl"}, "prior": {"study": "old"}}
    recorded = specs.dump(specs.load(given)) | {"model": given["model"]}
    recorded["data"] |= given["data"]
    recorded["prior"] |= given["prior"]
    (home / "run").mkdir()
    files.write(home / "run" / SPEC_FILE, yaml.safe_dump(recorded))
    (home / "run" / "study.db").touch()
    assert recorded_to_spec(home / "run") == specs.load(given)
    with run_directory(home / "run", specs.load(given)) as spec:
        record(home / "run", spec)
    elsewhere()
    assert recorded_to_spec(home / "run").model == str(home / "model")


def test_a_model_that_has_gone_is_named(home):
    save(home / "run", specs.load(model="./model", data="train.jsonl"))
    shutil.rmtree("model")
    with pytest.raises(SpecError, match=f"no such model directory: {home}/model"):
        recorded_to_spec(home / "run")


def test_a_folder_without_a_record_is_said(tmp_path):
    with pytest.raises(NoStudyError, match="not a run directory"):
        recorded_to_spec(tmp_path)


def test_objects_cannot_be_restored(tmp_path, base):
    import datasets

    rows = datasets.Dataset.from_list([{"text": "a"}] * 4)
    save(tmp_path, specs.load(model=base.model, data={"train": rows, "test": rows}))
    with pytest.raises(RecordError, match=r"model \(model .*\) and data.train \(dataset \w+\) and .* Give them again"):
        recorded_to_spec(tmp_path)


OWN = """
    from autolora.variants import get

    def half(model, tokenizer, rows):
        return [0.5 for _ in rows]

    MINE = get("lora").__class__(name="{name}", title="Mine", paper="none", cost=1.0, traits=get("lora").traits)
"""


@pytest.mark.parametrize("module", ["own_{}", "own_{}.parts.inner"])
def test_modules_of_the_user_are_found_from_any_folder(home, elsewhere, monkeypatch, module):
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = module.format("deep" if "." in module else "flat")
    file = home.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    name = module.replace(".", "_")
    file.write_text(textwrap.dedent(OWN.format(name=name)), encoding="utf-8")
    settings = {
        **SMALL_SPEC,
        "variants": [f"{module}:MINE"],
        "metric": {"name": f"{module}:half", "direction": "minimize"},
    }
    autolora.tune(spec=settings, dir="run", budget=1, prior=None)
    recorded = yaml.safe_load((home / "run" / SPEC_FILE).read_text(encoding="utf-8"))
    assert recorded["imported_from"] == [str(home)]
    for each in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[each]
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(home)])
    elsewhere()
    spec = recorded_to_spec(home / "run")
    result = autolora.tune(spec=spec, dir=home / "run", budget=2)
    assert result[name].value == 0.5
    again = yaml.safe_load((home / "run" / SPEC_FILE).read_text(encoding="utf-8"))
    assert again["imported_from"] == [str(home)]


def test_a_study_without_modules_of_the_user_records_no_folder(tmp_path):
    assert "imported_from" not in yaml.safe_load((save(tmp_path, small_spec()) / SPEC_FILE).read_text(encoding="utf-8"))
