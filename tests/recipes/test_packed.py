"""Recipes of studies on a base in 4 or 8 bits pack it as the study did."""

from __future__ import annotations

import ast
import re

import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import BitsAndBytesConfig

from autolora import variants
from autolora.adapters.export import BASE_BITS
from autolora.bases.packed import packing
from autolora.recipes import RecipeError, write
from tests.support.recipes import axolotl, llamafactory, trl


@pytest.fixture(params=[4, 8])
def bits(request):
    return request.param


@pytest.fixture
def run(make_run, bits):
    return make_run(base={f"load_in_{bits}bit": True})


def test_axolotl(run, bits):
    written = axolotl(run)
    assert written[f"load_in_{bits}bit"] is True
    assert written["adapter"] == {4: "qlora", 8: "lora"}[bits]


def test_llamafactory(run, bits):
    settings, _ = llamafactory(run)
    assert settings["quantization_bit"] == bits


def test_trl_packs_the_base_and_keeps_adapters_in_float32(run, bits):
    script = trl(run)
    ast.parse(script)
    assert f"quantization_config=BitsAndBytesConfig(load_in_{bits}bit=True" in script
    assert ("bnb_4bit_compute_dtype=dtype" in script) == (bits == 4)
    assert "AutoTokenizer, BitsAndBytesConfig\n" in script
    assert script.index("parameter.data.float()") < script.index("trainer.train()")


def test_an_unquantized_base_stays_so(make_run):
    run = make_run()
    assert "BitsAndBytes" not in trl(run)
    assert axolotl(run)["adapter"] == "lora"


@pytest.mark.parametrize("tool", [axolotl, llamafactory, trl])
def test_a_start_that_would_change_the_base_is_refused(run, bits, tool):
    assert variants.get("pissa").subtracts
    with pytest.raises(RecipeError, match=rf"has no PiSSA for a base in {bits} bits.*--to peft"):
        tool(run, "pissa")


def test_the_readme_of_an_adapter_quantizes_the_base_as_autolora_does(run, bits, tmp_path):
    write(run, "lora", "peft", tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text()
    written = re.search(r"quantization_config=(BitsAndBytesConfig\(.*\))\)", readme)
    found = eval(written[1], {"BitsAndBytesConfig": BitsAndBytesConfig}).to_dict()
    assert found == {**packing(bits, torch.float32).to_dict(), "bnb_4bit_compute_dtype": "float32"}
    assert ("AVX-512" in readme) == (bits == 4)


def test_a_checkpoint_that_is_packed_already_is_known_by_the_adapter(make_run):
    run = make_run()
    for name in ("lora", "pissa"):
        file = run / "best" / name / "adapter_model.safetensors"
        save_file(load_file(file), file, metadata={"format": "pt", BASE_BITS: "4"})
    assert axolotl(run)["adapter"] == "qlora"
    assert "parameter.data.float()" in trl(run)
    assert "BitsAndBytes" not in trl(run)
    with pytest.raises(RecipeError, match="has no PiSSA for a base in 4 bits"):
        trl(run, "pissa")
