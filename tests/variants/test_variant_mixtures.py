"""What every variant must do on a mixture of experts: train it in full, or refuse before anything is changed."""

from __future__ import annotations

import warnings

import pytest
import torch

from autolora.adapters.attachment import attachment
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.state import adapter_state, allotment, load_adapter_state
from autolora.api import load_adapter
from autolora.variants import VariantError, detach, get, names
from tests.support.tiny_models import build_model

WITHOUT_EXPERTS = AdapterSpec(target_parameters=())


@pytest.fixture(params=[True, False], ids=["experts", "without"])
def adapter(request):
    return AdapterSpec() if request.param else WITHOUT_EXPERTS


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_it_trains_checkpoints_and_exports_exactly_or_refuses_at_once(
    name, family, adapter, build, tokens, train, logits, difference, fingerprint, tmp_path
):
    base, variant = build(family), get(name)
    before, attributes = fingerprint(base), set(vars(base))
    batch = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    needs = {"batches": [batch], "horizon": 10, "adapter": adapter}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model = variant.attach(base, rank=4, alpha=4, **needs)
    except VariantError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert not variant.adapts_experts
        assert "adapter." in refusal  # what to do
        assert fingerprint(base) == before
        assert set(vars(base)) == attributes
        return
    adapts = any(layer.experts for layer in attachment(model).layers.values())
    assert adapts == (variant.adapts_experts and adapter != WITHOUT_EXPERTS)
    train(model, variant.optimizer(model, 1e-2 * 10**variant.traits.shift), 3)
    trained, state = logits(model), adapter_state(model)
    variant.export(model, tmp_path / "adapter")
    assert fingerprint(detach(model)) == before
    assert difference(logits(load_adapter(build_model(family), tmp_path / "adapter")), trained) < 1e-4
    again = variant.attach(base, rank=4, alpha=4, seed=3, allotted=allotment(state), **needs)
    load_adapter_state(again, state)
    assert torch.equal(logits(again), trained)


@pytest.mark.parametrize("name", names())
def test_the_experts_are_named_in_the_refusal(name, build):
    if get(name).adapts_experts:
        pytest.skip("it adapts them")
    with pytest.raises(VariantError, match=rf"{name} .*experts\.gate_up_proj.*adapter\.target_parameters: null"):
        get(name).attach(build("mixtral"), rank=4, alpha=4, horizon=10)
