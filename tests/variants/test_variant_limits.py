"""What the base's weights allow, and what not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autolora.variants import VariantError, get, names


def test_largest_rank_fits(build):
    for name in names():
        if not get(name).needs:
            rank = 8 if name == "melora" else 16  # in each of its two blocks
            get(name).attach(build(), rank=rank, alpha=rank)


def test_a_quantized_weight_cannot_be_subtracted_from(build):
    base = build()
    layer = base.get_submodule("model.layers.1.mlp.up_proj")
    layer.weight = nn.Parameter(torch.zeros(layer.weight.shape, dtype=torch.int8), requires_grad=False)
    with pytest.raises(VariantError, match=r"holds weights in torch\.int8, which autolora cannot read"):
        get("pissa").attach(base, rank=4, alpha=4)
