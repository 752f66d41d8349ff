"""Every target: what it refuses, what it writes, and the adapter itself."""

from __future__ import annotations

import json

import pytest
import yaml
from peft import LoraConfig
from safetensors.numpy import load_file

from autolora import recipes, variants
from autolora.adapters.start import Start
from autolora.driver.result import ResultError
from autolora.recipes import RecipeError, write
from autolora.study.directory import NoStudyError
from autolora.variants import Variant
from tests.support.recipes import (
    NAMES,
    TRAINING,
    TUNED,
)


def test_an_unknown_target_is_refused_with_the_known_ones(make_run, tmp_path):
    with pytest.raises(RecipeError, match=r"'verl'.*peft, trl, axolotl, llamafactory"):
        write(make_run(), "lora", "verl", tmp_path / "out")


def test_a_variant_without_a_result_is_refused_with_those_that_have_one(make_run, tmp_path):
    with pytest.raises(RecipeError, match=f"'nolora'.*finished: {', '.join(NAMES)}"):
        write(make_run(), "nolora", "peft", tmp_path / "out")


def test_a_folder_that_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(NoStudyError):
        write(tmp_path, "lora", "peft", tmp_path / "out")


def test_an_unfinished_study_is_refused(make_run, tmp_path):
    folder = make_run()
    (folder / "best.json").unlink()
    with pytest.raises(ResultError):
        write(folder, "lora", "trl", tmp_path / "out")


@pytest.mark.parametrize("target", recipes.TARGETS)
def test_the_returned_paths_are_the_files_written(make_run, tmp_path, target):
    out = tmp_path / "deep" / "out"
    assert sorted(write(make_run(), "lora", target, out)) == sorted(out.iterdir())


@pytest.mark.parametrize("target", ["trl", "axolotl", "llamafactory"])
def test_a_variant_that_plain_peft_cannot_train_is_refused_by_name(make_run, tmp_path, monkeypatch, target):
    folder = make_run()
    private = Variant(name="lora", title="PrivateLoRA", paper="none")
    monkeypatch.setattr(variants, "get", lambda name: private)
    with pytest.raises(RecipeError, match=r"no option for PrivateLoRA.*--to peft"):
        write(folder, "lora", target, tmp_path / "out")
    assert write(folder, "lora", "peft", tmp_path / "out")


@pytest.mark.parametrize("name", NAMES)
def test_the_peft_options_of_a_variant_build_its_configuration(name):
    variant = variants.get(name)
    if variant.peft_options is None:
        pytest.skip("not for plain PEFT")
    config = LoraConfig(r=8, lora_alpha=16, **variant.peft_options)
    trained = variant.lora_config(Start(None, {}, rank=8, alpha=16.0), ["q_proj"])
    assert (config.use_dora, config.use_rslora) == (trained.use_dora, trained.use_rslora)


# --- peft ---


def test_peft_copies_the_adapter_of_the_run_directory(make_run, tmp_path):
    out = tmp_path / "out"
    write(make_run(), "pissa", "peft", out)
    assert json.loads((out / "adapter_config.json").read_text())["variant"] == "pissa"
    assert load_file(out / "adapter_model.safetensors")["of"].tobytes() == b"pissa"


def test_peft_adds_the_settings_and_a_readme(make_run, tmp_path):
    out = tmp_path / "out"
    write(make_run(), "dora", "peft", out)
    settings = yaml.safe_load((out / "autolora.yaml").read_text())
    assert settings["config"] == TUNED
    assert settings["training"]["max_length"] == TRAINING["max_length"]
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == "owner/model"
    assert "DoRA" in body
    assert "0.0003" in body


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rslora", "W + alpha / r B A with the r and alpha that are\nthere"),
        ("relora", "W + alpha / r B A with the r and alpha that are\nthere"),
        ("dora", "The load_adapter of a transformers model leaves DoRA's magnitudes out"),
        ("loha", "is how the trained\nadapter loads.\n"),
        ("loramoe", "loads with autolora, not with plain PEFT.\n"),
    ],
)
def test_the_readme_says_how_the_adapter_loads(make_run, tmp_path, name, says):
    write(make_run(), name, "peft", tmp_path / "out")
    assert says in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_in_a_format_of_its_own_is_copied_with_what_loads_it(make_run, tmp_path):
    out = tmp_path / "out"
    write(make_run(), "loramoe", "peft", out)
    assert json.loads((out / "autolora_adapter.json").read_text())["variant"] == "loramoe"
    assert not (out / "adapter_config.json").exists()
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "autolora"
    assert "model = load_adapter(base," in body
    assert "PeftModel" not in body


@pytest.mark.parametrize(("name", "message"), [("loramoe", r"autolora\.load_adapter"), ("pissa", "plain LoRA already")])
def test_no_plain_lora_is_made_of_what_is_one_or_is_near_none(make_run, tmp_path, name, message):
    with pytest.raises(RecipeError, match=message):
        recipes.write_lora(make_run(), name, tmp_path / "out")


def test_peft_without_the_adapter_files_says_what_is_missing(make_run, tmp_path):
    folder = make_run()
    (folder / "best" / "lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"no adapter_model\.safetensors"):
        write(folder, "lora", "peft", tmp_path / "out")
