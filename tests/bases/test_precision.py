"""A base is in the precision that transformers gives it, or that a model object has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config

import autolora
from autolora import bases
from autolora.bases.base import fingerprint
from autolora.search import Job
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from tests.support.checkpoints import saved, tiny
from tests.support.specs import SMALL_SPEC, small_spec

MIXTURE = {
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "head_dim": 4,
    "num_key_value_heads": 4,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}


def load(model, **training):
    return bases.load(
        small_spec(**{"model": str(model) if not isinstance(model, torch.nn.Module) else model, **training})
    )


def dtypes(model) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


@pytest.mark.parametrize("model", [lambda: tiny(), lambda: tiny(DeepseekV3Config, **MIXTURE)], ids=["rotary", "router"])
def test_a_bfloat16_base_keeps_in_float32_what_transformers_does(tmp_path, model):
    folder = saved(tmp_path, model())
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ours = load(folder, **{"training.dtype": "bfloat16"})
    assert ours.dtype == torch.bfloat16
    assert dtypes(ours.model) == dtypes(theirs)
    assert torch.float32 in dtypes(ours.model).values()
    for (name, kept), (_, expected) in zip(ours.model.named_buffers(), theirs.named_buffers(), strict=True):
        assert torch.equal(kept, expected), name


def test_a_checkpoint_in_float16_is_loaded_in_float32_on_a_cpu(tmp_path):
    base = load(saved(tmp_path, tiny().half()))
    assert base.dtype == torch.float32
    assert set(dtypes(base.model).values()) == {torch.float32}


@pytest.fixture
def mixed(tmp_path):
    """A model object in bfloat16 with norms and a buffer in float32."""
    folder = saved(tmp_path / "model", tiny())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = parameter.data.float() + 1e-4
    model.register_buffer("offset", torch.full((4,), 1 + 1e-4))
    return model


def test_a_model_object_keeps_every_dtype_and_every_bit(mixed):
    before = {name: tensor.clone() for name, tensor in mixed.state_dict().items()}
    base = load(mixed)
    assert base.model is mixed
    assert base.dtype == torch.bfloat16
    assert all(torch.equal(tensor, before[name]) for name, tensor in mixed.state_dict().items())
    assert {before[name].dtype for name in before} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("variant", ["lora", "lora_ga", "corda", "dora"])
def test_a_model_with_norms_in_float32_is_trained(mixed, tmp_path, variant):
    """A start from data passes through the model, too, and so does a look at what it overwrites."""
    spec = small_spec(model=mixed, variants=[variant], **{"training.examples": 16, "training.max_length": 250})
    base = bases.load(spec)
    bench = Workbench.of(spec, tmp_path, base, prepare_data(spec, base.tokenizer, tmp_path / "data"))
    outcome = segment.run(bench, Job(0, variant, Config(1e-3, 8, 2, 2.0), seed=0, start=0.0, stop=1.0, rung=0))
    assert outcome.kind == "scored"


def test_a_model_object_in_another_dtype_than_asked_for_is_refused(mixed):
    with pytest.raises(
        bases.ModelError, match=r"training\.dtype is 'float32', .*LlamaForCausalLM given is in bfloat16"
    ):
        load(mixed, **{"training.dtype": "float32"})


def test_a_model_object_in_float64_is_refused_with_what_to_load(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(saved(tmp_path, tiny()), dtype=torch.float64)
    with pytest.raises(
        bases.ModelError, match=r"in float64, .*dtype=torch\.float32 or torch\.bfloat16 or torch\.float16"
    ):
        load(model)


@pytest.mark.parametrize("asked", ["auto", "float16"])
def test_a_model_object_in_float16_is_used_as_it_is(tmp_path, asked):
    model = AutoModelForCausalLM.from_pretrained(saved(tmp_path, tiny()), dtype=torch.float16)
    base = load(model, **{"training.dtype": asked})
    assert base.model is model
    assert base.dtype == torch.float16


@pytest.mark.parametrize("model", [lambda: tiny(), lambda: tiny(DeepseekV3Config, **MIXTURE)], ids=["rotary", "router"])
def test_a_float16_base_is_as_transformers_loads_it(tmp_path, model):
    folder = saved(tmp_path, model())
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    ours = load(folder, **{"training.dtype": "float16"})
    assert ours.dtype == torch.float16
    assert dtypes(ours.model) == dtypes(theirs)
    assert all(torch.equal(p, q) for p, q in zip(ours.model.parameters(), theirs.parameters(), strict=True))


def test_a_float16_base_has_the_fingerprint_of_the_others(tmp_path):
    """Rounded to float16, and from there to bfloat16, some numbers are not what bfloat16 would make of them."""
    folder = saved(tmp_path, tiny())
    bases_in = {dtype: load(folder, **{"training.dtype": dtype}) for dtype in bases.full_precision.DTYPES}
    assert len({base.fingerprint() for base in bases_in.values()}) == 1
    assert fingerprint(bases_in["float16"].model) != bases_in["float16"].fingerprint()


def test_a_gpu_without_bfloat16_gets_float16_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(bases.full_precision, "find_dtype", lambda name, device: torch.float16)
    base = load(saved(tmp_path, tiny()))
    assert base.notes[0].startswith("in float16, as this GPU has no bfloat16")


@pytest.mark.slow
def test_a_study_goes_on_where_there_is_no_bfloat16(tmp_path, monkeypatch):
    """The model is the same one, and trials go on from their checkpoints."""
    spec = {**SMALL_SPEC, "prior": None, "confirm": 0, "base": {"attn_implementation": "sdpa"}}
    first = autolora.tune(spec=spec, dir=tmp_path, budget=1)
    monkeypatch.setattr(bases.full_precision, "find_dtype", lambda name, device: torch.float16)
    result = autolora.tune(spec={**spec, "base": {"attn_implementation": "eager"}}, dir=tmp_path, budget=2)
    assert result.spent["lora"] > first.spent["lora"]


def test_weights_beyond_the_range_of_float16_are_said(tmp_path):
    model = tiny()
    model.lm_head.weight.data[0, 0] = 1e6
    folder = saved(tmp_path, model)
    assert load(folder).dtype == torch.float32
    with pytest.raises(bases.ModelError, match=r"lm_head.weight.*range of float16, set training.dtype to bfloat16"):
        load(folder, **{"training.dtype": "float16"})


def test_a_model_that_computes_numbers_beyond_float16_is_refused(tmp_path):
    model = tiny()
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.data.mul_(6e5)
        layer.post_attention_layernorm.weight.data.mul_(1e3)
    folder = saved(tmp_path, model)
    assert load(folder).dtype == torch.float32
    with pytest.raises(bases.ModelError, match=r"computes NaN in float16 on cpu.*training.dtype to bfloat16"):
        load(folder, **{"training.dtype": "float16"})


def test_a_model_that_was_dispatched_stays_where_it_is(mixed, monkeypatch):
    mixed.hf_device_map = {"model": "cpu", "lm_head": "disk"}
    monkeypatch.setattr(type(mixed), "to", lambda *_: pytest.fail("moved"))
    base = load(mixed)
    base.set_aside()
    base.recall()
    assert base.device == torch.device("cpu")


@pytest.mark.parametrize("places", [{"model": "cpu", "lm_head": "disk"}, {}], ids=["dispatched", "whole"])
def test_a_model_with_weights_that_hold_no_data_is_refused(mixed, places):
    mixed.lm_head.to("meta")
    mixed.hf_device_map = places
    with pytest.raises(bases.ModelError, match=r"lm_head\.weight holds no data here"):
        load(mixed)


class TestMatmulPrecision:
    """TF32 of a float32 base on CUDA. The setting itself needs no GPU."""

    @pytest.fixture(autouse=True)
    def _restored(self):
        before = torch.get_float32_matmul_precision()
        yield
        torch.set_float32_matmul_precision(before)

    @pytest.fixture
    def on(self, base):
        return lambda device, dtype=torch.float32: replace(base, device=torch.device(device), dtype=dtype)

    def test_a_float32_base_on_cuda_uses_tf32_meanwhile(self, on):
        with on("cuda").fast_matmuls():
            assert torch.get_float32_matmul_precision() == "high"
            with on("cuda").fast_matmuls():
                pass
            assert torch.get_float32_matmul_precision() == "high"
        assert torch.get_float32_matmul_precision() == "highest"

    def test_it_is_restored_after_an_error(self, on):
        with pytest.raises(KeyError), on("cuda").fast_matmuls():
            raise KeyError
        assert torch.get_float32_matmul_precision() == "highest"

    @pytest.mark.parametrize(
        ("device", "dtype"), [("cpu", torch.float32), ("cuda", torch.bfloat16), ("cuda", torch.float16)]
    )
    def test_elsewhere_nothing_changes(self, on, device, dtype):
        with on(device, dtype).fast_matmuls():
            assert torch.get_float32_matmul_precision() == "highest"

    @pytest.mark.parametrize("chosen", ["high", "medium"])
    def test_what_the_user_has_chosen_stays(self, on, chosen):
        torch.set_float32_matmul_precision(chosen)
        with on("cuda").fast_matmuls():
            assert torch.get_float32_matmul_precision() == chosen
        assert torch.get_float32_matmul_precision() == chosen

    @pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="came with PyTorch 2.9")
    def test_what_the_user_has_chosen_by_the_newer_setting_stays(self, on):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        with on("cuda").fast_matmuls():
            pass
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        torch.set_float32_matmul_precision("highest")
