"""Models that load only in part are refused with the names of what is missing."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import GPT2Config, MixtralConfig, Qwen2Config, Qwen3Config

from autolora import bases
from tests.support.checkpoints import reconfigured, reweighted, saved, tiny
from tests.support.specs import small_spec

UP = "model.layers.1.mlp.up_proj.weight"


def load(folder):
    return bases.load(small_spec(model=str(folder)))


def refused(folder, message):
    with pytest.raises(bases.ModelError, match=message):
        load(folder)


@pytest.fixture
def llama(tmp_path):
    return saved(tmp_path / "llama", tiny())


def test_weights_that_are_missing_are_named_and_counted(llama):
    refused(
        reweighted(llama, lambda weights: weights.pop(UP)), rf"lacks 1 of the 21 weights of LlamaForCausalLM: {UP}\."
    )


def test_weights_that_were_saved_under_other_names_are_shown(llama):
    def wrapped(weights):
        for name in list(weights):
            weights[f"_orig_mod.{name}"] = weights.pop(name)

    refused(reweighted(llama, wrapped), r"lacks 21 of the 21 .*The checkpoint holds 21 others: _orig_mod\.lm_head")


def test_more_layers_in_the_configuration_than_weights(llama):
    refused(reconfigured(llama, num_hidden_layers=4), r"lacks 18 of the 39 weights.*model\.layers\.2.* and 15 more")


def test_fewer_layers_in_the_configuration_than_weights(llama):
    refused(reconfigured(llama, num_hidden_layers=1), r"holds 9 weights that its config\.json leaves out.*layers\.1\.")


def test_weights_of_another_shape(llama):
    refused(reconfigured(llama, vocab_size=300), r"lm_head\.weight is \(257, 32\), by config\.json \(300, 32\)")


def test_weights_under_a_configuration_of_another_type(llama):
    refused(reconfigured(llama, model_type="gpt2", architectures=["GPT2LMHeadModel"]), "lacks 28 of the 29 weights")


@pytest.mark.parametrize(("config", "name"), [(Qwen2Config, r"k_proj\.bias"), (Qwen3Config, r"k_norm\.weight")])
def test_weights_inside_a_layer_that_the_configuration_knows_nothing_of(tmp_path, config, name):
    folder = saved(tmp_path, tiny(config))
    refused(reconfigured(folder, model_type="llama", architectures=["LlamaForCausalLM"]), rf"leaves out .*{name}")


def test_fewer_experts_in_the_configuration_than_weights(tmp_path):
    folder = saved(tmp_path, tiny(MixtralConfig, num_local_experts=4))
    refused(reconfigured(folder, num_local_experts=2), r"experts\.down_proj is \(4, .*by config\.json \(2, ")


def test_a_head_that_was_never_saved(llama):
    refused(reweighted(llama, lambda weights: weights.pop("lm_head.weight")), r"lacks 1 .*: lm_head\.weight")


def test_a_tied_head_need_not_be_saved(tmp_path):
    folder = saved(tmp_path, tiny(tie_word_embeddings=True))
    assert load(folder).notes == ()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(llama, value):
    folder = reweighted(llama, lambda weights: weights[UP].view(-1)[7:8].fill_(value))
    refused(folder, rf"1 weights hold NaN or infinite values: {UP}\.")


def test_weights_that_are_not_finite_in_a_model_object(llama):
    model = load(llama).model
    model.lm_head.weight.data[0, 0] = math.nan
    with pytest.raises(bases.ModelError, match=r"NaN or infinite values: lm_head\.weight"):
        bases.load(small_spec(model=model))


def test_weights_of_another_part_are_said_and_not_refused(llama):
    def add(weights):
        weights["vision_tower.layers.0.weight"] = torch.zeros(2, 2)
        weights["v_head.summary.weight"] = torch.zeros(1, 32)

    [note] = load(reweighted(llama, add)).notes
    assert note.startswith("2 weights of the checkpoint are not part of LlamaForCausalLM and not used:")
    assert "vision_tower.layers (1)" in note


def test_a_layer_that_predicts_further_tokens_is_said_and_not_refused(llama):
    def add(weights):
        further = {name.replace(".1.", ".2."): t.clone() for name, t in weights.items() if ".layers.1." in name}
        weights.update({**further, "model.layers.2.eh_proj.weight": torch.zeros(32, 64)})

    [note] = load(reweighted(llama, add)).notes
    assert "model.layers (10)" in note


def test_buffers_that_earlier_versions_saved_are_passed_over(tmp_path, llama):
    def rotary(weights):
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)

    def masks(weights):
        weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
        weights["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)

    gpt2 = saved(tmp_path / "gpt2", tiny(GPT2Config, n_embd=32, n_layer=2, n_head=2))
    assert load(reweighted(llama, rotary)).notes == ()
    assert load(reweighted(gpt2, masks)).notes == ()
