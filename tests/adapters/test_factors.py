"""Factorizations of base weights are computed once per base."""

from __future__ import annotations

import copy
import gc

import pytest
import torch

from autolora.adapters import factors, svd
from autolora.adapters.attachment import attachment
from autolora.adapters.state import adapter_state, load_adapter_state
from autolora.variants import detach, get


@pytest.fixture
def calls(monkeypatch):
    """How often each factorization ran."""
    counts = {"svd": 0, "qr": 0}

    def counted(kind):
        original = getattr(torch.linalg, kind)

        def run(*args, **kwargs):
            counts[kind] += 1
            return original(*args, **kwargs)

        return run

    for kind in counts:
        monkeypatch.setattr(torch.linalg, kind, counted(kind))
    return counts


@pytest.mark.parametrize(("name", "kind"), [("pissa", "svd"), ("olora", "qr")])
def test_computed_once_for_all_trials_and_ranks(build, calls, name, kind):
    base = build()
    starts = []
    for rank in (4, 8, 4):
        model = get(name).attach(base, rank=rank, alpha=2 * rank)
        starts.append(adapter_state(model))
        layers = len(attachment(model).layers)
        detach(model)
    assert calls[kind] == layers
    assert all(torch.equal(starts[0][key], starts[2][key]) for key in starts[0])


def test_another_base_has_its_own(build, calls):
    base = build()
    detach(get("pissa").attach(base, rank=4, alpha=4))
    first = calls["svd"]
    detach(get("pissa").attach(copy.deepcopy(base), rank=4, alpha=4))
    assert calls["svd"] == 2 * first


def test_weights_loaded_into_the_base_are_factorized_anew(build, calls):
    base = build()
    detach(get("pissa").attach(base, rank=4, alpha=4))
    before = calls["svd"]
    base.load_state_dict({key: 2 * tensor for key, tensor in base.state_dict().items()})
    model = get("pissa").attach(base, rank=4, alpha=4)
    assert calls["svd"] == 2 * before
    layer = attachment(model).layers["model.layers.0.mlp.up_proj"]
    doubled = attachment(model).subtracted["model.layers.0.mlp.up_proj"].original
    leading = torch.linalg.matrix_norm(doubled, 2)
    assert torch.linalg.matrix_norm(layer.module.get_delta_weight(layer.adapter), 2).item() == pytest.approx(
        leading.item()
    )


def test_a_rank_above_what_is_kept_is_computed_again(build, calls, monkeypatch):
    monkeypatch.setattr(factors, "KEPT_RANK", 4)
    base = build()
    detach(get("pissa").attach(base, rank=4, alpha=4))
    first = calls["svd"]
    detach(get("pissa").attach(base, rank=8, alpha=8))
    assert calls["svd"] == 2 * first
    detach(get("pissa").attach(base, rank=6, alpha=6))
    assert calls["svd"] == 2 * first


def test_freed_with_the_base(build):
    base = build()
    size = len(factors._cache)
    detach(get("pissa").attach(base, rank=4, alpha=4))
    assert len(factors._cache) == size + 1
    del base
    gc.collect()
    assert len(factors._cache) <= size


def test_a_state_moves_to_a_machine_whose_svd_differs(build, train, monkeypatch):
    pissa = get("pissa")
    model = pissa.attach(build(), rank=4, alpha=8)
    train(model, pissa.optimizer(model, 2e-3), 2)
    state = adapter_state(model)
    svd = torch.linalg.svd

    def other_machine(*args, **kwargs):
        u, values, vh = svd(*args, **kwargs)
        return -u, values * 1.01, -vh

    monkeypatch.setattr(torch.linalg, "svd", other_machine)
    moved = pissa.attach(build(), rank=4, alpha=8)
    start = {key: tensor for key, tensor in adapter_state(moved).items() if "anchor" in key}
    assert not any(torch.equal(tensor, state[key]) for key, tensor in start.items())
    load_adapter_state(moved, state)
    assert train(moved, pissa.optimizer(moved, 2e-3), 3) == train(model, pissa.optimizer(model, 2e-3), 3)


@pytest.fixture
def rough(monkeypatch):
    """Layers of the tiny model count as large, and the first triplets found are taken."""
    for module in (factors, svd):
        monkeypatch.setattr(module, "EXACT_WIDTH", 8)
    monkeypatch.setattr(factors, "FEW_RANK", 4)
    monkeypatch.setattr(svd, "BLOCK", 4)
    monkeypatch.setattr(svd, "TOLERANCE", 1.0)


@pytest.fixture
def batches(tokens):
    return [{"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}]


@pytest.mark.parametrize("name", ["pissa", "corda", "lora_ga"])
def test_outputs_stay_the_base_s_however_rough_the_triplets(build, rough, batches, logits, difference, name):
    """What is subtracted is the B A that trains, not the best of its rank."""
    base = build()
    expected = logits(base)
    rank = 2
    model = get(name).attach(base, rank=rank, alpha=4, batches=batches)
    assert difference(logits(model), expected) < 1e-4
    layer = attachment(model).layers["model.layers.0.mlp.up_proj"]
    exact = torch.linalg.svd(attachment(model).subtracted["model.layers.0.mlp.up_proj"].original)
    best = exact.U[:, :rank] * exact.S[:rank] @ exact.Vh[:rank]
    assert difference(layer.scaling * layer.b @ layer.a, best) > 1e-3, "the triplets are exact, and this proves nothing"


@pytest.mark.parametrize("name", ["pissa", "corda", "lora_ga", "lora_one", "gora"])
def test_a_start_does_not_depend_on_the_ranks_asked_for_before(build, rough, batches, name):
    """Approximate triplets are others for more components."""

    def start(base, rank):
        model = get(name).attach(base, rank=rank, alpha=4, batches=batches)
        state = adapter_state(model)
        detach(model)
        return state

    fresh = start(build(), 2)
    used = build()
    start(used, 6)
    again = start(used, 2)
    assert all(torch.equal(fresh[key], again[key]) for key in fresh)
