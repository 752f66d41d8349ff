"""Shortcuts are taken on what the model itself says, and left where it says something else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from autolora.bases import base as bases
from autolora.bases import reading
from autolora.bases.base import Base, Reading
from autolora.losses import target_logits
from autolora.tasks.causal_lm.split import Split
from tests.support.tiny_models import build_model

TOKENIZER = SimpleNamespace(all_special_ids=[0, 1, 2], added_tokens_decoder={}, pad_token_id=0, eos_token_id=1)


def base_of(model) -> Base:
    return Base(model, TOKENIZER, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba", "mixtral"])
def test_a_causal_model_needs_no_mask_and_its_head_can_run_apart(family):
    assert reading.reading_of(base_of(build_model(family))) == Reading(masked=False, apart=True)


def test_a_model_that_takes_its_positions_from_the_mask_keeps_it(monkeypatch):
    """They count from the end of a row."""
    model = build_model("gpt2")
    genuine = type(model).forward

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        there = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        behind = there.flip(1).cumsum(1).flip(1)
        kwargs.setdefault("position_ids", (input_ids.shape[1] - behind).clamp(min=0))
        return genuine(self, input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(type(model), "forward", forward)
    assert reading.reading_of(base_of(model)).masked


def test_a_model_that_cannot_do_without_a_mask_keeps_it(monkeypatch):
    model = build_model("llama")
    genuine = type(model).forward

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return genuine(self, input_ids=input_ids, attention_mask=attention_mask.long(), **kwargs)

    monkeypatch.setattr(type(model), "forward", forward)
    assert reading.reading_of(base_of(model)) == Reading(masked=True, apart=False)


def test_a_model_that_looks_at_all_tokens_behind_its_backbone_is_not_taken_apart(monkeypatch):
    """Its logits depend on how many tokens there are."""
    model = build_model("llama")
    genuine = model.lm_head.forward
    monkeypatch.setattr(model.lm_head, "forward", lambda states: genuine(states - states.mean(1, keepdim=True)))
    assert not reading.reading_of(base_of(model)).apart


def test_a_model_of_few_positions_takes_no_shortcut():
    model = build_model("gpt2")
    base = base_of(model)
    vars(base)["limits"] = type(base.limits)(vocabulary=base.limits.vocabulary, positions=3, hard=True)
    assert reading.reading_of(base) == Reading()


def test_rows_are_joined_only_where_attention_has_kernels_for_them(monkeypatch):
    base = base_of(build_model("llama"))
    assert not reading.reading_of(base).joined
    monkeypatch.setattr(reading, "variable_length", lambda model: True)
    assert reading.reading_of(base).joined


def test_rows_are_not_joined_where_the_model_mixes_them(monkeypatch):
    """A model without attention knows nothing of positions: it would read one row into the next."""
    monkeypatch.setattr(reading, "variable_length", lambda model: True)
    assert not reading.reading_of(base_of(build_model("mamba"))).joined


def test_joined_rows_have_the_losses_of_padded_ones():
    import numpy as np

    lengths = [9, 4, 6]
    tokens = np.random.default_rng(0).integers(3, 90, sum(lengths)).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    targets = np.ones(sum(lengths), dtype=bool)
    targets[offsets[:-1]] = False
    split = Split(tokens, offsets, targets, np.arange(3))
    model = build_model("llama").eval()
    with torch.no_grad():
        padded, joined = (
            target_logits(model, each)[0] for each in (split.batch([0, 1, 2], 0), split.joined([0, 1, 2]))
        )
    torch.testing.assert_close(joined, padded, rtol=1e-4, atol=1e-5)


def test_what_is_found_goes_with_the_loaded_base(base):
    assert base.reading == bases.Reading(masked=False, apart=True)
