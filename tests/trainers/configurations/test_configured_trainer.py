"""Trainers that run a tool with a file of the user's, by the contract and to a finished study, with stand-ins."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from autolora import tune
from autolora.search import Job
from autolora.space import Config, Space
from autolora.study.storage import StudyError
from autolora.trainers import open_trainer
from autolora.trainers.configurations import ConfigurationError
from tests.support.configured import FILES, study
from tests.support.trainer_contract import CONFIG, TrainerContract, piece


class ConfiguredContract(TrainerContract):
    kind = ""

    @pytest.fixture(scope="class")
    def make_trainer(self, tmp_path_factory):
        files = tmp_path_factory.mktemp("files")
        return lambda folder, **settings: open_trainer(study(self.kind, files, **settings), folder)

    stops_at_once = False

    def refuse(self, trainer):
        with pytest.raises(ConfigurationError, match="whole alpha"):
            trainer.check(["lora"], Space(rank=4, alpha=1.4), {"lora": CONFIG})


@pytest.mark.slow
class TestLlamaFactory(ConfiguredContract):
    kind = "llamafactory"


@pytest.mark.slow
class TestAxolotl(ConfiguredContract):
    kind = "axolotl"


def seed_of(trainer, trial: int) -> int:
    return yaml.safe_load((trainer.work(trial) / "config.yaml").read_text())["seed"]


@pytest.mark.parametrize("kind", FILES)
def test_a_study_ends_with_the_adapter_of_the_best_trial(kind, tmp_path):
    """PiSSA, whose start alters the base, so that what is exported has to be converted; trained in two segments."""
    spec = study(kind, tmp_path, variants=["pissa"], rungs=[1 / 3, 1.0], budget=1)
    result = tune(spec=spec, dir=tmp_path / "run")
    best = result["pissa"]
    assert best.config == Config(5e-3, 8, 4, 8.0)  # the file's, trained first
    run = tmp_path / "run" / "trials" / "0" / "work"
    [last] = [path for path in (run / "output").iterdir() if path.name == "checkpoint-12"]
    logs = json.loads((last / "trainer_state.json").read_text())["log_history"]
    assert best.value == [each["eval_loss"] for each in logs if "eval_loss" in each][-1]
    tokens = torch.tensor([[3, 4, 5, 6]])

    def logits(base, adapter):
        with torch.no_grad():
            return PeftModel.from_pretrained(base, adapter)(tokens).logits

    base = AutoModelForCausalLM.from_pretrained(run / "base")
    exported = logits(base, tmp_path / "run" / "best" / "pissa")
    # as trained: the start, computed once more, with the checkpoint's weights
    trained = logits(AutoModelForCausalLM.from_pretrained(run / "base"), last)
    assert torch.allclose(exported, trained, atol=1e-5)
    assert not torch.allclose(exported, AutoModelForCausalLM.from_pretrained(run / "base")(tokens).logits, atol=1e-3)


class TestCrashes:
    @pytest.fixture(scope="class")
    def trainer(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("study")
        return open_trainer(study("llamafactory", folder), folder / "run")

    @pytest.fixture(scope="class")
    def uncut(self, trainer):
        return trainer.run(piece(0, rung=1)).value

    def test_a_score_in_the_checkpoint_of_the_tool_is_taken_without_training(self, trainer, uncut):
        for path in trainer.trials.folder(0).glob("step-*/*"):
            path.unlink()  # killed before its checkpoint was committed
        again = trainer.run(piece(0, rung=1), lambda progress: pytest.fail("trained again"))
        assert again.value == uncut

    def test_a_checkpoint_that_was_cut_short_is_passed_over(self, trainer, uncut):
        trainer.run(piece(1, rung=0))
        torn = trainer.work(1) / "output" / "checkpoint-9"
        torn.mkdir()
        (torn / "adapter_model.safetensors").write_bytes(b"half")
        (torn / "trainer_state.json").write_text('{"log_his')
        assert trainer.run(piece(1, rung=1)).value == uncut
        config = yaml.safe_load((trainer.work(1) / "config.yaml").read_text())
        assert config["resume_from_checkpoint"] == str(trainer.work(1) / "output" / "checkpoint-4")

    def test_a_loss_that_is_nan_is_seen(self, trainer):
        outcome = trainer.run(piece(2, rung=1, config=CONFIG.replaced(learning_rate=1e30)))
        assert outcome.kind == "diverged"


class TestChecks:
    def test_a_length_that_nothing_says_is_asked_for(self, tmp_path):
        text = FILES["axolotl"].replace("max_steps: 12\n", "num_epochs: 3\n")
        with pytest.raises(ConfigurationError, match=r"trainer\.examples.*max_steps in the file"):
            open_trainer(study("axolotl", tmp_path, text), tmp_path / "run")
        given = study("axolotl", tmp_path, text, {"examples": 640})
        assert open_trainer(given, tmp_path / "run").examples == 640

    @pytest.mark.parametrize(
        ("kind", "variants", "space", "says"),
        [
            ("llamafactory", ["lora", "hira"], {"alpha": "rank"}, "no option for HiRA"),
            ("llamafactory", ["olora"], {"alpha": "rank"}, "no option for OLoRA"),
            ("axolotl", ["lora"], {"alpha": 2.5}, "whole alpha, and 2.5 of lora"),
            ("axolotl", ["lora"], {"alpha": (2.0, 64.0)}, "range from 10"),
        ],
    )
    def test_what_a_tool_cannot_be_told_is_refused(self, tmp_path, kind, variants, space, says):
        trainer = open_trainer(study(kind, tmp_path), tmp_path / "run")
        with pytest.raises(ConfigurationError, match=says):
            trainer.check(variants, Space(**space), {})

    @pytest.mark.parametrize("alpha", ["law", "rank", 16, [16.0, 32.0], (16.0, 64.0)])
    def test_alphas_that_can_be_rounded_are_taken(self, tmp_path, alpha):
        trainer = open_trainer(study("axolotl", tmp_path), tmp_path / "run")
        trainer.check(["lora", "rslora", "dora", "olora"], Space(alpha=alpha), {})

    def test_processes_share_a_batch(self, tmp_path):
        trainer = open_trainer(study("axolotl", tmp_path, trainer={"devices": 2}), tmp_path / "run")
        assert trainer.baseline().batch_size == 16
        with pytest.raises(ConfigurationError, match="9 is not a multiple"):
            trainer.check(["lora"], Space(batch_size=[8, 9], alpha="rank"), {})

    def test_the_file_may_change_in_what_trials_replace_and_in_nothing_else(self, tmp_path):
        def digest(**changes):
            text = FILES["llamafactory"]
            for key, value in changes.items():
                text = "\n".join(line for line in text.splitlines() if not line.startswith(f"{key}:"))
                text += f"\n{key}: {value}\n"
            return open_trainer(study("llamafactory", tmp_path, text), tmp_path / "run").fingerprints()

        assert digest(learning_rate="1e-4", lora_rank=64, output_dir="x") == digest()
        assert digest(lr_scheduler_type="linear") != digest()
        assert digest(dataset="others") != digest()

    @pytest.mark.parametrize(
        ("kind", "packing"),
        [
            ("axolotl", "sample_packing: true"),
            ("llamafactory", "packing: true"),
            ("llamafactory", "neat_packing: true"),
            ("llamafactory", "stage: pt"),
        ],
    )
    def test_of_packed_rows_sequences_are_counted(self, tmp_path, kind, packing):
        def about(text, **trainer):
            trainer = open_trainer(study(kind, tmp_path, text, trainer), tmp_path / "run")
            return " ".join(trainer.about().get("warning", ()))

        text = FILES[kind] + packing + "\n"
        endless = text.replace("max_steps: 12\n", "")
        with pytest.raises(ConfigurationError, match=rf"packed sequences times the epochs.*{packing}"):
            about(endless)
        said = about(endless, examples=640)
        assert all(each in said for each in (packing, "packed sequences", "640"))
        assert "a full run has 96" in about(text, examples=640)
        assert "packed" not in about(text)
        assert "packed" not in about(endless.replace("true", "false").replace("stage: pt", ""), examples=640)

    def test_keys_that_the_tool_does_not_know_are_said(self, tmp_path):
        text = FILES["llamafactory"] + "lora_dropuot: 0.1\n"
        about = open_trainer(study("llamafactory", tmp_path, text), tmp_path / "run").about()
        assert any("lora_dropuot (did you mean lora_dropout?)" in line for line in about["warning"])


@pytest.mark.parametrize(("variants", "said"), [(["lora"], True), (["lora", "dora"], False)])
def test_a_variant_of_the_file_that_is_not_tuned_is_said(tmp_path, variants, said):
    spec = study("llamafactory", tmp_path, FILES["llamafactory"] + "use_dora: true\n", variants=variants)
    warned = open_trainer(spec, tmp_path / "run").about()["warning"]
    assert any("use_dora of the file is not used" in line for line in warned) is said


def test_a_job_of_another_seed_trains_with_another(tmp_path):
    trainer = open_trainer(study("axolotl", tmp_path), tmp_path / "run")
    values = {trainer.run(Job(n, "lora", CONFIG, seed=n, start=0.0, stop=1 / 3, rung=0)).value for n in range(2)}
    assert len(values) == 2
    assert seed_of(trainer, 0) != seed_of(trainer, 1)


def test_a_start_that_is_refused_changes_no_record(tmp_path):
    spec = study("llamafactory", tmp_path, budget=1, rungs=[1.0])
    tune(spec=spec, dir=tmp_path / "run")
    before = (tmp_path / "run" / "spec.yaml").read_text()
    changed = FILES["llamafactory"].replace("5e-3", "7e-3")
    other = study("llamafactory", tmp_path, changed, budget=2, rungs=[1.0], trainer={"cwd": str(tmp_path / "run")})
    with (
        pytest.warns(UserWarning, match=r"trainer\.cwd"),
        pytest.raises(
            StudyError, match=r"other terms: baseline.*0\.005 -> 0\.007.*llamafactory\.yaml says the baseline"
        ),
    ):
        tune(spec=other, dir=tmp_path / "run")
    assert (tmp_path / "run" / "spec.yaml").read_text() == before
