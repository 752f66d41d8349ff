"""Attach, train, export and reload on the model families that users bring."""

from __future__ import annotations

import warnings

import pytest
import torch

from autolora.api import load_adapter
from autolora.variants import VariantError, detach, get, names

LINEAR_ONLY = [name for name in names() if get(name).linear_only]
FAMILIES = ("llama", "qwen3", "gemma3", "gpt2")


@pytest.mark.parametrize("name", LINEAR_ONLY)
def test_a_layer_of_a_kind_that_peft_does_not_adapt_is_named(name, build, fingerprint):
    base = build("gpt2")
    before = fingerprint(base)
    with pytest.raises(VariantError, match=r"Conv1D.*transformer\.h\.0"):
        get(name).attach(base, rank=4, alpha=4, horizon=10)
    assert fingerprint(base) == before


@pytest.mark.parametrize(
    ("name", "family"),
    [(name, family) for name in names() for family in FAMILIES if not (family == "gpt2" and name in LINEAR_ONLY)],
)
def test_attach_and_export(name, family, build, tokens, train, logits, difference, fingerprint, tmp_path):
    base = build(family)
    before, untrained = fingerprint(base), logits(base)
    variant = get(name)
    batch = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT's kind: a second adapter, a wrong fan_in_fan_out
        model = variant.attach(base, rank=4, alpha=4, batches=[batch], horizon=10, seed=0)
    assert variant.moves_at_start or difference(logits(model), untrained) < 1e-4
    train(model, variant.optimizer(model, 1e-2 * 10**variant.traits.shift), 4)
    trained = logits(model)
    assert difference(trained, untrained) > 0.01
    variant.export(model, tmp_path / "adapter")
    assert fingerprint(detach(model)) == before
    reloaded = load_adapter(build(family), tmp_path / "adapter")
    assert difference(logits(reloaded), trained) < 1e-4
