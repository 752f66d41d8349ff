"""The implementation of attention that a specification names."""

from __future__ import annotations

import pytest
from transformers import AutoModelForCausalLM, Gemma2Config

from autolora import bases
from autolora.bases import attention
from autolora.search import Job
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from tests.support.checkpoints import saved, tiny
from tests.support.specs import small_spec

KEY = "base.attn_implementation"


def load(model="builtin:quickstart", asked=None, **settings):
    return bases.load(small_spec(model=model, **{KEY: asked}, **settings))


@pytest.mark.parametrize("asked", ["eager", "sdpa"])
def test_the_model_computes_attention_as_asked(asked):
    assert load(asked=asked).model.config._attn_implementation == asked


def test_by_default_it_is_the_models_own(base):
    assert load().model.config._attn_implementation == base.model.config._attn_implementation


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("flashy", r"Specified .*flashy.* is not supported"),
        ("flash_attention_2", r"FlashAttention2.*package for FlashAttention2"),
        ("flash_attention_3", "FlashAttention3"),
        ("someone/some-kernel", "kernels"),
        ("paged|sdpa", "it is for serving"),
        ("eager|sdpa", "is not supported"),
    ],
)
def test_one_that_is_not_here_is_refused_before_the_weights_are_loaded(asked, said, monkeypatch):
    """What is said next is what could be used."""
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(bases.ModelError, match=rf"{KEY} is '{asked.replace('|', '.')}'.*{said}.*\(sdpa, eager.*\)"):
        load(asked=asked)


def test_one_that_the_model_lacks_is_refused(tmp_path):
    """Gemma 2 caps its attention scores, which PyTorch's attention does not."""
    model = tiny(Gemma2Config, head_dim=8, query_pre_attn_scalar=8)
    folder = saved(tmp_path, model)
    assert load(str(folder), "eager").model.config._attn_implementation == "eager"
    if type(model)._supports_sdpa:
        pytest.skip("this version of transformers has it")
    with pytest.raises(bases.ModelError, match=rf"{KEY} is 'sdpa'.*scaled_dot_product_attention.*\(eager"):
        load(str(folder), "sdpa")


def test_one_that_cannot_be_trained_with_here_is_refused():
    """FlexAttention has no backward pass on a CPU."""
    with pytest.raises(bases.ModelError, match=rf"{KEY} is 'flex_attention'.*fails in float32 on cpu.*backward.*sdpa"):
        load(asked="flex_attention")


def test_a_model_that_cannot_be_built_without_weights_is_loaded_as_it_was(monkeypatch):
    """The reason for its failure is not its attention."""

    def fails(config, name):
        raise TypeError("reads its weights when it is built")

    monkeypatch.setattr(attention, "blank_model", fails)
    assert load(asked="eager").model.config._attn_implementation == "eager"


def test_a_model_object_is_used_as_it_is(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(saved(tmp_path, tiny()), attn_implementation="eager")
    assert load(model, "eager").model is model
    with pytest.raises(bases.ModelError, match=rf"{KEY} is 'sdpa', .*given uses 'eager', .*load it with"):
        load(model, "sdpa")
    assert model.config._attn_implementation == "eager"


def test_an_adapter_is_merged_into_a_base_with_the_attention_asked_for(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = saved(tmp_path / "base", tiny())
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(tmp_path / "adapter")
    assert load(str(tmp_path / "adapter"), "eager").model.config._attn_implementation == "eager"


def test_the_check_leaves_no_gradients_and_no_hooks():
    base = load(asked="eager")
    assert all(parameter.grad is None for parameter in base.model.parameters())
    assert not base.model.get_input_embeddings()._forward_hooks


def test_a_trial_that_was_begun_with_one_goes_on_with_another(tmp_path):
    """Rounding alone is different, as on another device."""

    def bench(asked):
        spec = small_spec(**{KEY: asked})
        base = bases.load(spec)
        return Workbench.of(spec, tmp_path, base, prepare_data(spec, base.tokenizer, tmp_path / "data"))

    def job(start, stop, rung):
        return Job(0, "lora", Config(1e-3, 8, 2, 2.0), seed=0, start=start, stop=stop, rung=rung)

    assert segment.run(bench("sdpa"), job(0.0, 0.5, 0)).kind == "scored"
    assert segment.run(bench("eager"), job(0.5, 1.0, 1)).kind == "scored"


def test_the_names_that_are_offered_are_those_of_transformers():
    assert set(attention._known()) >= {"sdpa", "eager", "flash_attention_2"}
    assert not [name for name in attention._known() if name.startswith("paged")]
