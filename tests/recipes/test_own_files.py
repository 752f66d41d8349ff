"""The user's own configuration file with tuned values, of a study that trained through the tool that it is for."""

from __future__ import annotations

import pytest
import yaml

from autolora.recipes import RecipeError, write
from autolora.recipes.recipe import _kind
from tests.support.configured import FILES
from tests.support.recipes import TUNED


@pytest.fixture
def make_own_run(make_run, tmp_path):
    """A run directory as a study leaves it that was tuned with a file; ``make_own_run(kind, **spec)``."""

    def make(kind, text=None, trainer=None, **spec):
        path = tmp_path / "mine.yml"
        path.write_text(FILES[kind] if text is None else text)
        section = {kind: str(path), "devices": 1, "examples": None, "cwd": str(tmp_path), **(trainer or {})}
        return make_run(**{"trainer": section, "model": None, "storage": None, **spec})

    return make


@pytest.mark.parametrize("kind", FILES)
def test_the_file_keeps_what_was_not_tuned(make_own_run, tmp_path, kind):
    folder = make_own_run(kind, data=None)
    recorded = yaml.safe_load((folder / "spec.yaml").read_text())
    (folder / "spec.yaml").write_text(yaml.safe_dump({**recorded, "data": None}))
    [path] = write(folder, "dora", kind, tmp_path / "out")
    assert path == tmp_path / "out" / "mine.yml"
    before, after = yaml.safe_load(FILES[kind]), yaml.safe_load(path.read_text())
    rank, alpha = ("lora_r" if kind == "axolotl" else "lora_rank"), "lora_alpha"
    assert (after[rank], after[alpha], after["learning_rate"]) == (TUNED["rank"], 39, TUNED["learning_rate"])
    assert after["max_steps"] == 4  # 96 examples in batches of 24
    assert after["peft_use_dora" if kind == "axolotl" else "use_dora"] is True
    assert {**before, **after} == after
    text = path.read_text()
    assert "tuned by autolora: eval_loss 1.25" in text
    assert "lora_alpha is rounded from 39.2" in text
    assert "# what we run today" in text


def test_model_and_data_of_the_specification_are_in_it(make_own_run, tmp_path):
    written = write(make_own_run("llamafactory", model="other/model"), "lora", "llamafactory", tmp_path / "out")
    assert [path.name for path in written] == ["mine.yml", "dataset_info.json"]
    found = yaml.safe_load(written[0].read_text())
    assert (found["model_name_or_path"], found["dataset"]) == ("other/model", "train")


@pytest.mark.parametrize(("kind", "target"), [("axolotl", "llamafactory"), ("llamafactory", "trl")])
def test_a_recipe_for_another_trainer_is_refused(make_own_run, tmp_path, kind, target):
    with pytest.raises(RecipeError, match=f"--to {kind}, which writes your own file, or --to peft"):
        write(make_own_run(kind), "lora", target, tmp_path / "out")


def test_the_adapter_is_copied_and_says_which_trainer_it_is_of(make_own_run, tmp_path):
    out = tmp_path / "out"
    write(make_own_run("axolotl", model="owner/model"), "lora", "peft", out)
    settings = yaml.safe_load((out / "autolora.yaml").read_text())
    assert settings["trainer"]["axolotl"].endswith("mine.yml")
    assert "training" not in settings


def test_the_users_own_file_is_not_replaced(make_own_run, tmp_path):
    with pytest.raises(RecipeError, match="your own file, which is not replaced"):
        write(make_own_run("axolotl"), "lora", "axolotl", tmp_path)


def test_a_file_that_is_gone_is_named(make_own_run, tmp_path):
    folder = make_own_run("axolotl")
    (tmp_path / "mine.yml").unlink()
    with pytest.raises(RecipeError, match=r"no such file: .*mine\.yml"):
        write(folder, "lora", "axolotl", tmp_path / "out")


def test_what_a_command_left_in_place_of_an_adapter_is_named(make_run, tmp_path):
    folder = make_run(trainer={"command": "train", "cwd": str(tmp_path)}, model=None, storage=None)
    left = folder / "best" / "lora"
    for path in left.iterdir():
        path.unlink()
    (left / "state.npz").write_bytes(b"weights")
    for target in ("peft", "trl", "axolotl", "llamafactory"):
        with pytest.raises(RecipeError, match=rf"the command left no adapter .*; {left} is what it left") as raised:
            write(folder, "lora", target, tmp_path / "out")
        assert "--to peft" not in str(raised.value)
        assert "to its end again" not in str(raised.value)


@pytest.mark.parametrize(
    ("recorded", "kind"),
    [
        ({}, "builtin"),
        ({"trainer": "builtin"}, "builtin"),
        ({"trainer": "mine:make"}, "function"),
        ({"trainer": {"command": "x"}}, "command"),
        ({"trainer": {"launcher": "x", "axolotl": "y"}}, "axolotl"),
    ],
)
def test_the_kind_of_trainer_is_read_from_the_record(recorded, kind):
    assert _kind(recorded) == kind


@pytest.mark.parametrize("kind", FILES)
def test_fields_that_were_tuned_are_in_it(make_own_run, tmp_path, kind):
    folder = make_own_run(kind, tuned={"fields": {"adam_beta2": 0.95}})
    assert yaml.safe_load(write(folder, "lora", kind, tmp_path / "out")[0].read_text())["adam_beta2"] == 0.95
