"""Which layers a study trains: checkpoints of experts, what is refused at the start, and what is said."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from autolora.space import Space
from autolora.trainers.builtin.trainer import BuiltinTrainer
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from autolora.variants import VariantError
from tests.support.specs import small_spec
from tests.support.tiny_models import OTHERS
from tests.support.trainer_contract import TrainerContract, piece

SETTINGS = {"data.eval_size": 8, "training.examples": 24}


@pytest.fixture(scope="session")
def open_family(base, tmp_path_factory):
    """``open_family(family, folder, **overrides)``: a trainer of a tiny model of a family, on the shipped task."""
    tokens, bases = tmp_path_factory.mktemp("tokens"), {}

    def make(family, folder, **overrides):
        if family not in bases:
            bases[family] = dataclasses.replace(base, model=random_model(family, len(base.tokenizer)), again=None)
        spec = small_spec(**{**SETTINGS, **overrides})
        return BuiltinTrainer(Workbench.of(spec, folder, bases[family], prepare_data(spec, base.tokenizer, tokens)))

    return make


def random_model(family, vocabulary):
    settings = OTHERS[family]().to_dict() | {"vocab_size": vocabulary}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(CONFIG_MAPPING[settings.pop("model_type")](**settings)).eval()


class TestTrainerOnExperts(TrainerContract):
    @pytest.fixture(scope="class")
    def make_trainer(self, open_family):
        return lambda folder, **settings: open_family("mixtral", folder, **settings)


@pytest.mark.parametrize("family", ["gpt_oss", "deepseek_v3", "glm4_moe", "mamba", "mamba2", "falcon_h1"])
def test_it_trains_and_exports_what_it_says(family, open_family, tmp_path):
    trainer = open_family(family, tmp_path)
    assert trainer.run(piece(0, rung=1)).kind == "scored"
    trainer.export(0, tmp_path / "adapter")
    keys = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layers = trainer.bench.coverage.layers
    assert len(keys) == 2 * len(layers)
    assert any("experts" in key for key in keys) == any(layer.experts for layer in layers.values())


class TestCheck:
    def check(self, trainer, *names, **space):
        trainer.check(list(names), Space(learning_rate=(1e-4, 1e-2), batch_size=[4], **{"rank": [4], **space}), {})

    def test_a_variant_that_cannot_adapt_experts_is_refused_before_anything_runs(self, open_family, tmp_path):
        trainer = open_family("mixtral", tmp_path)
        self.check(trainer, "lora", "rslora", "lora_fa")
        with pytest.raises(VariantError, match=r"pissa cannot adapt experts.*adapter\.target_parameters: null"):
            self.check(trainer, "lora", "pissa")
        assert not (tmp_path / "trials").exists()

    def test_it_is_let_through_without_experts(self, open_family, tmp_path):
        self.check(open_family("mixtral", tmp_path, **{"adapter.target_parameters": None}), "lora", "pissa", "dora")

    def test_a_searched_dropout_is_refused_beside_experts(self, open_family, tmp_path):
        with pytest.raises(VariantError, match=r"dropout 0\.1 does not go with experts"):
            self.check(open_family("mixtral", tmp_path), "lora", dropout=[0.0, 0.1])

    def test_a_gate_of_one_output_forbids_no_rank(self, open_family, tmp_path):
        self.check(open_family("qwen2_moe", tmp_path), "lora", rank=[16])

    def test_a_name_without_a_layer_is_refused(self, open_family, tmp_path):
        with pytest.raises(VariantError, match=r"adapter\.target_modules: 'q_prj' matches no layer"):
            self.check(open_family("mixtral", tmp_path, **{"adapter.target_modules": ["q_prj"]}), "lora")


class TestWhatIsSaid:
    def test_the_lines_name_what_is_adapted_and_what_is_not(self, open_family, tmp_path):
        first, second = open_family("mixtral", tmp_path).about()["layers"]
        assert re.match(r"adapters on q_proj, .*experts\.down_proj \(99\.\d% of the weights of layers\)", first)
        assert "gate (router)" in second

    def test_what_scores_depend_on_names_the_layers_where_they_are_not_all_linear_ones(
        self, make_trainer, open_family, tmp_path
    ):
        def layers(trainer):
            return trainer.fingerprints().get("layers")

        usual = make_trainer()
        assert layers(usual) is None
        assert usual.bench.identity == make_trainer(**{"adapter.target_modules": ".*"}).bench.identity
        few = make_trainer(**{"adapter.target_modules": ["q_proj"]})
        assert layers(few)
        assert few.bench.identity != usual.bench.identity
        whole = open_family("mixtral", tmp_path)
        without = open_family("mixtral", tmp_path, **{"adapter.target_parameters": []})
        assert layers(whole)
        assert layers(without) is None  # what earlier versions trained
        assert whole.bench.identity != without.bench.identity
