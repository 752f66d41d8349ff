"""Errors name the layer or setting and what would be right; the registry imports without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from autolora.variants import VariantError, get, names
from autolora.variants.attachment import adapter_state, attachment
from autolora.variants.base import Variant, register


def test_rank_above_a_layer_s_size_names_layer_and_limit(build):
    with pytest.raises(VariantError, match=r"rank 64 .*'model.layers.0.self_attn.k_proj'.*\(16 x 32\): use 1 to 16"):
        get("lora").attach(build(), rank=64, alpha=64)


@pytest.mark.parametrize("rank", [0, -1])
def test_rank_below_one(build, rank):
    with pytest.raises(VariantError, match="use 1 to 16"):
        get("lora").attach(build(), rank=rank, alpha=8)


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan")])
def test_alpha_must_be_positive(build, alpha):
    with pytest.raises(VariantError, match="alpha must be above 0"):
        get("lora").attach(build(), rank=4, alpha=alpha)


def test_largest_rank_fits(build):
    for name in names():
        if not get(name).needs:
            rank = 8 if name == "melora" else 16  # in each of its two blocks
            get(name).attach(build(), rank=rank, alpha=rank)


def test_model_without_linear_layers():
    with pytest.raises(VariantError, match="Sequential has no linear layer"):
        get("lora").attach(nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(4)), rank=2, alpha=2)


def test_attaching_twice(build):
    model = get("lora").attach(build(), rank=4, alpha=4)
    with pytest.raises(VariantError, match="carries an adapter already"):
        get("lora").attach(model.get_base_model(), rank=4, alpha=4)


def test_model_that_no_variant_attached(build):
    with pytest.raises(VariantError, match="not attached by a variant"):
        adapter_state(build())


def test_unknown_name_suggests_a_close_one():
    with pytest.raises(VariantError, match="did you mean 'pissa'"):
        get("pisa")


def test_name_taken():
    with pytest.raises(ValueError, match="registered already"):
        register(Variant(name="lora", title="LoRA", paper="arXiv 2106.09685"))


def test_a_quantised_weight_cannot_be_subtracted_from(build):
    base = build()
    layer = base.get_submodule("model.layers.1.mlp.up_proj")
    layer.weight = nn.Parameter(torch.zeros(layer.weight.shape, dtype=torch.int8), requires_grad=False)
    with pytest.raises(VariantError, match=r"quantised to torch\.int8"):
        get("pissa").attach(base, rank=4, alpha=4)


def test_a_failing_start_leaves_the_base_clean(build, fingerprint):
    class Failing(Variant):
        def initialise(self, model, seed, batches, horizon):
            assert attachment(model).layers
            raise VariantError("no")

    base = build()
    before, attributes = fingerprint(base), set(vars(base))
    with pytest.raises(VariantError, match="no"):
        Failing(name="failing", title="-", paper="-").attach(base, rank=4, alpha=4)
    assert fingerprint(base) == before
    assert set(vars(base)) == attributes
    assert all(parameter.requires_grad for parameter in base.parameters())


def test_registry_imports_neither_torch_nor_peft():
    code = "import sys, autolora.variants as v; v.names(); print([m for m in ('torch', 'peft') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
