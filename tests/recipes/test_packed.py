"""Recipes of studies on a base in 4 or 8 bits pack it as the study did."""

from __future__ import annotations

import ast

import pytest

from autolora import variants
from autolora.recipes import RecipeError
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


def test_a_base_in_numbers_is_not_packed(make_run):
    run = make_run()
    assert "BitsAndBytes" not in trl(run)
    assert axolotl(run)["adapter"] == "lora"


@pytest.mark.parametrize("tool", [axolotl, llamafactory, trl])
def test_a_start_that_would_change_the_base_is_refused(run, bits, tool):
    assert variants.get("pissa").subtracts
    with pytest.raises(RecipeError, match=rf"has no PiSSA for a base in {bits} bits.*--to peft"):
        tool(run, "pissa")
