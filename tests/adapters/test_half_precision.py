"""Statistics and starts of variants on a base in 16 bits."""

from __future__ import annotations

import pytest
import torch

from autolora import variants
from autolora.adapters import statistics
from autolora.adapters.attachment import attachment
from autolora.adapters.statistics import layer_gradients, layer_statistics
from autolora.adapters.targets import linear_layers
from autolora.priors import curvature
from tests.support.tiny_models import VOCABULARY, build_model

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
ROUNDING = {torch.bfloat16: 0.05, torch.float16: 0.01}
FROM_DATA = ["lora_ga", "lora_one", "lora_da", "gora", "corda", "eva"]


@pytest.fixture
def batches():
    ids = torch.randint(3, VOCABULARY, (4, 12), generator=torch.Generator().manual_seed(3))
    labels = ids.clone()
    labels[:, :4] = -100
    return [{"input_ids": ids[:1], "labels": labels[:1]}, {"input_ids": ids[1:], "labels": labels[1:]}]


def modules(model):
    return {name: model.get_submodule(name) for name in linear_layers(model)}


def error(found, expected):
    return float((found.float() - expected).norm() / expected.norm())


@HALVES
def test_statistics_are_those_of_float32_up_to_rounding(dtype, batches):
    exact, rounded = build_model(), build_model().to(dtype)
    one, other = (layer_statistics(model, modules(model), batches) for model in (exact, rounded))
    for name, expected in one.items():
        for part in ("gradient", "inputs"):  # labels drawn from the model may differ, so not `outputs`
            assert error(getattr(other[name], part), getattr(expected, part)) < ROUNDING[dtype] * 2, name
        assert other[name].gradient.dtype == torch.float32


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9], ids=str)
def test_gradients_in_float16_neither_vanish_nor_overflow(factor, batches, monkeypatch):
    """As of a loss that is this many times as large."""
    real = statistics.token_losses

    def scaled(model, batch):
        losses, predicted, targets = real(model, batch)
        return losses * factor, predicted, targets

    model = build_model()
    expected = layer_gradients(model, modules(model), batches)
    monkeypatch.setattr(statistics, "token_losses", scaled)
    monkeypatch.setattr(statistics, "FIRST_SCALE", 2.0**40)
    monkeypatch.setattr(statistics, "LAST_SCALE", 2.0**-40)
    half = build_model().half()
    found = layer_gradients(half, modules(half), batches)
    for name, gradient in found.items():
        assert error(gradient / factor, expected[name]) < 0.02, name


def test_a_gradient_that_is_infinite_at_any_scale_ends_the_search_for_one(batches, monkeypatch):
    real = statistics.token_losses
    monkeypatch.setattr(statistics, "token_losses", lambda model, batch: (real(model, batch)[0] * float("inf"), 0, 0))
    half = build_model().half()
    found = layer_gradients(half, modules(half), batches)
    assert not any(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("name", FROM_DATA)
def test_a_start_from_data_is_that_of_float32_up_to_rounding(name, batches):
    """Compared by s B A, since signs and rotations of the factors are free."""

    def products(dtype):
        adapted = variants.get(name).attach(build_model().to(dtype), 4, 8.0, batches=batches, horizon=10, seed=0)
        layers = attachment(adapted).layers
        return {key: layer.scaling * layer.b.detach() @ layer.a.detach() for key, layer in layers.items()}

    exact, half = products(torch.float32), products(torch.float16)
    assert half.keys() == exact.keys()
    assert all(product.isfinite().all() and product.dtype == torch.float32 for product in half.values())
    if name in ("lora_ga", "corda", "lora_one"):
        errors = sorted(error(half[key], exact[key]) for key in exact if exact[key].norm() > 0)
        assert not errors or errors[len(errors) // 2] < 0.1


@pytest.mark.parametrize("method", ["kfac", "lanczos"])
@HALVES
def test_curvature_is_that_of_float32_up_to_rounding(dtype, method, batches):
    arguments = {"variants": ["lora", "pissa"], "rank": 4, "method": method, "blocks": ["model.layers.1.mlp.down_proj"]}
    exact = curvature(build_model(), batches, **arguments)
    half = curvature(build_model().to(dtype), batches, **arguments)
    for name, expected in exact.items():
        assert half[name].median == pytest.approx(expected.median, rel=0.2), name
