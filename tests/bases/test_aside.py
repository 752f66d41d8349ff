"""A base that is set aside takes no memory, and is itself again when it is recalled."""

from __future__ import annotations

import shutil
from contextlib import ExitStack

import pytest
import torch

from autolora import bases, variants
from autolora.adapters import factors
from autolora.adapters.state import adapter_state
from autolora.adapters.store import Store
from autolora.bases.base import fingerprint
from autolora.space import Config
from tests.support.checkpoints import reweighted, saved, tiny
from tests.support.specs import small_spec
from tests.support.tiny_models import build_model

FAMILIES = ("llama", "gpt2", "gemma3", "mixtral", "gpt_oss", "mamba")
"""With tied weights, Conv1D, tied and scaled embeddings, experts in one parameter, biases of those, and Mamba."""


def load(folder, **settings):
    return bases.load(small_spec(**{"model": str(folder), **settings}))


def stored(model) -> int:
    """Bytes behind the parameters."""
    return sum({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_it_takes_no_memory_and_comes_back_bit_for_bit(tmp_path, family, dtype):
    base = load(saved(tmp_path, build_model(family)), **{"training.dtype": dtype})
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    shapes = {name: p.shape for name, p in base.model.named_parameters()}
    known = base.fingerprint()
    base.set_aside()
    base.set_aside()
    assert stored(base.model) <= 4 * len(shapes)
    assert {name: p.shape for name, p in base.model.named_parameters()} == shapes
    assert base.fingerprint() == known
    base.recall()
    base.recall()
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name
    assert {name for name, _ in base.model.named_parameters()} == shapes.keys(), "tied weights are tied again"
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.fingerprint() == known


def test_an_adapter_is_trained_on_it_as_before(tmp_path):
    base = load(saved(tmp_path, tiny()))
    ids = torch.arange(8)[None]

    def outputs():
        adapted = variants.get("pissa").attach(base.model, rank=2, alpha=4)
        try:
            with torch.no_grad():
                return adapted(ids).logits
        finally:
            variants.detach(adapted)

    expected = outputs()
    base.set_aside()
    assert base.model not in factors._cache, "factorizations take no memory meanwhile either"
    base.recall()
    assert torch.equal(outputs(), expected)


def test_another_model_is_not_taken_for_it(tmp_path):
    folder = saved(tmp_path / "model", tiny())
    base = load(folder)
    other = tiny()
    with torch.no_grad():
        other.lm_head.weight[-1, -1] += 1
    base.set_aside()
    shutil.move(folder, tmp_path / "kept")
    with pytest.raises(bases.ModelError, match="model"):
        base.recall()
    saved(folder, other)
    with pytest.raises(bases.ModelError, match=r"model holds other weights than when it was loaded before.*rerun"):
        base.recall()
    shutil.rmtree(folder)
    shutil.move(tmp_path / "kept", folder)
    base.recall()
    assert fingerprint(base.model) == base.fingerprint()


def test_a_model_object_keeps_its_weights():
    model = tiny()
    model.name_or_path = "builtin:quickstart"
    before = stored(model)
    base = bases.load(small_spec().model_copy(update={"model": model}))
    base.set_aside()
    assert stored(model) == before
    base.recall()
    assert base.model is model


def test_attaching_an_adapter_recalls_it(make_trainer):
    trainer = make_trainer()
    known = trainer.fingerprints()
    trainer.set_aside()
    assert trainer.fingerprints() == known
    assert stored(trainer.bench.base.model) < 1000
    with trainer.bench.attached("lora", Config(1e-3, 4, 2, 4.0), 0) as adapted:
        assert stored(adapted) > 100_000


class TestInFewBits:
    @pytest.fixture(params=[4, 8])
    def packed(self, request, tmp_path):
        pytest.importorskip("bitsandbytes")
        shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
        return load(saved(tmp_path, tiny(**shape)), **{f"base.load_in_{request.param}bit": True})

    def test_it_comes_back_with_its_scales(self, packed):
        ids = torch.arange(8)[None]

        def outputs():
            with torch.no_grad():
                return packed.model(ids).logits

        expected, known = outputs(), packed.fingerprint()
        packed.set_aside()
        assert stored(packed.model) < 1000
        states = [vars(module).get("state") for module in packed.model.modules()]
        assert all(state is None or state.CB is None for state in states), "8-bit layers hold their weight twice"
        assert packed.fingerprint() == known
        packed.recall()
        assert torch.equal(outputs(), expected)
        assert packed.fingerprint() == known
        packed.set_aside()
        packed.recall()
        assert torch.equal(outputs(), expected)

    @pytest.mark.parametrize("name", ["pissa", "lora_ga"])
    def test_its_factorizations_are_kept_on_disk(self, packed, tmp_path, name):
        ids = torch.arange(8)[None]
        batches = [{"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}]
        kept = Store(tmp_path / "factors", least=0)

        def start(*stores):
            factors.forget(packed.model)
            with ExitStack() as stack:
                for each in stores:
                    stack.enter_context(factors.kept_in(packed.model, each))
                adapted = variants.get(name).attach(packed.model, rank=2, alpha=2, batches=batches)
            state = adapter_state(adapted)
            variants.detach(adapted)
            return state

        plain, first = start(), start(kept)
        written = sorted(kept.folder.glob("*.safetensors"))
        later = start(kept)
        assert written
        assert sorted(kept.folder.glob("*.safetensors")) == written
        for key, tensor in plain.items():
            assert torch.equal(first[key], tensor), key
            assert torch.equal(later[key], tensor), key


def test_a_model_with_another_buffer_is_not_taken_for_it(tmp_path):
    """Some buffers are weights, as the scale of a layer of Gemma 4's or the biases of routers."""
    folder = saved(tmp_path / "model", build_model("deepseek_v3"))
    base = load(folder)
    base.set_aside()

    def change(weights):
        key = next(name for name in weights if name.endswith("e_score_correction_bias"))
        weights[key][-1] += 1

    reweighted(folder, change)
    with pytest.raises(bases.ModelError, match=r"holds other weights than when it was loaded before"):
        base.recall()
