"""Studies of rows and tokenizers that go beyond the model's positions or embeddings."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig

import autolora
from autolora.metrics import MetricSpec
from autolora.tasks.data.errors import DataError

TOKENS = 768  # of the shipped tokenizer
POSITIONS = 40
SIZES = {"vocab_size": TOKENS, "bos_token_id": 1, "eos_token_id": 2}
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": POSITIONS}
CONFIGS = {
    "gpt2": lambda: GPT2Config(**SIZES, n_embd=16, n_layer=1, n_head=2, n_positions=POSITIONS),
    "opt": lambda: OPTConfig(**SIZES, **SHAPE, ffn_dim=32, word_embed_proj_dim=16, pad_token_id=0),
    "llama": lambda: LlamaConfig(**SIZES, **SHAPE, intermediate_size=32),
}


@pytest.fixture
def tune(base, tmp_path):
    """A study of one full run on a model of the kind, with the shipped tokenizer and what is added to it."""

    def tune(kind, added=None, **settings):
        import copy

        tokenizer = copy.deepcopy(base.tokenizer)
        tokenizer.add_special_tokens(added or {})
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(CONFIGS[kind]()).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return autolora.tune(
            model=str(tmp_path / "model"),
            data={"train": "builtin:quickstart/train.jsonl", "eval": "builtin:quickstart/test.jsonl", "eval_size": 8},
            dir=tmp_path / "run",
            budget=1,
            prior=None,
            space={"learning_rate": [1e-4, 1e-2], "batch_size": [8], "rank": [2]},
            **{"training": {"examples": 8, "device": "cpu"}, **settings},
        )

    return tune


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
@pytest.mark.parametrize("max_length", ["auto", 512])
def test_rows_are_cut_to_the_positions_that_the_model_looks_up(tune, kind, max_length):
    result = tune(kind, training={"examples": 8, "max_length": max_length, "device": "cpu"})
    assert result.training["max_length"] == POSITIONS
    assert result["lora"].value > 0


def test_a_rotary_model_may_be_trained_beyond(tune):
    assert tune("llama", training={"examples": 8, "max_length": 512, "device": "cpu"}).training["max_length"] == 512


@pytest.mark.parametrize(
    "added", [{"pad_token": "[PAD]"}, {"pad_token": "[PAD]", "additional_special_tokens": ["<x>"]}]
)
def test_padding_that_the_model_has_no_embedding_of_is_replaced(tune, added):
    assert tune("llama", added)["lora"].value > 0


def test_so_is_that_of_generation(tune):
    result = tune("llama", {"pad_token": "[PAD]"}, metric=MetricSpec(name="exact_match", max_new_tokens=2))
    assert result["lora"].value >= 0


def test_an_end_of_text_that_the_model_has_no_embedding_of_ends_the_study_before_training(tune, tmp_path):
    with pytest.raises(DataError, match=rf"row \d+ needs the token '<end>', id {TOKENS}.*0 to {TOKENS - 1}"):
        tune("llama", {"eos_token": "<end>"})
    assert not (tmp_path / "run" / "study.db").exists()
