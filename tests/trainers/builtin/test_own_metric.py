"""A metric of the user's calls the trained model as it pleases, on a base of any dtype."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from autolora.adapters.kernels.branch import widening
from autolora.search import Job
from autolora.space import Config
from autolora.trainers.builtin.trainer import BuiltinTrainer
from autolora.trainers.builtin.workbench import Workbench
from tests.support.specs import small_spec

CONFIG = Config(1e-3, 4, 2, 2.0)


@pytest.fixture
def metric(monkeypatch):
    """A module whose metric calls the model, forward and to generate, without autocast."""

    def called(model, tokenizer, rows):
        tokens = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            assert model(input_ids=tokens).logits.isfinite().all()
            written = model.generate(input_ids=tokens, max_new_tokens=2, do_sample=False)
        return float(written.shape[1])

    module = ModuleType("metric_that_calls")
    module.called = called
    monkeypatch.setitem(sys.modules, "metric_that_calls", module)
    return {"metric.name": "metric_that_calls:called", "metric.direction": "maximize"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", ["lora", "moslora"])
def test_it_is_called_without_autocast(metric, tmp_path, dtype, variant):
    bench = Workbench.open(small_spec(**metric, **{"training.dtype": dtype}), tmp_path)
    outcome = BuiltinTrainer(bench).run(Job(0, variant, CONFIG, 0, 0.0, 1.0, 2))
    assert outcome.kind == "scored", outcome.reason
    assert outcome.value in (4.0, 5.0)


def test_layers_take_16_bits_again_afterwards(tmp_path):
    bench = Workbench.open(small_spec(**{"training.dtype": "bfloat16"}), tmp_path)
    with bench.attached("lora", CONFIG, seed=0) as adapted:
        layer = adapted.base_model.model.model.layers[0].mlp.up_proj
        assert not layer.cast_input_dtype_enabled
        with widening(adapted):
            assert layer.cast_input_dtype_enabled
        assert not layer.cast_input_dtype_enabled
