"""Adapters on experts that are one parameter."""

from __future__ import annotations

import json
import math

import pytest
import torch
from peft import PeftModel

from autolora.adapters.attachment import attachment
from autolora.adapters.export import CONFIG, WEIGHTS
from autolora.adapters.layer import stacked, unstacked
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.start import Allotment
from autolora.adapters.state import adapter_state, load_adapter_state
from autolora.api import load_adapter
from autolora.variants import VariantError, detach, get

EXPERTS = ["mixtral", "gpt_oss", "jetmoe", "deepseek_v3"]
UP, DOWN = "model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"


@pytest.fixture
def trained(build, train):
    """``trained(family) -> model`` with LoRA after a few steps."""

    def run(family, variant="lora", **settings):
        model = get(variant).attach(build(family), rank=4, alpha=8, **settings)
        train(model, get(variant).optimizer(model, 1e-2), 4)
        return model

    return run


@pytest.mark.parametrize("family", EXPERTS)
def test_it_starts_at_the_base_and_every_expert_learns(family, build, train, logits, difference, tokens):
    base = build(family)
    expected = logits(base)
    model = get("lora").attach(base, rank=4, alpha=8)
    assert difference(logits(model), expected) < 1e-6
    losses = train(model, get("lora").optimizer(model, 1e-2), 6)
    assert losses[-1] < losses[0] - 0.1
    layers = [layer for layer in attachment(model).layers.values() if layer.experts]
    assert layers
    for layer in layers:
        _, b = stacked(layer.a.detach(), layer.b.detach(), layer.experts)
        assert (b.abs().amax(dim=(1, 2)) > 0).all()


def test_the_factors_of_an_expert_are_its_own_and_its_update_has_their_rank(trained):
    layer = attachment(trained("mixtral")).layers[UP]
    a, b = stacked(layer.a.detach(), layer.b.detach(), layer.experts)
    assert (a.shape, b.shape) == ((4, 4, 32), (4, 96, 4))
    update = layer.module.get_delta_weight(layer.adapter)
    assert torch.allclose(update, layer.scaling * b @ a, atol=1e-6)
    assert [int(torch.linalg.matrix_rank(each, rtol=1e-4)) for each in update] == [4] * 4


def test_stacking_has_a_way_back():
    a, b = torch.randn(3 * 2, 5), torch.randn(7, 2 * 3)
    back = unstacked(*stacked(a, b, 3))
    assert torch.equal(back[0], a)
    assert torch.equal(back[1], b)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_a_starts_in_the_bound_of_its_own_inputs(family, build):
    for layer in attachment(get("lora").attach(build(family), rank=8, alpha=8)).layers.values():
        bound = layer.in_features**-0.5
        assert 0.9 * bound < layer.a.abs().max() <= bound
        assert not layer.b.any()


@pytest.mark.parametrize("family", EXPERTS)
def test_plain_peft_and_load_adapter_have_the_trained_model_s_outputs(
    family, trained, build, logits, difference, tmp_path
):
    model = trained(family)
    expected = logits(model)
    get("lora").export(model, tmp_path / "adapter")
    assert difference(logits(PeftModel.from_pretrained(build(family), tmp_path / "adapter")), expected) < 1e-5
    assert difference(logits(load_adapter(build(family), tmp_path / "adapter")), expected) < 1e-5


def test_ranks_and_scales_that_differ_are_padded_expert_by_expert(build, train, logits, difference, tmp_path):
    ranks = {"model.layers.0.self_attn.q_proj": Allotment(2, 8.0), UP: Allotment(3, 12.0), DOWN: Allotment(5, 10.0)}
    model = get("lora").attach(build("mixtral"), rank=4, alpha=8, allotted=ranks)
    train(model, get("lora").optimizer(model, 1e-2), 4)
    expected = logits(model)
    get("lora").export(model, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / CONFIG).read_text())["r"] == 5
    assert difference(logits(PeftModel.from_pretrained(build("mixtral"), tmp_path / "adapter")), expected) < 1e-5


def test_an_adapter_attached_to_a_used_base_has_the_same_names(trained, build, logits, difference, tmp_path):
    """PEFT's forward pass moves a parameter to the end of its module, by whose order it nests its wrappers."""
    base = detach(trained("mixtral"))
    assert list(dict(base.named_parameters())) == list(dict(build("mixtral").named_parameters()))
    again = get("lora").attach(base, rank=4, alpha=8, seed=1)
    again.get_base_model()(torch.ones(1, 4, dtype=torch.long))
    get("lora").export(again, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(build("mixtral"), tmp_path / "adapter")
    assert difference(logits(loaded), logits(again)) < 1e-5


@pytest.mark.parametrize("family", EXPERTS)
def test_detaching_restores_every_bit(family, trained, build, fingerprint):
    model = trained(family)
    assert fingerprint(detach(model)) == fingerprint(build(family))


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_a_state_that_is_loaded_computes_the_same_bits(family, trained, build, logits):
    model = trained(family)
    state = adapter_state(model)
    other = get("lora").attach(build(family), rank=4, alpha=8, seed=7)
    load_adapter_state(other, state)
    assert torch.equal(logits(other), logits(model))


def test_layerwise_alpha_goes_by_the_inputs_of_an_expert(build):
    layers = attachment(get("lora_alpha").attach(build("mixtral"), rank=4, alpha=8)).layers
    assert layers[UP].scaling == pytest.approx(2.0)
    assert layers[DOWN].scaling == pytest.approx(2.0 * math.sqrt(48 / 32))


def test_dropout_is_refused_with_what_to_do(build):
    with pytest.raises(VariantError, match=r"dropout 0\.1 does not go with experts.*target_parameters: null"):
        get("lora").attach(build("mixtral"), rank=4, alpha=8, dropout=0.1)
    without = AdapterSpec(target_parameters=())
    assert attachment(get("lora").attach(build("mixtral"), rank=4, alpha=8, dropout=0.1, adapter=without)).layers


class TestDenseLayersBesideExperts:
    """PEFT takes their names for the experts' (peft#3009)."""

    @pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe"])
    def test_each_is_adapted_as_it_is_named(self, family, build):
        without = AdapterSpec(target_parameters=())
        model = get("lora").attach(build(family), rank=4, alpha=8, dropout=0.1, adapter=without)
        layers = attachment(model).layers
        assert {"model.layers.0.mlp.gate_proj", "model.layers.1.mlp.shared_experts.gate_proj"} <= layers.keys()
        assert not any(layer.experts for layer in layers.values())
        assert not any("parameter_name" in vars(module) for module in model.modules())

    def test_a_part_of_what_was_fused_can_be_adapted_alone(self, build, train, logits, difference, tmp_path):
        few = AdapterSpec(target_modules=("gate_proj", "q_b_proj"))
        model = get("lora").attach(build("deepseek_v3"), rank=4, alpha=8, adapter=few)
        train(model, get("lora").optimizer(model, 1e-2), 3)
        get("lora").export(model, tmp_path / "adapter")
        loaded = PeftModel.from_pretrained(build("deepseek_v3"), tmp_path / "adapter")
        assert difference(logits(loaded), logits(model)) < 1e-5

    def test_their_weights_are_named_in_what_is_exported(self, trained, tmp_path):
        get("lora").export(trained("deepseek_v3"), tmp_path / "adapter")
        config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
        assert "model.layers.0.mlp.gate_proj.weight" in config["target_parameters"]
        assert "model.layers.0.self_attn.o_proj" in config["target_modules"]
        assert (tmp_path / "adapter" / WEIGHTS).is_file()

    def test_a_format_of_peft_s_that_cannot_name_them_is_refused(self, build):
        without = AdapterSpec(target_parameters=())
        with pytest.raises(VariantError, match=r"dora .*gate_proj.*exclude_modules: \[gate_proj, up_proj, down_proj\]"):
            get("dora").attach(build("deepseek_v3"), rank=4, alpha=8, adapter=without)
