"""The fixtures that tests of adapters and of variants share, and how the contract tests attach."""

from __future__ import annotations

import pytest
import torch

from autolora.variants import get
from tests.support.variant_fixtures import build, difference, fingerprint, logits, one_thread, tokens, train
from tests.support.variant_settings import HORIZON, RANK, alpha_of

__all__ = ["build", "difference", "fingerprint", "logits", "one_thread", "tokens", "train"]


@pytest.fixture
def attach(tokens):
    """``attach(name, model)`` with everything that any variant may need; a variant may be given itself."""

    def run(name, model, **settings):
        variant = get(name) if isinstance(name, str) else name
        batch = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
        settings = {"rank": RANK, "seed": 0, **settings}
        settings.setdefault("alpha", alpha_of(variant.name, settings["rank"]))
        return variant.attach(model, batches=[batch], horizon=HORIZON, **settings)

    return run
