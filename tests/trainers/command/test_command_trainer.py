"""The trainer of command lines, by the contract; and a whole study with one."""

from __future__ import annotations

import json

import numpy as np
import pytest

import autolora
from autolora.search import Job
from autolora.space import Space
from autolora.study.directory import read_study
from autolora.trainers.command.errors import CommandError
from tests.support.commands import TRAINS, command_spec, command_trainer, job
from tests.support.trainer_contract import TrainerContract, piece


class TestCommandTrainer(TrainerContract):
    stops_at_once = False

    @pytest.fixture(scope="class")
    def make_trainer(self):
        return lambda folder, **settings: command_trainer(folder, f"{TRAINS} --pause 0.03", **settings)

    def refuse(self, trainer):
        for text in ("{learning_rat}", "{dropout}"):
            other = command_trainer(trainer.folder, f"{TRAINS} {text}")
            with pytest.raises(CommandError, match=text):
                other.check(["lora"], Space(rank=4), {})

    def test_a_run_that_is_cut_writes_what_one_that_is_not_writes(self, trainer, uncut):
        for rung in range(2):
            trainer.run(piece(8, rung=rung))
        whole, cut = (np.load(trainer.work(trial) / "state.npz")["weights"] for trial in (0, 8))
        assert (whole == cut).all()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    starts = folder / "starts"
    spec = command_spec(f"{TRAINS} --starts {starts}", baseline={"learning_rate": 3e-2, "rank": 4, "alpha": 8})
    return autolora.tune(spec=spec, dir=folder / "run"), starts, folder / "run"


def test_a_study_ends_with_the_winner_s_folder_exported(tuned):
    result, _, folder = tuned
    best = json.loads((folder / "best.json").read_text())["variants"]["lora"]
    assert best["value"] == result["lora"].value
    assert best["baseline"] is not None
    exported = folder / "best" / "lora"
    assert {path.name for path in exported.iterdir()} == {"state.npz", "autolora.yaml"}
    weights = np.load(exported / "state.npz")["weights"]
    table, _ = read_study(folder)
    winners = [trial for trial in table.trials if trial.config == result["lora"].config and trial.outcome == "complete"]
    kept = [np.load(folder / "trials" / str(each.number) / "work" / "state.npz")["weights"] for each in winners]
    assert any((weights == each).all() for each in kept)


def test_no_step_of_it_is_trained_twice(tuned):
    lines = tuned[1].read_text().splitlines()
    steps = [line for line in lines if line.startswith("step")]
    assert len(steps) == len(set(steps)) > 9


def test_output_stays_for_every_trial(tuned):
    _, _, folder = tuned
    table, _ = read_study(folder)
    assert {int(path.stem) for path in (folder / "logs").glob("*.log")} == {each.number for each in table.trials}


def test_it_goes_on_with_a_larger_budget_and_trains_nothing_again(tuned):
    _, starts, folder = tuned
    before = starts.read_text().splitlines()
    autolora.resume(folder, budget=3)
    assert starts.read_text().splitlines() == before
    result = autolora.resume(folder, budget=4)
    steps = [line for line in starts.read_text().splitlines() if line.startswith("step")]
    assert len(steps) == len(set(steps))
    assert result.spent["lora"] <= 4


def test_the_folder_of_a_trial_is_shed_with_its_weights_and_what_the_verdict_reads_stays(tmp_path):
    from autolora.trainers import checkpoint

    trainer = command_trainer(tmp_path)
    outcome = trainer.run(job())
    checkpoint.shed(trainer.trials.folder(0))
    assert [path.name[:5] for path in (tmp_path / "trials" / "0").iterdir()] == ["step-"]
    assert checkpoint.read_manifest(trainer.trials.folder(0)).scores == {2: outcome.value}
    with pytest.raises(checkpoint.LostCheckpointError, match="keep"):
        trainer.verify(0)
    checkpoint.discard(trainer.trials.folder(0))
    assert not (tmp_path / "trials" / "0").exists()
    assert trainer.log(0).read_text().count("===") == 2


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_a_folder_that_is_not_as_it_was_left_is_lost(tmp_path, damage):
    from autolora.trainers import checkpoint

    trainer = command_trainer(tmp_path)
    trainer.run(job())
    file = trainer.work(0) / "state.npz"
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(checkpoint.LostCheckpointError, match=r"state\.npz is gone or has changed"):
        trainer.verify(0)


def test_a_folder_of_another_configuration_is_not_continued(tmp_path):
    """As after study.db was removed: without a score, no checkpoint says whose it is."""
    from autolora.trainers.checkpoint import CheckpointError

    with pytest.raises(CommandError):
        command_trainer(tmp_path, f"{TRAINS} --no-such-option").run(job())
    other = Job(0, "lora", job().config.replaced(rank=2), seed=0, start=0.0, stop=1.0, rung=2)
    with pytest.raises(CheckpointError, match="another study or configuration"):
        command_trainer(tmp_path, f"{TRAINS} --no-such-option").run(other)


def test_checkpoints_behind_a_url_are_refused(tmp_path):
    with pytest.raises(CommandError, match=r"s3://bucket/study is a URL.*give a folder"):
        command_trainer(tmp_path, checkpoints="s3://bucket/study")


def test_checkpoints_may_be_elsewhere(tmp_path):
    trainer = command_trainer(tmp_path / "run", checkpoints=str(tmp_path / "elsewhere"))
    trainer.run(job())
    assert (tmp_path / "elsewhere" / "trials" / "0" / "work" / "state.npz").is_file()
    assert (tmp_path / "run" / "logs" / "0.log").is_file()


def test_without_early_stop_every_trial_is_trained_to_the_end_and_that_is_said(tmp_path):
    spec = command_spec(trainer={"early_stop": False})
    assert spec.rungs == (1.0,)
    trainer = command_trainer(tmp_path, trainer={"early_stop": False})
    assert any("early_stop is false" in line for line in trainer.about()["training"])
    result = autolora.tune(spec=spec, dir=tmp_path / "run")
    assert all(trial.promotions == [] for trial in read_study(tmp_path / "run")[0].trials)
    assert result.spent["lora"] == 3
