"""Bases in 4 and 8 bits: loaded as asked, used as they are, or refused with what to do."""

from __future__ import annotations

import pickle
import shutil
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("bitsandbytes")

import transformers
from packaging.version import Version
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import autolora
from autolora import bases
from autolora.adapters.export import bits_of_base
from autolora.adapters.packed import bits_of, parameter_count
from autolora.bases import packed
from autolora.bases.aside import digest
from autolora.bases.device import own_dtype
from autolora.bases.given import as_given
from autolora.bases.outline import outline
from autolora.variants import get
from tests.support.checkpoints import reconfigured, reweighted, saved, tiny
from tests.support.specs import small_spec
from tests.support.tiny_models import build_model

SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
AS_IN_5_23 = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"), reason="transformers 5.1 packs other layers"
)
FOUR = BitsAndBytesConfig(load_in_4bit=True)
EIGHT = BitsAndBytesConfig(load_in_8bit=True)


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "model", tiny(**SHAPE))


@pytest.fixture(params=[4, 8])
def bits(request):
    return request.param


@pytest.fixture
def packed_folder(folder, bits, tmp_path):
    """A checkpoint that was saved in few bits, the rest in bfloat16."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=FOUR if bits == 4 else EIGHT
    )
    there = tmp_path / "packed"
    model.save_pretrained(there)
    for file in folder.glob("*token*"):
        shutil.copy(file, there)
    return there


def load(model, **settings):
    return bases.load(small_spec(model=model if not hasattr(model, "exists") else str(model), **settings))


def asking(bits):
    return {f"base.load_in_{bits}bit": True}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_linear_layers_are_packed_and_the_rest_is_in_the_dtype_asked_for(folder, bits, dtype):
    if (bits, dtype) == (8, "float16"):
        pytest.skip("refused on a CPU")
    base = load(folder, **asking(bits), **{"training.dtype": dtype})
    assert base.bits == bits
    assert base.dtype == getattr(torch, dtype)
    layers = {name for name, module in base.model.named_modules() if bits_of(module) == bits}
    assert len(layers) == 7 * base.model.config.num_hidden_layers
    assert base.model.lm_head.weight.dtype == base.dtype
    assert f"linear layers in {bits} bits" in base.notes[-1]
    assert (f"computing in {dtype}" in base.notes[-1]) == (bits == 4)


def test_four_bits_are_those_of_qlora(folder):
    layer = load(folder, **asking(4)).model.model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_packed_checkpoint_is_used_as_it_is_packed(packed_folder, bits, dtype):
    base = load(packed_folder, **{"training.dtype": dtype})
    assert base.bits == bits
    assert base.dtype == getattr(torch, dtype) == base.model.model.embed_tokens.weight.dtype
    assert base.notes[0] == "the checkpoint is quantized (bitsandbytes)"


def test_a_packed_checkpoint_is_not_packed_otherwise(packed_folder, bits):
    other = 12 - bits
    with pytest.raises(bases.ModelError, match=rf"base.load_in_{other}bit is true, but .* is in {bits} bits already"):
        load(packed_folder, **asking(other))
    assert load(packed_folder, **asking(bits)).bits == bits


def test_a_model_object_is_used_as_it_is_and_is_itself_again(folder, bits):
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=FOUR if bits == 4 else EIGHT)
    repacks = [getattr(module, packed.REPACKS, None) for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with as_given(model):
        base = load(model)
        assert base.model is model
        assert base.bits == bits
        model(input_ids=torch.arange(3, 9)[None])
    assert [getattr(module, packed.REPACKS, None) for module in model.modules()] == repacks
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_object_in_other_bits_than_asked_is_refused(folder, bits):
    with pytest.raises(
        bases.ModelError, match=r"is not quantized: load it with .*BitsAndBytesConfig\(load_in_\dbit=True"
    ):
        load(AutoModelForCausalLM.from_pretrained(folder), **asking(bits))


def test_a_model_object_that_bitsandbytes_has_repacked_is_refused(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=FOUR)
    model.model.layers[1].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(bases.ModelError, match=r"layers.1.mlp.up_proj .* has rounded its scales: load the model again"):
        load(model)


def test_weights_stored_as_other_numbers_are_not_taken_for_them(folder):
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=settings)
    assert own_dtype(model) == torch.float32
    base = load(model)
    assert base.bits == 4
    assert base.dtype == torch.float32


def test_both_at_once_are_refused(folder):
    with pytest.raises(ValueError, match="load_in_4bit and load_in_8bit are both true: set one of them"):
        load(folder, **asking(4), **asking(8))


def test_without_bitsandbytes_it_is_said_how_to_install_it(folder, packed_folder, bits, monkeypatch):
    monkeypatch.setattr(packed, "find_spec", lambda _: None)
    with pytest.raises(bases.ModelError, match=rf"base.load_in_{bits}bit needs bitsandbytes, .*autolora-tune\[bits"):
        load(folder, **asking(bits))
    with pytest.raises(bases.ModelError, match=rf"is in {bits} bits of bitsandbytes, which needs bitsandbytes, which"):
        load(packed_folder)


def test_a_checkpoint_of_another_method_is_not_packed(folder):
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    with pytest.raises(bases.ModelError, match=r"base.load_in_4bit is true, but .* is quantized with fp8 already"):
        load(reconfigured(folder, quantization_config=settings), **asking(4))


def test_an_adapter_is_not_merged_into_few_bits(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    get("lora").export(get("lora").attach(model, rank=2, alpha=2.0), tmp_path / "adapter")
    with pytest.raises(bases.ModelError, match="cannot be merged into a quantized base: merge it"):
        load(tmp_path / "adapter", **asking(4))


def test_an_adapter_of_a_packed_base_is_not_merged(packed_folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(packed_folder)
    get("lora").export(get("lora").attach(model, rank=2, alpha=2.0), tmp_path / "adapter")
    with pytest.raises(bases.ModelError, match="which is quantized, so it cannot be merged"):
        load(tmp_path / "adapter")


def test_scales_that_are_not_finite_are_refused(folder, bits):
    def spoil(weights):
        weights["model.layers.0.mlp.up_proj.weight"][3, 5] = float("inf")

    with pytest.raises(bases.ModelError, match=r"hold NaN or infinite values: model\.layers\.0\.mlp\.up"):
        load(reweighted(folder, spoil), **asking(bits))


@AS_IN_5_23
def test_a_model_of_which_no_layer_can_be_packed_is_refused(tmp_path, bits):
    folder = saved(tmp_path / "falcon", build_model("falcon"))
    with pytest.raises(bases.ModelError, match=r"no layer of FalconForCausalLM is packed.* Leave base\.load_"):
        load(folder, **asking(bits))


def test_another_device_than_the_models_own_is_refused(folder, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=FOUR)
    monkeypatch.setattr(bases.full_precision, "find_device", lambda name: torch.device("meta"))
    with pytest.raises(bases.ModelError, match="is on cpu and is used where it is: load it there"):
        load(model, **{"training.device": "cuda"})


def test_the_kind_of_device_is_enough():
    on = bases.full_precision._is_on
    there = SimpleNamespace(device=torch.device("cuda:0"))
    assert on(there, torch.device("cuda"))
    assert on(there, torch.device("cuda:0"))
    assert not on(there, torch.device("cuda:1"))
    assert not on(there, torch.device("cpu"))


@AS_IN_5_23
def test_a_model_that_bitsandbytes_cannot_run_is_refused(tmp_path):
    folder = saved(tmp_path / "latent", build_model("deepseek_v3"))
    with pytest.raises(bases.ModelError, match=r"fails with layers in 8 bits on cpu .*size of tensor"):
        load(folder, **asking(8))
    assert load(folder, **asking(4)).bits == 4


def test_float16_in_eight_bits_is_refused_on_a_cpu(folder):
    with pytest.raises(bases.ModelError, match=r"overwrites inputs in float16.* set training\.dtype to float32"):
        load(folder, **asking(8), **{"training.dtype": "float16"})


def test_the_base_that_an_adapter_fits_is_recorded_with_it(folder, bits, tmp_path):
    adapted = get("lora").attach(load(folder, **asking(bits)).model, rank=2, alpha=2.0)
    get("lora").export(adapted, tmp_path / "adapter")
    assert bits_of_base(tmp_path / "adapter") == bits
    plain = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.warns(UserWarning, match=rf"was trained on a base in {bits} bits, and this one is not quantized"):
        autolora.load_adapter(plain, tmp_path / "adapter")
    notes = load(tmp_path / "adapter").notes
    assert notes[1] == f"that adapter was trained on a base in {bits} bits, and is merged into one in float32"


def test_an_adapter_of_an_unquantized_base_says_nothing_of_bits(folder, tmp_path):
    adapted = get("lora").attach(load(folder).model, rank=2, alpha=2.0)
    get("lora").export(adapted, tmp_path / "adapter")
    assert bits_of_base(tmp_path / "adapter") is None
    assert bits_of_base(tmp_path / "nowhere") is None


def test_a_packed_checkpoint_is_planned_as_it_is(packed_folder, bits):
    assert outline(packed_folder).bits == bits
    assert autolora.recommend(packed_folder).memory.bits == bits


def test_an_attached_start_can_be_saved_and_copied(folder):
    adapted = get("pissa").attach(load(folder, **asking(4)).model, rank=2, alpha=2.0)
    pickle.dumps(adapted.base_model.model.model.layers[0].mlp.up_proj.base_layer._forward_hooks)


def test_it_is_another_model_than_in_numbers_and_the_same_each_time(folder, bits):
    first = load(folder, **asking(bits))
    first.model.eval()(input_ids=torch.arange(3, 9)[None])
    assert first.fingerprint() == load(folder, **asking(bits)).fingerprint()
    assert first.fingerprint() != load(folder).fingerprint() != load(folder, **asking(12 - bits)).fingerprint()


def test_sizes_are_known_before_and_after_packing(folder, bits):
    plain, held = load(folder).model, load(folder, **asking(bits)).model
    assert parameter_count(held) == parameter_count(plain)
    assert packed.held_bytes(plain, torch.float32, bits) == packed.held_bytes(held, torch.float32, bits)
    counted = sum(tensor.nbytes for tensor in held.state_dict().values())
    # Beside the scales, bitsandbytes saves tables of a few kB a layer, which matter at this size alone.
    assert counted == pytest.approx(packed.held_bytes(held, None, bits), rel=0.35)
    assert packed.held_bytes(held, None, bits) < 0.9 * sum(tensor.nbytes for tensor in plain.state_dict().values())


def test_memory_that_runs_out_points_to_four_bits(folder, monkeypatch):
    def fails(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fails)
    with pytest.raises(bases.ModelError, match=r"in float32, and .*base.load_in_4bit: true"):
        load(folder)
    with pytest.raises(bases.ModelError, match=r"in 4 bits and float32, and (?!.*load_in_4bit)"):
        load(folder, **asking(4))


def test_a_loaded_adapter_computes_as_in_training(folder, tmp_path):
    tokens = torch.arange(3, 19)[None]
    base = load(folder, **asking(4))
    adapted = get("dora").attach(base.model, rank=2, alpha=2.0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    get("dora").export(adapted, tmp_path / "adapter")
    with torch.no_grad():
        expected = adapted.eval()(input_ids=tokens).logits
        fresh = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, quantization_config=packed.packing(4, torch.float32)
        )
        found = autolora.load_adapter(fresh, tmp_path / "adapter")(input_ids=tokens).logits
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_other_scales_are_another_model(folder, bits):
    """The bits are those of before, and stand for other weights."""
    model = load(folder, **asking(bits)).model
    before, layer = digest(model), model.model.layers[1].mlp.down_proj
    if bits == 4:
        layer.weight.quant_state.absmax[-1] ^= 1
    else:
        layer.state.SCB[-1] *= 2
    assert digest(model) != before
