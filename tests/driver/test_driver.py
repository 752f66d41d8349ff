"""The whole loop on the shipped model: results, resuming, refusing, interrupting."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import signal
import sqlite3

import optuna
import pytest
import yaml
from rich.console import Console

import autolora
import autolora.study
from autolora import driver
from autolora import spec as specs
from autolora.driver.plan import dry_run
from autolora.driver.result import TuneResult
from autolora.recipes.recipe import Recipe
from autolora.report.status import read_status
from autolora.report.summary import setting
from autolora.report.tables import plan_view, result_table
from autolora.study.directory import read_study
from autolora.trainers.checkpoint import example_scores
from autolora.variants.lora_ga import LoraGA
from tests.support.specs import SMALL_SPEC

BASELINE = {"learning_rate": 2e-4, "rank": 2, "alpha": 4}


def tune(folder, callbacks=(), **overrides):
    given = {**SMALL_SPEC, "budget": 2, **overrides}
    return autolora.tune(spec=specs.load(given), dir=folder, callbacks=callbacks)


def forget_rows(folder) -> None:
    """Make the study one of an earlier version, which recorded no row scores."""
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database, database:
        assert database.execute("DELETE FROM trial_user_attributes WHERE key = 'rows'").rowcount > 0


def shown(folder) -> str:
    """What `autolora status` prints."""
    status, console = read_status(folder), Console(width=160)
    with console.capture() as captured:
        console.print(status.table, *status.lines)
    return captured.get()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small study of two variants that has come to its end, with a test split and confirmation."""
    folder = tmp_path_factory.mktemp("finished")
    data = {"train": "builtin:quickstart/train.jsonl", "eval_size": 24, "test_size": 16}
    return tune(folder, variants=["lora", "pissa"], budget=5, data=data, baseline=BASELINE)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The result of a study of plain LoRA that ends after a short search."""
    return tune(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The result of a study that is a baseline alone; its directory is only looked at."""
    return tune(tmp_path_factory.mktemp("single"), budget=1)


def test_every_variant_gets_a_configuration_inside_the_space_or_its_baseline(finished):
    for tuned in finished.values():
        assert tuned.config.rank in (2, 4)
        assert tuned.config.batch_size in (4, 8)
        assert 1e-4 <= tuned.learning_rate <= 3e-2


def test_the_tuned_value_is_the_mean_over_seeds(finished):
    for tuned in finished.values():
        assert len(tuned.seeds) == 2
        assert tuned.value == pytest.approx(math.fsum(tuned.seeds) / 2)
        assert tuned.spread > 0


def test_tuning_does_not_end_worse_than_the_baseline_by_more_than_the_spread(finished):
    for tuned in finished.values():
        assert tuned.value <= tuned.baseline + 2 * tuned.spread


def test_without_a_baseline_of_the_user_there_is_none(small):
    assert small["lora"].baseline is None


def test_the_test_split_is_scored_at_the_end(finished):
    assert all(math.isfinite(tuned.test) for tuned in finished.values())


def test_the_budget_is_a_cap(finished):
    assert all(spent <= 5 for spent in finished.spent.values())


def test_best_json_says_what_the_result_says(finished):
    content = json.loads((finished.folder / "best.json").read_text())
    assert content["variants"]["pissa"]["value"] == finished["pissa"].value
    assert content["variants"]["pissa"]["config"]["rank"] == finished["pissa"].config.rank
    assert set(content) >= {"variants", "spent", "versions"}
    assert content["versions"]["torch"]
    assert TuneResult.load(finished.folder)["lora"] == finished["lora"]


def test_the_recommendation_is_read_back_as_it_was_written(finished):
    again = TuneResult.load(finished.folder)
    assert again.verdict == finished.verdict
    assert dict(again) == dict(finished)
    content = json.loads((finished.folder / "best.json").read_text())
    assert content["verdict"]["text"] == finished.verdict.text
    assert content["variants"]["lora"]["smallest"]["config"]["rank"] == finished["lora"].smallest.config.rank


def test_the_recommended_are_fully_trained_and_within_the_space_of_the_study(finished):
    table, _ = read_study(finished.folder)
    for name, tuned in finished.items():
        trained = {trial.config for trial in table.complete(name)}
        assert {tuned.smallest.config, tuned.cheapest.config} <= trained
        assert tuned.smallest.config.rank <= tuned.config.rank
        assert 0 < tuned.cheapest.seconds <= tuned.run_seconds <= tuned.seconds


def test_variants_are_compared_over_seeds_and_examples(finished):
    verdict = finished.verdict
    assert (verdict.reference, verdict.noise) == ("lora", "seeds, examples and tuning")
    one = verdict.differences["pissa"]
    assert one.value == pytest.approx(finished["pissa"].value - finished["lora"].value)
    assert one.low < one.value < one.high
    assert one.example_error > 0


def test_a_study_whose_checkpoints_tell_nothing_of_examples_is_judged_by_seeds(finished, tmp_path):
    """As those of earlier versions."""
    folder = tmp_path / "old"
    shutil.copytree(finished.folder, folder)
    forget_rows(folder)
    for path in folder.glob("trials/*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["totals"], manifest["weights"]
        path.write_text(json.dumps(manifest))
    content = json.loads((folder / "best.json").read_text())
    del content["verdict"]
    for tuned in content["variants"].values():
        for key in ("run_seconds", "noise", "smallest", "cheapest"):
            del tuned[key]
    (folder / "best.json").write_text(json.dumps(content))
    assert TuneResult.load(folder).verdict is None
    again = driver.tune(spec=specs.load(folder / "spec.yaml"), dir=folder)
    assert again.verdict.noise == "seeds and tuning"
    assert again["lora"].smallest == finished["lora"].smallest


def test_what_is_recommended_is_shown(finished):
    shown = Console(width=200, file=io.StringIO())
    shown.print(result_table(finished))
    text = shown.file.getvalue()
    assert "As good as the best within noise (one standard error over seeds):" in text
    assert "smallest rank" in text
    assert "a full run" in text
    assert f"Verdict: {finished.verdict.text}"[:100] in text


def test_a_single_full_run_says_that_noise_is_unknown_only_where_it_is(single):
    shown = Console(width=200, file=io.StringIO())
    shown.print(result_table(single))
    assert "the best itself" in shown.file.getvalue()
    assert "Verdict" not in shown.file.getvalue()


def test_the_adapter_loads_with_plain_peft_and_scores_what_the_study_says(finished):
    """On a base of its own, loaded afresh; the loss computed by transformers, row by row."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from autolora.quickstart import resolve
    from autolora.trainers.builtin.workbench import Workbench

    bench = Workbench.open(specs.load(finished.folder / "spec.yaml"), finished.folder)
    for tuned in finished.values():
        base = AutoModelForCausalLM.from_pretrained(resolve("builtin:quickstart"), dtype=torch.float32)
        model = PeftModel.from_pretrained(base, tuned.adapter_dir).eval()
        total = count = 0.0
        with torch.no_grad():
            for row in range(len(bench.data.eval)):
                batch = bench.data.eval.batch([row], bench.base.pad_token_id)
                targets = int((batch["labels"][:, 1:] != -100).sum())
                total += float(model(**batch).loss) * targets
                count += targets
        assert total / count == pytest.approx(min(tuned.seeds), rel=1e-4)


def test_status_says_the_same_once_the_checkpoints_are_gone(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    before = shown(folder)
    assert "95% interval" in before
    shutil.rmtree(folder / "trials")
    assert shown(folder) == before


def test_status_of_an_earlier_version_s_study_reads_row_scores_from_checkpoints(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    before = shown(folder)
    forget_rows(folder)
    assert shown(folder) == before
    shutil.rmtree(folder / "trials")
    assert "examples and tuning" not in shown(folder)


def test_the_study_holds_the_row_scores_of_full_runs_exactly(finished):
    table, plan = read_study(finished.folder)
    complete = [trial for name in plan.variants for trial in table.complete(name)]
    manifests = example_scores(finished.folder, [trial.number for trial in complete])
    assert {trial.number: trial.rows for trial in complete} == manifests
    assert all(len(trial.rows.totals) == 24 for trial in complete)
    assert all(trial.rows is None for trial in table.trials if plan.last not in trial.scores)


def test_checkpoints_of_trials_that_were_decided_against_are_gone(finished):
    table, _ = read_study(finished.folder)
    kept = {int(path.name) for path in (finished.folder / "trials").iterdir()}
    assert kept == {trial.number for trial in table.trials if trial.outcome in ("complete", None)}


def test_the_study_opens_in_plain_optuna(finished):
    study = optuna.load_study(study_name="autolora", storage=f"sqlite:///{finished.folder / 'study.db'}")
    frame = study.trials_dataframe()
    assert set(frame["state"]) <= {"COMPLETE", "PRUNED", "RUNNING"}  # paused trials go on under a larger budget
    assert {"params_learning_rate", "params_variant", "user_attrs_origin"} <= set(frame.columns)
    assert study.best_value == min(min(tuned.seeds) for tuned in finished.values())


def test_starting_a_finished_study_again_trains_nothing(finished, monkeypatch):
    from autolora.trainers.builtin import segment

    monkeypatch.setattr(segment, "run", lambda *_: pytest.fail("trained again"))
    again = driver.tune(spec=specs.load(finished.folder / "spec.yaml"), dir=finished.folder)
    assert {name: tuned.value for name, tuned in again.items()} == {n: t.value for n, t in finished.items()}


def test_a_missing_variant_is_named_with_those_there_are(finished):
    with pytest.raises(KeyError, match=r"dora.*finished: lora, pissa"):
        finished["dora"]


def test_a_larger_budget_continues_the_study(single, tmp_path):
    folder = shutil.copytree(single.folder, tmp_path / "run")
    first, _ = read_study(folder)
    result = tune(folder, budget=2)
    second, _ = read_study(folder)
    assert len(first.trials) == 1
    assert second.trials[0].scores == first.trials[0].scores
    assert len(second.trials) > 1
    assert 1 < result.spent["lora"] <= 2


def test_a_changed_specification_is_refused_with_the_difference(single):
    with pytest.raises(driver.RunDirectoryError, match=r"seed: 0 -> 7"):
        tune(single.folder, budget=1, seed=7)
    assert yaml.safe_load((single.folder / "spec.yaml").read_text())["seed"] == 0


def test_a_second_process_is_refused_and_told_who_holds_the_directory(tmp_path):
    refused = pytest.raises(driver.RunDirectoryError, match=f"pid {os.getpid()}")
    with driver.run_directory(tmp_path, specs.load(SMALL_SPEC)), refused:
        tune(tmp_path)


def test_the_directory_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with driver.run_directory(tmp_path, specs.load(SMALL_SPEC)):
            pass


def test_the_users_baseline_is_trained_first_and_compared_with(tmp_path):
    baseline = {"learning_rate": 5e-5, "rank": 3, "alpha": 7.0}
    result = tune(tmp_path, budget=2, baseline=baseline)
    table, _ = read_study(tmp_path)
    assert table.trials[0].config == autolora.Config(5e-5, 4, 3, 7.0)
    assert result["lora"].baseline == table.trials[0].scores[2]


def test_the_users_alpha_does_not_hold_for_a_variant_of_one_scale(tmp_path):
    baseline = {"learning_rate": 5e-5, "rank": 4, "alpha": 7.0}
    tune(tmp_path, budget=1, baseline=baseline, variants=["loft", "lora"])
    table, _ = read_study(tmp_path)
    assert {trial.variant: trial.config.alpha for trial in table.trials} == {"loft": 4.0, "lora": 7.0}


def test_a_rank_that_blocks_do_not_divide_is_refused_before_training(tmp_path):
    with pytest.raises(autolora.variants.VariantError, match="rank 3 must be divisible"):
        tune(tmp_path, space={"rank": [2, 3]}, variants=["gralora"])
    assert not (tmp_path / "trials").exists()


def test_a_rank_above_a_layers_size_is_refused_before_training(tmp_path):
    with pytest.raises(autolora.variants.VariantError, match="rank 512"):
        tune(tmp_path, space={"rank": [8, 512]})
    assert not (tmp_path / "trials").exists()


class InterruptOnce(autolora.Callback):
    """Presses Ctrl-C at the given optimizer step."""

    def __init__(self, at: int) -> None:
        self.left = at

    def on_step(self, progress) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_checkpoints_and_the_same_call_continues_to_the_same_result(small, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, callbacks=[InterruptOnce(at=7)])
    steps_before = [path.name for path in (tmp_path / "trials").glob("*/*")]
    assert any(name.startswith("step-000000001-") for name in steps_before)  # of the fourth trial: each begins with 2
    resumed = tune(tmp_path)
    assert resumed["lora"].seeds == small["lora"].seeds
    assert resumed["lora"].config == small["lora"].config


def test_the_same_seed_gives_the_same_study(small, tmp_path):
    again = tune(tmp_path)
    assert again["lora"].seeds == small["lora"].seeds
    assert again["lora"].config == small["lora"].config


def test_diverged_trials_are_recorded_with_their_reason_and_never_win(tmp_path):
    space = {"learning_rate": [1e-3, 300.0], "batch_size": 4, "rank": 2}
    training = {**SMALL_SPEC["training"], "examples": 160}
    baseline = {"learning_rate": 100.0, "batch_size": 4, "rank": 2, "alpha": 2}
    tune(tmp_path, space=space, prior=None, rungs=[0.5, 1.0], training=training, baseline=baseline)
    table, _ = read_study(tmp_path)
    diverged = [trial for trial in table.trials if trial.outcome == "diverged"]
    assert diverged
    assert all(trial.reason and trial.stopped_at < 1 for trial in diverged)
    winner = TuneResult.load(tmp_path)["lora"].config
    assert winner not in {trial.config for trial in diverged}


def test_an_error_in_the_users_metric_stops_with_it_and_loses_nothing(tmp_path, monkeypatch):
    broken = "def score(model, tokenizer, rows):\n    raise ZeroDivisionError('mine')\n"
    (tmp_path / "broken_metric.py").write_text(broken)
    monkeypatch.chdir(tmp_path)
    metric = {"name": "broken_metric:score", "direction": "minimize"}
    with pytest.raises(ZeroDivisionError, match="mine"):
        tune(tmp_path / "run", budget=1, metric=metric)
    (tmp_path / "broken_metric.py").write_text("def score(model, tokenizer, rows):\n    return float(len(rows))\n")
    import sys

    del sys.modules["broken_metric"]
    assert tune(tmp_path / "run", budget=1, metric=metric)["lora"].value == 24


def test_a_model_object_and_a_dataset_object_are_taken(tmp_path, base):
    from datasets import Dataset

    rows = [{"prompt": f"number {i}", "completion": f"it is {i + 1}"} for i in range(60)]
    result = autolora.tune(
        model=base.model,
        data=Dataset.from_list(rows),
        variants=["lora"],
        budget=1,
        space=autolora.Space(batch_size=[8], rank=[2]),
        training={"examples": 24, "max_length": 64, "device": "cpu"},
        dir=tmp_path,
    )
    assert math.isfinite(result["lora"].value)


def test_no_prior_can_be_asked_for_from_python(tmp_path):
    settings = {**SMALL_SPEC, "budget": 1}
    autolora.tune(settings.pop("model"), settings.pop("data"), dir=tmp_path, prior=None, **settings)
    assert yaml.safe_load((tmp_path / "spec.yaml").read_text())["prior"] is None


def test_a_specification_that_failed_before_any_study_may_be_corrected(tmp_path):
    with pytest.raises(autolora.variants.VariantError):
        tune(tmp_path, budget=1, space={"rank": [512]})
    assert tune(tmp_path, budget=1, space={"rank": [2], "batch_size": [8]}).spent["lora"] == 1


def test_data_that_changed_under_a_study_is_refused(tmp_path):
    rows = [{"prompt": f"number {i}", "completion": f"it is {i + 1}"} for i in range(60)]
    file = tmp_path / "rows.jsonl"
    settings = {"data": {"train": str(file), "eval_size": 8}, "training": {"examples": 16, "max_length": 64}}
    file.write_text("\n".join(map(json.dumps, rows)))
    tune(tmp_path / "run", budget=1, **settings)
    file.write_text("\n".join(json.dumps({**row, "completion": "zz"}) for row in rows))
    with pytest.raises(autolora.study.StudyError, match=r"context.data"):
        tune(tmp_path / "run", budget=2, **settings)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A study of LoRA-GA with its gamma opened; and the gammas that the variant started with."""
    started = []
    initialize = LoraGA.initialize

    def spy(variant, *arguments):
        started.append(variant.gamma)
        initialize(variant, *arguments)

    folder = tmp_path_factory.mktemp("opened")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoraGA, "initialize", spy)
        space = {**SMALL_SPEC["space"], "options": {"lora_ga.gamma": [4, 64]}}
        result = tune(folder, variants=["lora_ga"], space=space, budget=3, prior="laws")
    return result, started


def test_an_option_that_is_searched_reaches_the_variant(opened):
    result, started = opened
    table, _ = read_study(result.folder)
    assert {dict(trial.config.options)["gamma"] for trial in table.trials} == set(started) == {4, 64}


def test_a_tuned_option_is_in_best_json_and_beside_the_adapter(opened):
    result, _ = opened
    written = json.loads((result.folder / "best.json").read_text())["variants"]["lora_ga"]["config"]
    beside = yaml.safe_load((result.folder / "best" / "lora_ga" / "autolora.yaml").read_text())["config"]
    assert written["options"] == beside["options"] == dict(result["lora_ga"].config.options)
    assert TuneResult.load(result.folder)["lora_ga"] == result["lora_ga"]


def test_a_tuned_option_is_shown_with_the_result(opened):
    result, _ = opened
    shown = Console(width=200, file=io.StringIO())
    shown.print(result_table(result))
    [(name, value)] = result["lora_ga"].config.options
    assert f"{name} {value}" in shown.file.getvalue()


def test_a_tuned_option_is_in_the_recipe(opened):
    result, _ = opened
    assert Recipe.load(result.folder, "lora_ga").variant.options == dict(result["lora_ga"].config.options)


def test_every_choice_of_an_option_is_checked_before_training(tmp_path, monkeypatch):
    def refuse(variant, start):
        if (variant.gamma, start.rank) == (64, 4):
            raise autolora.variants.VariantError("gamma 64 at rank 4")

    monkeypatch.setattr(LoraGA, "check", refuse)
    space = {**SMALL_SPEC["space"], "options": {"lora_ga.gamma": [4, 64]}}
    with pytest.raises(autolora.variants.VariantError, match="gamma 64 at rank 4"):
        tune(tmp_path, variants=["lora_ga"], space=space)
    assert not (tmp_path / "trials").exists()


def test_a_line_on_a_configuration_names_its_options():
    assert setting(autolora.Config(1e-3, 8, 4, 4.0, {"gamma": 16})).endswith("alpha 4  gamma 16")
    assert setting(autolora.Config(1e-3, 8, 4, 4.0)).endswith("alpha 4")


def test_a_dry_run_shows_the_options_of_the_first_trials(tmp_path):
    space = {**SMALL_SPEC["space"], "options": {"lora_ga.gamma": [4, 64]}}
    spec = specs.load({**SMALL_SPEC, "variants": ["lora_ga"], "space": space, "prior": "laws"})
    shown = Console(width=200, file=io.StringIO())
    shown.print(plan_view(dry_run(spec, tmp_path), spec, tmp_path))
    assert "gamma 4" in shown.file.getvalue()
