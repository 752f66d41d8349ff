"""Models that add in place to what a layer returns, and layers that are called with another number of dimensions."""

from __future__ import annotations

import pytest
import torch

from autolora.adapters.attachment import attachment
from autolora.adapters.kernels.inplace import overwritten
from autolora.adapters.spec import AdapterSpec
from autolora.variants import get

WITHOUT_EXPERTS = AdapterSpec(target_parameters=())


@pytest.mark.parametrize(
    ("family", "end"), [("falcon", "mlp.dense_4h_to_h"), ("llama4", "shared_expert.down_proj"), ("llama", "")]
)
def test_the_layers_whose_output_is_overwritten_are_found(family, end, build):
    model = get("lora").attach(build(family), rank=4, alpha=4, adapter=WITHOUT_EXPERTS)
    found = overwritten(model, attachment(model).layers)
    assert found == {name for name in attachment(model).layers if end and name.endswith(end)}


@pytest.mark.parametrize("name", ["dora", "hira", "loha", "lokr"])
@pytest.mark.parametrize("family", ["falcon", "llama4"])
def test_a_lean_forward_pass_trains_beside_it(name, family, build, train):
    variant = get(name)
    model = variant.attach(build(family), rank=4, alpha=4, adapter=WITHOUT_EXPERTS)
    losses = train(model, variant.optimizer(model, 1e-2 * 10**variant.traits.shift), 6)
    assert losses[-1] < losses[0] - 0.05


def test_dora_s_gradients_there_are_peft_s(build, tokens, difference, monkeypatch):
    from peft.tuners.lora.variants import DoraLinearVariant

    from autolora.adapters.kernels.dora import GramDora

    def gradients():
        model = get("dora").attach(build("falcon"), rank=4, alpha=12)
        torch.manual_seed(0)
        for layer in attachment(model).layers.values():
            layer.b.data.normal_(std=0.1)
        model(input_ids=tokens, labels=tokens).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}

    found = gradients()
    monkeypatch.setattr(GramDora, "forward", staticmethod(DoraLinearVariant.forward))
    expected = gradients()
    assert all(difference(found[name], expected[name]) < 1e-4 for name in expected)


def test_gralora_takes_any_number_of_dimensions(build):
    model = get("gralora").attach(build(), rank=4, alpha=4)
    layer = attachment(model).layers["model.layers.0.mlp.up_proj"]
    layer.entry("gralora_B").data.normal_()
    x = torch.randn(2, 3, 5, 32)
    assert torch.allclose(layer.module(x), layer.module(x.flatten(0, 1)).unflatten(0, (2, 3)), atol=1e-6)
    assert torch.allclose(layer.module(x).flatten(0, 2), layer.module(x.flatten(0, 2)), atol=1e-5)
