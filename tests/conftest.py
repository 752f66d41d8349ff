"""Settings of the whole suite, made before torch is imported; small specifications on the shipped model and task."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the processes that tests start: bit-equality needs equal counts
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from typing import Any

import pytest

from autolora import spec as specs

SMALL_SPEC: dict[str, Any] = {
    "model": "builtin:quickstart",
    "data": {"train": "builtin:quickstart/train.jsonl", "eval": "builtin:quickstart/test.jsonl", "eval_size": 24},
    "variants": ["lora"],
    "space": {"learning_rate": [1e-4, 3e-2], "batch_size": [4, 8], "rank": [2, 4]},
    "training": {"examples": 72, "max_length": 64, "device": "cpu"},
    "budget": 3,
}


def small_spec(**overrides: Any) -> specs.Spec:
    """SMALL_SPEC with overrides, whose keys may be dotted."""
    return specs.load({**SMALL_SPEC, "data": dict(SMALL_SPEC["data"])}, **overrides)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_their_own(tmp_path_factory):
    """Nothing is found in, or left in, the cache of whoever runs the tests."""
    os.environ["AUTOLORA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def base():
    """The shipped model, loaded once for all tests."""
    from autolora.training import model

    return model.load(small_spec())


@pytest.fixture
def make_bench(base, tmp_path):
    """A workbench on the shared base; keyword arguments override the specification."""
    from autolora.training.workbench import Workbench, prepare_data

    def make(folder=tmp_path, **overrides: Any) -> Workbench:
        spec = small_spec(**overrides)
        data = prepare_data(spec, base.tokenizer, tmp_path)
        return Workbench(base, data, spec.training, spec.metric, spec.seed, folder)

    return make
