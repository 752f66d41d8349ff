"""An adapter as model: merged into its base, where tuning starts."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from autolora import bases
from autolora.bases.pretrained import hidden_size, load_config, load_tokenizer
from tests.support.checkpoints import byte_tokenizer, saved, tiny
from tests.support.specs import small_spec

IDS = torch.arange(24).view(2, 12)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("llama"), tiny())


def adapter(folder, base, **settings):
    """An adapter on the base of a directory, none of whose parameters is zero."""
    options = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM", **settings}
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    return folder


def load(folder, **overrides):
    return bases.load(small_spec(model=str(folder), **overrides))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"up_proj": 3}},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=["lora", "ranks", "dora", "head"],
)
def test_the_model_says_what_peft_says(llama, tmp_path, settings):
    folder = adapter(tmp_path / "sft", llama, **settings)
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), folder).eval()
    base = load(folder)
    assert base.notes == (f"{llama} with the LORA of {folder} merged in; tuning starts there",)
    assert torch.allclose(base.model(IDS).logits, expected(IDS).logits, atol=1e-5)
    assert not any("lora" in name or parameter.requires_grad for name, parameter in base.model.named_parameters())


def test_merging_into_bfloat16_rounds_once(llama, tmp_path):
    folder = adapter(tmp_path / "sft", llama)
    original = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16)
    exact = PeftModel.from_pretrained(original.float(), folder).merge_and_unload()
    merged = load(folder, **{"training.dtype": "bfloat16"}).model
    for name, parameter in merged.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter, exact.get_parameter(name).bfloat16()), name


def test_the_fingerprint_sees_an_adapter_of_any_size(llama, tmp_path):
    folder = adapter(tmp_path / "sft", llama)
    small = tmp_path / "small"
    shutil.copytree(folder, small)
    config = json.loads((small / "adapter_config.json").read_text())
    (small / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 1e-6}))
    assert len({load(path).fingerprint() for path in (llama, folder, small)}) == 3
    assert load(folder).fingerprint() == load(folder).fingerprint()


def test_a_base_beside_the_adapter_is_found_by_a_relative_path(llama, tmp_path):
    folder = adapter(tmp_path / "sft", llama)
    shutil.copytree(llama, folder / "base")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "base"}))
    assert load(folder).merged.base.folder == folder / "base"


def test_the_tokenizer_is_the_adapters_own_if_it_has_one(llama, tmp_path):
    spec = small_spec(model=str(adapter(tmp_path / "sft", llama)))
    assert load_tokenizer(spec).chat_template is None
    byte_tokenizer(template="{{ messages }}").save_pretrained(tmp_path / "sft")
    assert load_tokenizer(spec).chat_template == "{{ messages }}"
    assert hidden_size(load_config(spec)) == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_model_name_or_path": None}, "does not name the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "of a base that pissa_niter_4 has changed"),
        ({"peft_type": "PROMPT_TUNING"}, "holds a PROMPT_TUNING adapter, which cannot be merged"),
        ({"peft_type": "UNHEARD_OF"}, "holds a UNHEARD_OF adapter, which cannot be merged"),
        ({"base_model_name_or_path": "/nowhere/base"}, "an adapter whose base is not there: /nowhere/base"),
        ({"r": 5}, r"cannot load the adapter \(LORA\) onto"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused(llama, tmp_path, settings, message):
    folder = adapter(tmp_path / "sft", llama)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(bases.ModelError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "what"), [({"num_hidden_layers": 1}, "no place"), ({"num_hidden_layers": 3}, "nothing")]
)
def test_an_adapter_of_a_base_with_other_layers_is_refused(llama, tmp_path, settings, what):
    folder = adapter(tmp_path / "sft", llama)
    other = saved(tmp_path / "other", tiny(**settings))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    with pytest.raises(bases.ModelError, match=rf"adapter of another model: its base .*{what}.* weights, such as"):
        load(folder)


def test_an_adapter_with_tokens_of_its_own_brings_their_embeddings(llama, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama)
    model.resize_token_embeddings(260, mean_resizing=False)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        model.get_input_embeddings().weight[257:] = 0.5
        model.lm_head.weight[257:] = 0.25
    adapted.save_pretrained(tmp_path / "sft", save_embedding_layers=True)
    base = load(tmp_path / "sft")
    assert torch.equal(base.model.get_input_embeddings().weight[257:], torch.full((3, 32), 0.5))
    assert torch.allclose(base.model(IDS).logits, adapted.eval()(IDS).logits, atol=1e-5)
    assert base.merged.factors is None  # no LoRA on the original base says this


def test_trained_embeddings_of_more_tokens_are_those_that_are_merged(llama, tmp_path):
    """PEFT writes them twice, by the name of the module and by that of its trained copy."""
    model = AutoModelForCausalLM.from_pretrained(llama)
    model.resize_token_embeddings(260, mean_resizing=False)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    adapted.save_pretrained(tmp_path / "sft")
    assert torch.allclose(load(tmp_path / "sft").model(IDS).logits, adapted.eval()(IDS).logits, atol=1e-5)


def test_an_adapter_on_an_adapter_is_refused(llama, tmp_path):
    first = adapter(tmp_path / "sft", llama)
    second = adapter(tmp_path / "dpo", llama)
    config = json.loads((second / "adapter_config.json").read_text())
    (second / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(first)}))
    with pytest.raises(
        bases.ModelError, match=f"dpo holds an adapter on another adapter, that of the directory {first}"
    ):
        load(second)


@pytest.mark.parametrize("content", [None, b"cut"])
def test_an_adapter_without_whole_weights_is_refused(llama, tmp_path, content):
    file = adapter(tmp_path / "sft", llama) / "adapter_model.safetensors"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        bases.ModelError, match=r": adapter_model\.safetensors is damaged|no adapter_model\.safetensors: give"
    ):
        load(tmp_path / "sft")


def test_an_adapter_in_autoloras_own_format_is_refused(tmp_path):
    (tmp_path / "autolora_adapter.json").write_text("{}")
    with pytest.raises(bases.ModelError, match=r"in autolora's own format, .*cannot be merged"):
        load(tmp_path)


def test_prompt_tuning_saved_by_peft_is_refused(llama, tmp_path):
    config = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(llama), config).save_pretrained(tmp_path)
    with pytest.raises(bases.ModelError, match="PROMPT_TUNING adapter"):
        load(tmp_path)


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_side_of_tied_embeddings_is_refused(tmp_path, layer):
    model = tiny(tie_word_embeddings=True)
    base = saved(tmp_path / "tied", model)
    folder = adapter(tmp_path / "sft", base, target_modules=["q_proj", layer])
    with pytest.raises(bases.ModelError, match=rf"adapts (model\.)?{layer}, whose weight .* shares with another layer"):
        load(folder)


def test_an_adapter_of_repeated_layers_is_refused(llama, tmp_path):
    folder = adapter(tmp_path / "sft", llama)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["layer_replication"] = [[0, 2], [1, 2]]
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(bases.ModelError, match="layer_replication"):
        load(folder)
