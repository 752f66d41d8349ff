"""Models that are no causal language models are refused by what they are, as a directory and as an object."""

from __future__ import annotations

import pytest
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    BertModel,
    CLIPVisionConfig,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    XLNetConfig,
    XLNetLMHeadModel,
)

from autolora import bases
from tests.support.checkpoints import reconfigured, saved, tiny
from tests.support.specs import small_spec

TEXT = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
VISION = {**TEXT, "image_size": 28, "patch_size": 14}
VISION.pop("vocab_size")
T5 = {"vocab_size": 257, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
BART = {
    "vocab_size": 257,
    "d_model": 32,
    **{f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in [("layers", 1), ("ffn_dim", 32)]},
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
OTHERS = [
    (lambda: T5ForConditionalGeneration(T5Config(**T5)), "a sequence-to-sequence model"),
    (lambda: BartForConditionalGeneration(BartConfig(**BART)), "a sequence-to-sequence model"),
    (lambda: BertForMaskedLM(BertConfig(**TEXT)), "an encoder"),
    (lambda: BertModel(BertConfig(**TEXT)), "an encoder|without a language-model head"),
    (lambda: BertLMHeadModel(BertConfig(**TEXT)), "an encoder, which reads in both directions"),
    (lambda: LlamaModel(LlamaConfig(**TEXT)), "without a language-model head, as embedding models are"),
    (
        lambda: LlamaForSequenceClassification(LlamaConfig(**TEXT, pad_token_id=0)),
        "a classification or reward model",
    ),
    (lambda: ViTForImageClassification(ViTConfig(**VISION)), "an image classifier"),
]


@pytest.mark.parametrize(("make", "kind"), OTHERS)
def test_another_kind_of_model_is_named(tmp_path, make, kind):
    model = make()
    for given in (str(saved(tmp_path, model)), model):
        with pytest.raises(bases.ModelError, match=rf"({kind}).*autolora tunes causal language models"):
            bases.load(small_spec(model=given))


def test_a_reward_model_whose_configuration_names_no_class_lacks_its_head(tmp_path):
    model = LlamaForSequenceClassification(LlamaConfig(**TEXT, pad_token_id=0))
    folder = reconfigured(saved(tmp_path, model), architectures=None)
    with pytest.raises(bases.ModelError, match=r"lacks 1 .*lm_head\.weight"):
        bases.load(small_spec(model=str(folder)))


def test_an_encoder_that_was_made_a_decoder_is_one(tmp_path):
    model = BertLMHeadModel(BertConfig(**TEXT, is_decoder=True))
    assert isinstance(bases.load(small_spec(model=str(saved(tmp_path, model)))).model, BertLMHeadModel)


@pytest.mark.parametrize(
    "make",
    [
        lambda: XLNetLMHeadModel(
            XLNetConfig(vocab_size=257, d_model=32, n_layer=1, n_head=2, d_inner=32, initializer_range=0.3)
        ),
        lambda: tiny(Gemma3TextConfig, use_bidirectional_attention=True),
    ],
    ids=["xlnet", "gemma3"],
)
def test_a_model_whose_class_is_causal_and_which_is_not_is_refused(tmp_path, make):
    with pytest.raises(bases.ModelError, match=r"(XLNetLMHeadModel|Gemma3ForCausalLM) reads in both directions"):
        bases.load(small_spec(model=str(saved(tmp_path, make()))))


def test_a_model_of_images_and_text_is_loaded(tmp_path):
    text = LlamaConfig(**TEXT, num_key_value_heads=1)
    config = LlavaConfig(text_config=text, vision_config=CLIPVisionConfig(**VISION), image_token_index=256)
    folder = saved(tmp_path, LlavaForConditionalGeneration(config))
    assert isinstance(bases.load(small_spec(model=str(folder))).model, LlavaForConditionalGeneration)
