"""Attaching: what is refused, what a failure leaves behind, and the adapter's name."""

from __future__ import annotations

import threading

import pytest
from peft import HiraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.hira import HiraModel
from peft.tuners.hira.layer import Linear
from torch import nn

from autolora.adapters.attachment import _check_devices as check_devices
from autolora.adapters.attachment import attachment
from autolora.adapters.kernels.hira import LeanHira
from autolora.adapters.state import adapter_state
from autolora.variants import Variant, VariantError, get


def test_rank_above_a_layer_s_size_names_layer_and_limit(build):
    with pytest.raises(VariantError, match=r"rank 64 .*'model.layers.0.self_attn.k_proj'.*\(16 x 32\): use 1 to 16"):
        get("lora").attach(build(), rank=64, alpha=64)


@pytest.mark.parametrize("rank", [0, -1])
def test_rank_below_one(build, rank):
    with pytest.raises(VariantError, match="use 1 to 16"):
        get("lora").attach(build(), rank=rank, alpha=8)


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan")])
def test_alpha_must_be_positive(build, alpha):
    with pytest.raises(VariantError, match="alpha must be above 0"):
        get("lora").attach(build(), rank=4, alpha=alpha)


def test_model_without_linear_layers():
    with pytest.raises(VariantError, match="Sequential has no linear layer"):
        get("lora").attach(nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(4)), rank=2, alpha=2)


def test_attaching_twice(build):
    model = get("lora").attach(build(), rank=4, alpha=4)
    with pytest.raises(VariantError, match="carries an adapter already"):
        get("lora").attach(model.get_base_model(), rank=4, alpha=4)


def test_model_that_no_variant_attached(build):
    with pytest.raises(VariantError, match="not attached by a variant"):
        adapter_state(build())


def test_a_failing_start_leaves_the_base_clean(build, fingerprint):
    class Failing(Variant):
        def initialize(self, start):
            assert start.layers
            raise VariantError("no")

    base = build()
    before, attributes = fingerprint(base), set(vars(base))
    with pytest.raises(VariantError, match="no"):
        Failing(name="failing", title="-", paper="-").attach(base, rank=4, alpha=4)
    assert fingerprint(base) == before
    assert set(vars(base)) == attributes
    assert all(parameter.requires_grad for parameter in base.parameters())


@pytest.mark.parametrize("adapter_name", ["", "a.b"])
def test_a_name_that_peft_cannot_take_is_refused(build, fingerprint, adapter_name):
    base = build()
    before = fingerprint(base)
    with pytest.raises(VariantError, match=r"adapter_name=.* without a dot"):
        get("lora").attach(base, rank=4, alpha=4, adapter_name=adapter_name)
    assert fingerprint(base) == before


def test_layers_are_seen_through_the_adapter_s_name(build):
    model = get("lora").attach(build("gpt2"), rank=4, alpha=8, adapter_name="tuned")
    for name, layer in attachment(model).layers.items():
        module = model.get_base_model().get_submodule(name)
        assert layer.module is module
        assert layer.adapter == "tuned"
        assert layer.a is module.lora_A["tuned"].weight
        assert layer.b is module.lora_B["tuned"].weight
        assert (layer.rank, layer.alpha, layer.scaling) == (4, 8, 2.0)
        assert layer.base_layer is module.get_base_layer()
        assert (layer.b.shape[0], layer.a.shape[1]) == (layer.out_features, layer.in_features)
        assert layer.entry("lora_A") is module.lora_A["tuned"]
        assert layer.branch is None
        assert set(layer.parameters) == {"lora_A.tuned.weight", "lora_B.tuned.weight"}


class TestLeanTuners:
    """PEFT's tuner is another one while an adapter is injected, and for that adapter alone."""

    def plain(self, base):
        config = HiraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
        return get_peft_model(base, config).get_base_model().get_submodule("model.layers.0.self_attn.q_proj")

    def test_what_peft_attaches_itself_is_peft_s(self, build):
        model = get("hira").attach(build(), rank=4, alpha=4)
        assert {type(layer.module) for layer in attachment(model).layers.values()} == {LeanHira}
        assert type(self.plain(build())) is Linear

    def test_a_failing_injection_leaves_peft_s_tuner_in_place(self, build, monkeypatch):
        def fail(*arguments, **settings):
            raise RuntimeError("no memory")

        before = dict(PEFT_TYPE_TO_TUNER_MAPPING)
        with monkeypatch.context() as patch:
            patch.setattr(LeanHira, "__init__", fail)
            with pytest.raises(RuntimeError, match="no memory"):
                get("hira").attach(build(), rank=4, alpha=4)
        assert before == PEFT_TYPE_TO_TUNER_MAPPING
        assert type(self.plain(build())) is Linear

    def test_threads_that_attach_at_once_leave_peft_s_tuner_in_place(self, build):
        found = []

        def run(name):
            for _ in range(3):
                model = get(name).attach(build(), rank=4, alpha=4)
                found.append((name, {type(layer.module).__name__ for layer in attachment(model).layers.values()}))

        threads = [threading.Thread(target=run, args=(name,)) for name in ("hira", "hira", "loha", "lokr")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lean = {"hira": "LeanHira", "loha": "LeanLoha", "lokr": "LeanLokr"}
        assert len(found) == 12
        assert all(kinds == {lean[name]} for name, kinds in found)
        assert PEFT_TYPE_TO_TUNER_MAPPING["HIRA"] is HiraModel


@pytest.mark.parametrize("name", ["rasa", "denselora"])
def test_parameters_are_not_shared_between_devices(build, name):
    model = get(name).attach(build(), rank=4, alpha=4)
    layers = attachment(model).layers
    check_devices(layers, name)
    layers["model.layers.1.mlp.up_proj"].base_layer.to("meta")  # as where the second block is on another GPU
    with pytest.raises(VariantError, match=rf"{name} shares parameters .*'model.layers.1.mlp.up_proj' is on meta"):
        check_devices(layers, name)
