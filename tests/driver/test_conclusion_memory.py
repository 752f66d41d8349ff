"""Memory that runs out when the search is over does not lose the study."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import autolora
from autolora import spec as specs
from autolora.driver.result import TuneResult
from autolora.recipes import RecipeError, write
from autolora.report.tables import result_table
from autolora.trainers.builtin import trainer as builtin
from autolora.trainers.builtin.trainer import BuiltinTrainer
from autolora.variants import Variant
from tests.support.specs import SMALL_SPEC

DATA = {"train": "builtin:quickstart/train.jsonl", "eval_size": 8, "test_size": 8}
TERMS = {**SMALL_SPEC, "variants": ["lora", "pissa"], "data": DATA, "budget": 1, "prior": None, "confirm": 0}


def cuda() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


ERRORS = pytest.mark.parametrize("error", [cuda, MemoryError], ids=["cuda", "machine"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> TuneResult:
    return autolora.tune(spec=specs.load(TERMS), dir=tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def folder(undisturbed, tmp_path) -> Path:
    """A copy of the study, before it was concluded."""
    folder = Path(shutil.copytree(undisturbed.folder, tmp_path / "run"))
    shutil.rmtree(folder / "best")
    (folder / "best.json").unlink()
    return folder


def failing_once(monkeypatch, owner, name, error):
    """The method fails when it is first called."""
    real, calls = getattr(owner, name), []

    def method(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise error()
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, method)


@ERRORS
def test_a_test_split_that_does_not_fit_is_a_note(folder, undisturbed, monkeypatch, error):
    def scores(*_):
        raise error()

    from autolora.trainers.builtin.evaluation import Evaluator

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "scores", scores)
        result = autolora.finish(folder)
    for name in ("lora", "pissa"):
        tuned = result[name]
        assert (tuned.test, tuned.value) == (None, undisturbed[name].value)
        assert Path(tuned.adapter_dir, "adapter_model.safetensors").is_file()
        assert "the test score is missing, as memory ran out (" in tuned.notes[0]
        assert f"autolora finish {folder}" in tuned.notes[0]
    assert json.loads((folder / "best.json").read_text())["variants"]["lora"]["notes"] == list(result["lora"].notes)
    again = autolora.finish(folder)
    assert {name: (tuned.test, tuned.notes) for name, tuned in again.items()} == {
        name: (tuned.test, ()) for name, tuned in undisturbed.items()
    }


@ERRORS
def test_an_adapter_that_cannot_be_exported_is_a_note(folder, undisturbed, monkeypatch, error, tmp_path):
    with monkeypatch.context() as patch:
        failing_once(patch, Variant, "export", error)
        result = autolora.finish(folder)
    assert [bool(tuned.adapter_dir) for tuned in result.values()] == [False, True]
    assert result["lora"].test == undisturbed["lora"].test
    assert "the adapter is missing, as memory ran out (" in result["lora"].notes[0]
    assert result["pissa"].notes == ()
    result_table(result)
    assert TuneResult.load(folder)["lora"].adapter_dir == ""
    with pytest.raises(RecipeError, match="memory ran out"):
        write(folder, "lora", "peft", tmp_path / "out")
    assert Path(autolora.finish(folder)["lora"].adapter_dir, "adapter_model.safetensors").is_file()


@ERRORS
def test_an_adapter_that_cannot_be_attached_leaves_the_base_as_it_was(folder, undisturbed, monkeypatch, error):
    """The first variant has neither test score nor adapter; the second has what it has otherwise."""
    real, calls = BuiltinTrainer.test, []

    def test(self, trial):
        calls.append(trial)
        if len(calls) == 1:
            with self.bench.trained(trial):
                raise error()
        return real(self, trial)

    monkeypatch.setattr(BuiltinTrainer, "test", test)
    failing_once(monkeypatch, builtin, "complete_export", error)
    result = autolora.finish(folder)
    [note] = result["lora"].notes
    assert note.startswith("the test score and the adapter are missing, as memory ran out")
    assert result["pissa"].test == undisturbed["pissa"].test


def test_other_errors_end_the_conclusion(folder, monkeypatch):
    failing_once(monkeypatch, BuiltinTrainer, "test", lambda: RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        autolora.finish(folder)
