"""A model by its configuration alone, and what training on it takes."""

from __future__ import annotations

import json
import warnings

import pytest
from transformers import BertConfig, LlamaConfig, PretrainedConfig

from autolora import bases, quickstart, variants
from autolora.bases.footprint import Footprint
from autolora.bases.outline import Outline, outline
from autolora.bases.planning import Setting, plan_memory
from tests.support.checkpoints import SHAPE, reconfigured
from tests.support.tiny_models import CONFIGS, OTHERS, VOCABULARY, build_model

FAMILIES = {**CONFIGS, **OTHERS}
RANK = 4


@pytest.fixture
def folder(tmp_path):
    """A directory that holds config.json and nothing else."""
    LlamaConfig(**SHAPE, vocab_size=257, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def llama() -> Outline:
    return outline(CONFIGS["llama"]())


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_as_many_as_the_models(family):
    config = FAMILIES[family]()
    found = outline(config)
    assert found.model is not None, found.notes
    assert found.hidden_size == 32
    real = build_model(family)
    if "vision" not in family:  # built whole here, and without its vision tower there
        footprint = Footprint(found, variants.get("lora"))
        assert footprint.parameters == sum(parameter.numel() for parameter in real.parameters())
        attached = variants.get("lora").attach(real, rank=RANK, alpha=RANK)
        assert footprint.trained(RANK) == sum(p.numel() for p in attached.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", [name for name in variants.names() if name != "goat"])
def test_as_many_parameters_train_as_with_the_weights(name, llama):
    import torch

    tokens = torch.arange(8).view(1, 8) % VOCABULARY
    batch = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    attached = variants.get(name).attach(build_model(), rank=RANK, alpha=RANK, batches=[batch], horizon=1000)
    real = sum(parameter.numel() for parameter in attached.parameters() if parameter.requires_grad)
    counted = Footprint(llama, variants.get(name)).trained(RANK)
    assert counted == pytest.approx(real, rel=0.02 if name in ("eva", "gora") else 0)  # ranks shared out by the data


def test_what_is_made_of_the_weights_is_not_guessed(llama):
    assert Footprint(llama, variants.get("goat")).trained(RANK) is None


def test_the_bytes_of_weights_are_those_of_the_dtype_asked_for_or_the_configurations():
    import torch

    whole, half = (
        Footprint(outline(LlamaConfig(**SHAPE, vocab_size=257, dtype=dtype)), variants.get("lora"))
        for dtype in ("float32", "bfloat16")
    )
    assert whole.base_bytes() == 2 * half.base_bytes() == 4 * whole.parameters
    assert whole.base_bytes(torch.bfloat16) == half.base_bytes()


def test_a_usual_rank_fits_the_layers_and_the_variant(llama):
    assert Footprint(llama, variants.get("lora")).usual_rank() == 16  # of keys and values, 16 wide
    assert Footprint(llama, variants.get("lora_ga")).usual_rank() == 8  # 2 r <= min(m, n)


def test_a_folder_needs_no_weights(folder):
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert outline(str(folder)).model is not None
    assert outline(folder).hidden_size == 32


def test_the_shipped_model_is_outlined(base):
    found = outline("builtin:quickstart")
    assert found.hidden_size == base.model.config.hidden_size
    assert found.name == quickstart.resolve("builtin:quickstart")


def test_the_width_of_a_composite_model_is_its_language_models():
    config = OTHERS["gemma3_with_vision"]()
    config.text_config.hidden_size = 64
    assert outline(config).hidden_size == 64


def test_an_architecture_that_cannot_be_built_is_a_sentence():
    found = outline(PretrainedConfig(hidden_size=64))
    assert found.model is None
    assert found.hidden_size == 64
    assert [note.startswith("Memory is not known: ") for note in found.notes] == [True]


def test_settings_that_do_not_fit_one_another_are_a_sentence():
    found = outline(LlamaConfig(**{**SHAPE, "hidden_act": "no such function"}))
    assert found.model is None
    assert "no such function" in found.notes[0]


def test_an_encoder_is_named_as_one():
    assert "an encoder" in outline(BertConfig(hidden_size=32, num_attention_heads=2)).notes[0]


def test_a_quantized_checkpoint_is_said(folder):
    reconfigured(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    found = outline(folder)
    assert found.notes == ("The checkpoint is quantized (gptq); memory is that of unpacked weights.",)
    assert found.model is not None


def test_the_configuration_given_is_left_as_it_is():
    config = CONFIGS["llama"]()
    before = config.to_dict()
    outline(config)
    assert config.to_dict() == before


def test_an_adapter_is_about_its_base(folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    content = {"peft_type": "LORA", "base_model_name_or_path": str(folder), "r": 8, "lora_alpha": 16}
    (adapter / "adapter_config.json").write_text(json.dumps(content))
    found = outline(adapter)
    assert found.name == str(folder)
    assert found.notes == (f"{adapter} is an adapter (r = 8, lora_alpha = 16); this is about its base.",)


def test_a_run_directory_says_what_was_tuned(tmp_path):
    (tmp_path / "spec.yaml").write_text("model: some/model\n")
    (tmp_path / "study.db").touch()
    with pytest.raises(
        bases.ModelError, match=r"is a run directory, and `autolora best .*give the model, .* some/model"
    ):
        outline(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json is not there"),
        ("{", "config.json is damaged"),
        ("[]", "config.json holds list"),
        ('{"model_type": "no_such_type"}', "no_such_type"),
    ],
)
def test_a_folder_whose_configuration_cannot_be_read_asks_for_that_alone(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(bases.ModelError, match=message) as caught:
        outline(tmp_path)
    assert "safetensors" not in str(caught.value)
    assert "hidden_size" in str(caught.value)


def test_a_hub_id_that_cannot_be_reached_is_a_plain_error():
    with pytest.raises(bases.ModelError, match="cannot read the configuration in the hub id 'nobody/nothing'"):
        outline("nobody/nothing")


def test_what_is_no_model_is_refused_by_its_type():
    with pytest.raises(bases.ModelError, match=r"model: int is none: give a directory with config\.json"):
        outline(3)


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plan_memory(Footprint(outline(CONFIGS["llama"]()), variants.get("vera")), Setting(RANK, length=64))
