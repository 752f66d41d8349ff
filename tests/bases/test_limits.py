"""What a model can take is read off it: checked by what it does with a longer row."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from autolora.bases.limits import limits_of
from autolora.tasks.causal_lm.limits import Limits

VOCABULARY, POSITIONS = 97, 24
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": POSITIONS}
LOOKED_UP = {
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "codegen": {**GPT, "n_head": 4, "n_ctx": POSITIONS, "rotary_dim": 4},
    "ctrl": {**GPT, "dff": 32},
    "opt": {**SHAPE, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": POSITIONS},
    "biogpt": {**SHAPE, "intermediate_size": 32, "max_position_embeddings": POSITIONS},
    "gpt_neo": {
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "attention_types": [[["global"], 1]],
        "max_position_embeddings": POSITIONS,
    },
    "mpt": {"d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": POSITIONS},
    "bert": {**SHAPE, "intermediate_size": 32, "max_position_embeddings": POSITIONS, "is_decoder": True},
    # its positions begin behind that of the padding
    "roberta": {**SHAPE, "intermediate_size": 32, "max_position_embeddings": POSITIONS + 2, "is_decoder": True},
}
ROTARY = {
    kind: {**SHAPE, "intermediate_size": 32, "max_position_embeddings": POSITIONS}
    for kind in ("llama", "gpt_neox", "falcon", "phi")
}
UNLIMITED = {
    "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 1},
}


def build(kind, shape):
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](vocab_size=VOCABULARY, **shape)).eval()


def runs(model, length):
    with torch.no_grad():
        model(input_ids=torch.full((1, length), 5))
    return True


@pytest.mark.parametrize("kind", LOOKED_UP)
def test_positions_that_are_looked_up_are_a_hard_limit(kind):
    model = build(kind, LOOKED_UP[kind])
    assert limits_of(model) == Limits(VOCABULARY, POSITIONS, hard=True)
    assert runs(model, POSITIONS)
    with pytest.raises((IndexError, RuntimeError)):
        runs(model, POSITIONS + 1)


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_positions_are_no_hard_limit(kind):
    model = build(kind, ROTARY[kind])
    assert limits_of(model) == Limits(VOCABULARY, POSITIONS, hard=False)
    assert runs(model, POSITIONS + 1)


@pytest.mark.parametrize("kind", UNLIMITED)
def test_a_model_without_positions_has_no_limit(kind):
    model = build(kind, UNLIMITED[kind])
    assert limits_of(model) == Limits(VOCABULARY)
    assert runs(model, 5 * POSITIONS)


def test_a_model_of_several_parts_has_the_limits_of_its_text(base):
    class Wordless(torch.nn.Module):
        config = base.model.config

    assert limits_of(Wordless()).vocabulary is None


def test_the_vocabulary_is_that_of_the_weights_not_of_the_configuration():
    model = build("llama", ROTARY["llama"])
    model.resize_token_embeddings(VOCABULARY + 3)
    model.config.vocab_size = VOCABULARY
    assert limits_of(model).vocabulary == VOCABULARY + 3


def test_padding_has_an_embedding(base):
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id >= base.limits.vocabulary
    assert replace(base, tokenizer=tokenizer).pad_token_id == tokenizer.eos_token_id
    tokenizer.add_special_tokens({"eos_token": "[END]"})
    assert replace(base, tokenizer=tokenizer).pad_token_id == 0
