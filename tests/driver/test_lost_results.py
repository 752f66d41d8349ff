"""A study ends with what is left of it, whatever was damaged, and says what is lost."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import autolora
from autolora import spec as specs
from autolora.driver.result import TuneResult
from autolora.recipes import RecipeError, write
from autolora.report.tables import result_table
from autolora.study.directory import read_study
from autolora.trainers import checkpoint
from tests.support.specs import SMALL_SPEC

DATA = {"train": "builtin:quickstart/train.jsonl", "eval_size": 24, "test_size": 16}
BUDGET = 4.5


def tune(folder: Path, budget: float = BUDGET, **arguments) -> TuneResult:
    terms = {**SMALL_SPEC, "variants": ["lora", "pissa"], "data": DATA, "budget": budget, "prior": "laws"}
    terms |= {"baseline": {"learning_rate": 1e-3, "rank": 2, "alpha": 4}}
    return autolora.tune(spec=specs.load({**terms, "confirm": 1}), dir=folder, **arguments)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> TuneResult:
    """A study of two variants, whose best have two seeds; its directory is only looked at."""
    return tune(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def folder(undisturbed, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(undisturbed.folder, tmp_path / "run"))


def winners(folder: Path, variant: str = "lora") -> list[int]:
    """Numbers of the trials of the best configuration, the best seed first."""
    table, _ = read_study(folder)
    best = TuneResult.load(folder)[variant]
    runs = [trial for trial in table.complete(variant) if trial.config == best.config]
    return [trial.number for trial in sorted(runs, key=lambda trial: trial.scores[2])]


def flip_a_bit(folder: Path, trial: int) -> None:
    (file,) = (folder / "trials" / str(trial)).glob("step-*/adapter.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def delete(folder: Path, trial: int) -> None:
    shutil.rmtree(folder / "trials" / str(trial))


DAMAGES = pytest.mark.parametrize("damage", [flip_a_bit, pytest.param(delete, marks=pytest.mark.slow)])


def adapter(result: TuneResult, variant: str = "lora") -> dict[str, torch.Tensor]:
    return load_file(Path(result[variant].adapter_dir) / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@DAMAGES
def test_where_one_seed_is_lost_another_stands_in(folder, undisturbed, damage):
    first, second = winners(folder)
    shutil.rmtree(folder / "best")
    damage(folder, first)
    result = tune(folder)
    assert result["lora"].config == undisturbed["lora"].config
    assert result["lora"].seeds == undisturbed["lora"].seeds
    (note,) = result["lora"].notes
    assert "of 2 seeds 1 lost" in note
    assert f"trial {first}" in note
    assert not same(adapter(result), adapter(undisturbed))
    delete(folder, second)
    assert tune(folder)["lora"].notes == (note,), "what was exported of it is whole"


@DAMAGES
def test_where_all_seeds_are_lost_the_next_best_stands_in_and_the_other_variant_is_as_it_was(
    folder, undisturbed, damage
):
    numbers = winners(folder)
    shutil.rmtree(folder / "best")
    for number in numbers:
        damage(folder, number)
    result = tune(folder)
    tuned = result["lora"]
    assert tuned.config != undisturbed["lora"].config
    assert tuned.value >= undisturbed["lora"].value or len(tuned.seeds) == 1
    (note,) = tuned.notes
    assert f"scored {undisturbed['lora'].value:.4f}, is lost, and the next best stands in" in note
    assert adapter(result)
    assert result["pissa"].seeds == undisturbed["pissa"].seeds
    assert result["pissa"].notes == ()
    assert same(adapter(result, "pissa"), adapter(undisturbed, "pissa"))


@DAMAGES
def test_what_was_exported_before_is_kept_where_checkpoints_are_lost(folder, undisturbed, damage):
    for number in winners(folder):
        damage(folder, number)
    result = tune(folder)
    assert result["lora"].notes == ()
    assert result["lora"].test == undisturbed["lora"].test
    assert same(adapter(result), adapter(undisturbed))


def test_a_damaged_export_is_written_again(folder, undisturbed):
    file = folder / "best" / "lora" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert same(adapter(tune(folder)), adapter(undisturbed))


def test_where_nothing_is_left_of_a_variant_the_result_has_its_scores_and_says_that_there_is_no_adapter(
    folder, undisturbed, tmp_path
):
    table, _ = read_study(folder)
    shutil.rmtree(folder / "best")
    for trial in table.complete("lora"):
        shutil.rmtree(folder / "trials" / str(trial.number), ignore_errors=True)
    result = tune(folder)
    assert result["lora"].seeds == undisturbed["lora"].seeds
    assert result["lora"].adapter_dir == ""
    assert "there is no adapter" in result["lora"].notes[0]
    assert TuneResult.load(folder)["lora"] == result["lora"]
    assert adapter(result, "pissa")
    with pytest.raises(RecipeError, match=r"there is no adapter.* With a budget of \S+ or more it is trained again"):
        write(folder, "lora", "peft", tmp_path / "out")


def test_the_result_table_shows_what_is_lost(folder, capsys):
    from rich.console import Console

    shutil.rmtree(folder / "best")
    for number in winners(folder):
        delete(folder, number)
    Console(width=300).print(result_table(tune(folder)))
    assert "lora: the best configuration" in capsys.readouterr().out


@DAMAGES
def test_what_was_lost_is_trained_again_and_charged_if_the_budget_holds_it(folder, undisturbed, damage):
    numbers = winners(folder)
    shutil.rmtree(folder / "best")
    for number in numbers:
        damage(folder, number)
    told = Losses()
    more = undisturbed.spent["lora"] + len(numbers)
    result = tune(folder, budget=more, callbacks=[told])
    assert sorted(told.trials) == sorted(numbers)
    assert result["lora"].notes == ()
    assert result["lora"].seeds == undisturbed["lora"].seeds
    assert same(adapter(result), adapter(undisturbed))
    assert result.spent["lora"] == pytest.approx(more)
    table, _ = read_study(folder)
    again = [trial for trial in table.of("lora") if trial.purpose == "repeat"]
    assert [trial.seed for trial in again] == sorted(table.trials[number].seed for number in numbers)
    assert all("as it was lost" in trial.origin for trial in again)


class Losses(autolora.Callback):
    def __init__(self) -> None:
        self.trials: list[int] = []

    def on_weights_lost(self, search, trial) -> None:
        self.trials.append(trial)


class StopAfter(autolora.Callback):
    """Stops the study as Ctrl-C does, once so many trials of plain LoRA are trained to the end."""

    def __init__(self, count: int) -> None:
        self.count = count

    def on_segment_end(self, search, job, outcome) -> None:
        if len(search.table.complete("lora")) >= self.count:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_what_is_lost_amid_a_study_leaves_room_in_the_budget_to_train_it_again(undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, callbacks=[StopAfter(1)])
    table, _ = read_study(tmp_path)
    (best,) = table.complete("lora")
    delete(tmp_path, best.number)
    result = tune(tmp_path)
    assert result["lora"].adapter_dir
    assert all(spent <= BUDGET for spent in result.spent.values())


@pytest.fixture
def partly_trained(make_trainer, tmp_path):
    """A trainer and a completed trial whose last checkpoint is damaged, with one of an earlier step before it."""
    from tests.support.trainer_contract import CONFIG, RUNGS, Job

    trainer, trials = make_trainer(data=DATA), tmp_path / "trials" / "0"
    job = Job(0, "lora", CONFIG, seed=0, start=0.0, stop=RUNGS[0], rung=0)
    trainer.run(job)
    (early,) = trials.iterdir()
    kept = shutil.copytree(early, tmp_path / "kept")
    trainer.run(Job(0, "lora", CONFIG, seed=0, start=RUNGS[0], stop=1.0, rung=1))
    shutil.copytree(kept, trials / early.name)  # as a kill before the pruning leaves it
    last = max(trials.iterdir())
    (last / "adapter.safetensors").write_bytes(b"damaged")
    return trainer


def test_an_adapter_that_is_trained_in_part_never_stands_in_for_a_finished_one(partly_trained, tmp_path):
    for use in (
        lambda: partly_trained.verify(0),
        lambda: partly_trained.test(0),
        lambda: partly_trained.export(0, tmp_path / "adapter"),
    ):
        with pytest.raises(checkpoint.LostCheckpointError, match="of those before, the last is of step 3 of 9"):
            use()
    assert not (tmp_path / "adapter").exists()


@pytest.mark.slow
def test_what_comes_back_is_not_trained_again(folder, undisturbed, tmp_path):
    away = tmp_path / "not mounted"
    shutil.move(folder / "trials", away)
    shutil.rmtree(folder / "best")
    tune(folder)
    table, _ = read_study(folder)
    assert table.weights_lost("lora")
    shutil.rmtree(folder / "trials", ignore_errors=True)
    shutil.move(away, folder / "trials")
    result = tune(folder, budget=BUDGET + 2)
    table, _ = read_study(folder)
    assert not table.weights_lost("lora")
    assert not any(trial.purpose == "repeat" for trial in table.trials)
    assert result["lora"].notes == ()


def test_an_adapter_that_an_earlier_version_exported_is_kept_where_checkpoints_are_gone(folder, undisturbed):
    for name in ("lora", "pissa"):
        settings = folder / "best" / name / "autolora.yaml"
        content = yaml.safe_load(settings.read_text())
        del content["trials"], content["files"], content["notes"]
        settings.write_text(yaml.safe_dump(content))
    shutil.rmtree(folder / "trials")
    result = tune(folder)
    assert result["lora"].notes == ()
    assert result["lora"].test == undisturbed["lora"].test
    assert same(adapter(result), adapter(undisturbed))
    weights = folder / "best" / "lora" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "there is no adapter" in tune(folder)["lora"].notes[0]


def test_the_budget_that_a_note_names_is_enough(folder):
    shutil.rmtree(folder / "best")
    for number in winners(folder):
        delete(folder, number)
    (note,) = tune(folder)["lora"].notes
    enough = float(re.search(r"With a budget of (\S+) or more", note)[1])
    assert tune(folder, budget=enough)["lora"].notes == ()
