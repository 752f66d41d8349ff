"""TRL's trainers: the contract, what its files say, and what its reference model is."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import autolora
from autolora import quickstart
from autolora import spec as specs
from autolora.adapters.errors import VariantError
from autolora.search import Job
from autolora.space import Config, Space
from autolora.trainers import open_trainer
from autolora.trainers.trl.configuration import TrlError
from autolora.trainers.trl.trainer import TrlTrainer
from tests.support.trainer_contract import RUNGS, TrainerContract

pytest.importorskip("trl")

FILE: dict[str, Any] = {
    "learning_rate": 3.0e-4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "lora_r": 6,
    "lora_alpha": 12,
    "lora_dropout": 0.05,
    "max_length": 64,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
}
ROWS = {"train": "builtin:quickstart/train.jsonl", "eval": "builtin:quickstart/test.jsonl", "eval_size": 12}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> str:
    """Preference pairs: the right answer, and one that is wrong by one letter."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = Path(quickstart.resolve("builtin:quickstart/train.jsonl")).read_text().splitlines()[:40]
    with path.open("w") as out:
        for prompt, chosen in (json.loads(line).values() for line in lines):
            out.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": chosen[:-1]}) + "\n")
    return str(path)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """``written(**keys)``: the path of a configuration file of TRL's."""

    def write(**keys: Any) -> str:
        path = tmp_path_factory.mktemp("trl") / "trl.yaml"
        path.write_text(yaml.safe_dump({**FILE, **keys}))
        return str(path)

    return write


def spec_of(file: str, kind: str = "sft", **overrides: Any) -> specs.Spec:
    settings: dict[str, Any] = {
        "trainer": {"trl": kind, "config": file},
        "model": "builtin:quickstart",
        "data": ROWS,
        "space": {"learning_rate": [1e-4, 1e-2], "batch_size": [4, 8], "rank": [2, 4]},
        "training": {"examples": 24, "device": "cpu"},
        "rungs": RUNGS,
        "budget": 1,
        "confirm": 0,
    }
    return specs.load(settings, **overrides)


def job(variant: str = "lora", rung: int = 1, **config: Any) -> Job:
    settings = {"learning_rate": 1e-3, "batch_size": 8, "rank": 2, "alpha": 4.0, **config}
    return Job(0, variant, Config.of(**settings), seed=0, start=0.0, stop=RUNGS[rung], rung=rung)


class TestTrlTrainer(TrainerContract):
    @pytest.fixture(scope="class")
    def make_trainer(self, written):
        file = written()
        longer = {"training": {"examples": 72, "device": "cpu"}}
        return lambda folder, **settings: open_trainer(spec_of(file, **longer, **settings), folder)


class TestWhatTheFileSays:
    def test_it_is_the_baseline_also_outside_of_the_space(self, written, tmp_path):
        baseline = TrlTrainer.open(spec_of(written()), tmp_path).baseline()
        assert (baseline.learning_rate, baseline.batch_size, baseline.rank, baseline.alpha) == (3e-4, 8, 6, 12.0)
        assert baseline.dropout == 0.05

    def test_it_is_trained_first(self, written, tmp_path):
        result = autolora.tune(spec=spec_of(written()), dir=tmp_path)
        assert result["lora"].config == Config(3e-4, 8, 6, 12.0)
        assert result["lora"].baseline == result["lora"].value

    def test_a_searched_field_takes_the_place_of_the_file_s(self, written, tmp_path):
        space = {"batch_size": [8], "rank": [2], "dropout": [0.0, 0.2], "weight_decay": [0.01], "warmup_ratio": [0.1]}
        trainer = TrlTrainer.open(spec_of(written(), space=space), tmp_path)
        with trainer._made(job(dropout=0.2, weight_decay=0.01, warmup_ratio=0.1), None) as made:
            assert made.trainer.args.weight_decay == 0.01
            assert made.trainer.args.warmup_steps == 0.1
            assert made.model.peft_config["default"].lora_dropout == 0.2

    def test_fields_of_its_training_and_the_layers_are_a_trial_s_own(self, written, tmp_path):
        fields = {"adam_beta2": [0.95, 0.999], "lora_target_modules": [["q_proj", "v_proj"], "all-linear"]}
        trainer = TrlTrainer.open(spec_of(written(adam_beta2=0.95), space={"rank": [2], "fields": fields}), tmp_path)
        trainer.check(["lora"], trainer.spec.space, {})
        assert trainer.standards(trainer.spec.space) == {"adam_beta2": 0.95}
        with trainer._made(
            job(fields={"adam_beta2": 0.999, "lora_target_modules": ["q_proj", "v_proj"]}), None
        ) as made:
            assert made.trainer.args.adam_beta2 == 0.999
            adapted = [name for name, _ in made.model.named_parameters() if "lora_A" in name]
            layers = {name.split(".lora_A")[0].split(".")[-1] for name in adapted}
            assert layers == {"q_proj", "v_proj"}

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"adam_betta2": [0.9]}, "space.fields.adam_betta2: TRL's sft has no such .*did you mean 'adam_beta2'"),
            ({"adam_beta2": ["high"]}, "space.fields.adam_beta2: 'high' is not allowed; .*0.999 there, a float"),
            ({"optim": ["adamw_torch", "adamm"]}, "space.fields.optim: 'adamm'"),
            ({"warmup_steps": [0.1]}, "space.fields.warmup_steps: the study sets it itself, or as a dimension"),
            ({"max_steps": [10, 20]}, "space.fields.max_steps: the study sets it itself"),
        ],
    )
    def test_fields_that_it_does_not_have_are_refused(self, written, tmp_path, fields, said):
        trainer = TrlTrainer.open(spec_of(written()), tmp_path)
        with pytest.raises(TrlError, match=said):
            trainer.check(["lora"], Space(fields=fields), {})

    def test_its_model_and_rows_are_taken_where_the_specification_names_none(self, written, tmp_path):
        file = written(
            model_name_or_path=quickstart.resolve("builtin:quickstart"),
            datasets=[{"path": "json", "data_files": quickstart.resolve("builtin:quickstart/test.jsonl")}],
        )
        trainer = TrlTrainer.open(spec_of(file, model=None, data=None), tmp_path)
        assert trainer.hidden_size() == 96
        assert any("40 training rows are held out" in line for line in trainer.about()["data"])
        assert math.isfinite(trainer.run(job()).value)

    def test_a_key_that_trl_does_not_know_is_warned_of(self, written, tmp_path):
        trainer = TrlTrainer.open(spec_of(written(lora_rr=4)), tmp_path)
        (line,) = [line for line in trainer.about()["warning"] if "lora_rr" in line]
        assert "sft does not know 'lora_rr'" in line
        assert "did you mean 'lora_r'?" in line

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"per_device_train_batch_size": "many"}, "trainer.config: TRL's sft refuses .*trl.yaml"),
            ({"lora_modules_to_save": ["lm_head"]}, "lora_modules_to_save trains whole modules"),
            ({"use_dora": True}, "trains dora .* name dora in variants"),
            ({"use_rslora": True}, "trains rslora .* name rslora in variants"),
        ],
    )
    def test_what_cannot_be_used_is_refused_with_the_file(self, written, tmp_path, keys, said):
        with pytest.raises(TrlError, match=said):
            TrlTrainer.open(spec_of(written(**keys)), tmp_path)

    @pytest.mark.parametrize(
        "named",
        [
            {"datasets": [{"path": "json", "data_files": "nowhere.jsonl"}]},
            {"datasets": [{"path": "json", "data_files": "nowhere/*.jsonl"}]},
            {"dataset_name": "nobody/nowhere"},
        ],
    )
    def test_rows_that_cannot_be_read_are_said_with_the_file(self, written, tmp_path, named):
        file = written(**named)
        with pytest.raises(TrlError, match=r"trl\.yaml: its data set cannot be read: "):
            TrlTrainer.open(spec_of(file, data=None), tmp_path)

    @pytest.mark.parametrize(("missing", "said"), [("model", "model_name_or_path"), ("data", "no dataset_name")])
    def test_what_neither_names_is_missing(self, written, tmp_path, missing, said):
        with pytest.raises(TrlError, match=said):
            TrlTrainer.open(spec_of(written(), **{missing: None}), tmp_path)

    def test_settings_of_the_specification_that_trl_does_not_hear_of_are_warned_of(self, written, tmp_path):
        with pytest.warns(UserWarning, match="training.schedule has no effect with trainer 'trl'"):
            autolora.tune(spec=spec_of(written(), training={**spec_training(), "schedule": "linear"}), dir=tmp_path)


def spec_training() -> dict[str, Any]:
    return {"examples": 24, "device": "cpu"}


def test_sft_reads_the_tokens_of_the_builtin_trainer(written, tmp_path):
    ours = TrlTrainer.open(spec_of(written()), tmp_path / "trl")
    builtin = open_trainer(
        spec_of(written(), trainer="builtin", **{"training": {**spec_training(), "max_length": 64}}), tmp_path
    )
    with ours._made(job(), None) as made:
        rows = made.trainer.train_dataset
        split = builtin.bench.data.train
        assert len(rows) == len(split)
        assert rows[3]["input_ids"] == split.tokens[split.offsets[3] : split.offsets[4]].tolist()
        learned = [label != -100 for label in rows[3]["labels"]]
        assert learned == split.targets[split.offsets[3] : split.offsets[4]].tolist()


@pytest.mark.parametrize(("kind", "metric"), [("dpo", "rewards/accuracies"), ("reward", "accuracy")])
def test_one_line_switches_the_trainer(written, pairs, tmp_path, kind, metric):
    data = {"train": pairs, "eval_size": 8, "test_size": 4}
    spec = spec_of(written(), kind, data=data, metric={"name": metric, "direction": "maximize"})
    trainer = TrlTrainer.open(spec, tmp_path)
    outcome = trainer.run(job())
    assert (outcome.kind, 0 <= outcome.value <= 1) == ("scored", True)
    assert 0 <= trainer.test(0) <= 1
    trainer.export(0, tmp_path / "out")
    assert (tmp_path / "out" / "adapter_config.json").is_file()


@pytest.mark.slow
def test_grpo_goes_on_as_if_it_was_never_cut(written, tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "def length(completions, **columns):\n    return [len(c) / 99 for c in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    file = written(reward_funcs=["my_rewards.length"], num_generations=4, max_completion_length=8)
    spec = spec_of(file, "grpo", metric={"name": "reward", "direction": "maximize"})
    trainer = TrlTrainer.open(spec, tmp_path)
    whole = trainer.run(job())
    cut = [trainer.run(Job(1, "lora", job().config, 0, 0.0, stop, rung)) for rung, stop in enumerate(RUNGS)]
    assert cut[-1].value == whole.value


class TestReferenceModel:
    """DPO compares with a reference, which is the model that training starts from."""

    @pytest.fixture(scope="class")
    def trainer(self, written, pairs, tmp_path_factory):
        data = {"train": pairs, "eval_size": 8}
        spec = spec_of(written(), "dpo", data=data, metric={"name": "rewards/accuracies", "direction": "maximize"})
        return TrlTrainer.open(spec, tmp_path_factory.mktemp("dpo"))

    @pytest.mark.parametrize("name", ["lora", "dora", "pissa", "rslora"])
    def test_it_is_the_base(self, trainer, base, name):
        from trl.trainer.dpo_trainer import use_adapter

        ids = torch.arange(5, 15).unsqueeze(0)
        with torch.no_grad():
            expected = base.model(ids).logits
            with trainer._made(job(name, alpha=2.0), None) as made, use_adapter(made.model.eval(), "ref"):
                assert torch.allclose(made.model(ids).logits, expected, atol=1e-3)

    @pytest.mark.parametrize("name", ["delora", "hydralora", "rasa"])
    def test_a_variant_of_which_it_would_be_another_model_is_refused(self, trainer, name):
        with pytest.raises(VariantError, match=f"{name} cannot be trained by TRL's dpo"):
            trainer.check([name], Space(rank=[4], batch_size=[8]), {})

    @pytest.mark.parametrize("name", ["lora_ga", "eva"])
    def test_a_variant_that_needs_tokens_is_refused(self, trainer, name):
        with pytest.raises(VariantError, match=f"{name} starts from data"):
            trainer.check([name], Space(rank=[4], batch_size=[8]), {})


def test_a_variant_that_starts_from_data_is_trained_by_sft(written, tmp_path):
    trainer = TrlTrainer.open(spec_of(written(lora_dropout=0.0), variants=["lora_ga"]), tmp_path)
    trainer.check(["lora_ga"], Space(rank=[2], batch_size=[8]), {})
    assert math.isfinite(trainer.run(job("lora_ga")).value)


def test_no_warning_of_libraries_reaches_the_user(written, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        autolora.tune(spec=spec_of(written()), dir=tmp_path)
