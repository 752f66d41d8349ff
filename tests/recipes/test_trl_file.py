"""TRL's own configuration file with tuned values."""

from __future__ import annotations

import pytest
import yaml

from autolora.recipes import RecipeError, write
from tests.support.recipes import TUNED

pytest.importorskip("trl")

FILE = {"learning_rate": 3.0e-4, "per_device_train_batch_size": 8, "lora_r": 6, "max_length": 99}


@pytest.fixture
def make_own_run(make_run, tmp_path):
    """A run directory as a study leaves it that was tuned with TRL's file; ``make_own_run(kind, **spec)``."""

    def make(kind="sft", **spec):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**FILE, "model_name_or_path": "some/model"}))
        folder = make_run(**{"trainer": {"trl": kind, "config": str(path)}, "model": None, "storage": None, **spec})
        recorded = yaml.safe_load((folder / "spec.yaml").read_text())
        kept = {key: spec.get(key) for key in ("model", "data")}
        (folder / "spec.yaml").write_text(yaml.safe_dump({**recorded, **kept}))
        return folder

    return make


def test_it_keeps_what_was_not_tuned_and_is_read_by_trl(make_own_run, tmp_path):
    from autolora.trainers.trl.configuration import Configuration

    [path] = write(make_own_run(), "dora", "trl", tmp_path / "out")
    assert path == tmp_path / "out" / "mine.yaml"
    parsed = Configuration("sft", str(path), on_cpu=True).as_written
    assert parsed.unknown == ()
    assert (parsed.model.lora_r, parsed.training.learning_rate) == (TUNED["rank"], TUNED["learning_rate"])
    assert (parsed.model.use_peft, parsed.model.use_dora, parsed.training.max_length) == (True, True, 99)
    assert parsed.batch_size == TUNED["batch_size"]
    assert parsed.model.model_name_or_path == "some/model"
    assert "Train with: trl sft --config" in path.read_text()


def test_the_model_of_the_specification_takes_the_place_of_the_file_s(make_own_run, tmp_path):
    [path] = write(make_own_run("dpo", model="other/model"), "lora", "trl", tmp_path / "out")
    assert yaml.safe_load(path.read_text())["model_name_or_path"] == "other/model"


@pytest.mark.parametrize("variant", ["pissa", "milora"])
def test_a_variant_that_trl_s_files_cannot_name_is_refused(make_own_run, tmp_path, variant):
    with pytest.raises(RecipeError, match="TRL has no option for"):
        write(make_own_run(), variant, "trl", tmp_path / "out")


def test_the_user_s_own_file_is_not_replaced(make_own_run, tmp_path):
    folder = make_own_run()
    with pytest.raises(RecipeError, match="your own file, which is not replaced"):
        write(folder, "lora", "trl", tmp_path)


def test_fields_that_were_tuned_are_in_it(make_own_run, tmp_path):
    folder = make_own_run(tuned={"fields": {"adam_beta2": 0.95, "lora_target_modules": ["q_proj", "v_proj"]}})
    found = yaml.safe_load(write(folder, "lora", "trl", tmp_path / "out")[0].read_text())
    assert (found["adam_beta2"], found["lora_target_modules"]) == (0.95, ["q_proj", "v_proj"])
