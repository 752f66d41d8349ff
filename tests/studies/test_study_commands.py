"""Every study runs, small, from its command to what it writes."""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from autolora import driver
from autolora import spec as specs
from autolora.cli import cli
from autolora.driver.result import TuneResult
from studies.curves.design import GRIDS, TABLES, Cell, Grid, beside_the_best, law_alpha
from studies.curves.surface import Setting, curves
from studies.search.measures import GRID
from studies.search.methods import METHODS, in_group
from studies.search.rows import COLUMNS

ROOT = Path(__file__).parents[2]
TEXTS = [
    *(ROOT / "studies").rglob("*.py"),
    *(ROOT / "studies").rglob("*.md"),
    ROOT / "README.md",
    ROOT / "Makefile",
    *(ROOT / "autolora").rglob("*.py"),
]
STUDIES = sorted((ROOT / "studies").rglob("*.py"))
SPECIFICATIONS = sorted((ROOT / "studies").rglob("*.yaml"))
SMALL: dict[str, Any] = {
    "model": "builtin:quickstart",
    "data": {
        "train": "builtin:quickstart/train.jsonl",
        "eval": "builtin:quickstart/test.jsonl",
        "eval_size": 8,
        "test": "builtin:quickstart/test.jsonl",
        "test_size": 8,
    },
    "variants": ["lora", "pissa"],
    "space": {"learning_rate": [1e-3, 3e-2], "batch_size": 8, "rank": 4},
    "training": {"examples": 16, "max_length": 64, "device": "cpu"},
    "prior": "laws",
    "budget": 2,
}

Study = Callable[..., None]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    """``study(name, *arguments)``: what ``python -m studies.name arguments`` runs, in this process."""

    def run(name: str, *arguments: object) -> None:
        module = importlib.import_module(f"studies.{name}")
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        module.main()

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A specification file on the shipped model and task, of seconds."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a finished study of that specification."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    driver.tune(spec=specs.load(SMALL), dir=folder)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def finite(*values: object) -> bool:
    return all(math.isfinite(float(value)) for value in values)  # type: ignore[arg-type]


def cells(line: str) -> list[str]:
    """Of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


# Commands


def test_every_command_that_is_named_is_a_module() -> None:
    named = {name for path in TEXTS for name in re.findall(r"-m (studies\.[\w.]*\w)", path.read_text())}
    assert len(named) > 15
    assert [name for name in sorted(named) if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_study_imports_of_another_is_there(path: Path) -> None:
    """Those that need a package that is not installed are not imported by any test."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "studies":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                found = hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
                assert found, f"{node.module} has no {alias.name}"


def test_no_study_is_named_as_a_script_or_changes_the_path() -> None:
    assert [str(path) for path in TEXTS if re.search(r"python3? studies/", path.read_text())] == []
    assert [str(path) for path in STUDIES if "sys.path" in path.read_text()] == []


@pytest.mark.parametrize("path", SPECIFICATIONS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_specification_is_valid(path: Path) -> None:
    """Whether or not its model and data, which some studies have outside of the repository, are here."""
    given = yaml.safe_load(path.read_text())["data"]
    shipped = {f"data.{role}": "builtin:quickstart/train.jsonl" for role in ("train", "eval", "test") if role in given}
    assert specs.load(path, model="builtin:quickstart", **shipped).names


def test_divergence_s_specification_dry_runs(tmp_path: Path) -> None:
    data = {key: SMALL["data"][key] for key in ("train", "eval", "eval_size")}
    changes = ["model=builtin:quickstart", f"data={json.dumps(data)}", "training.device=cpu"]
    settings = [word for change in changes for word in ("--set", change)]
    spec = ROOT / "studies" / "divergence" / "study.yaml"
    ran = CliRunner().invoke(cli, ["tune", str(spec), "--dir", str(tmp_path / "run"), "--dry-run", *settings])
    assert ran.exit_code == 0, ran.output
    assert "variants: lora;" in ran.output
    assert "each gets 8 full runs: baseline 1 + search" in " ".join(ran.output.split())
    assert not (tmp_path / "run").exists()


# The quickstart's model and task


def test_base_model_writes_a_task_without_repeated_prompts(study: Study, tmp_path: Path) -> None:
    study("base_model.make_task", "--out", tmp_path, "--train", 30, "--test", 10)
    task = [[json.loads(line) for line in (tmp_path / f"{part}.jsonl").open()] for part in ("train", "test")]
    assert list(map(len, task)) == [30, 10]
    assert all(row.keys() == {"prompt", "completion"} and all(row.values()) for part in task for row in part)
    assert len({row["prompt"] for part in task for row in part}) == 40


@pytest.mark.parametrize("task", ["orders", "scenes"])
def test_base_model_writes_the_tasks_of_the_curves(study: Study, tmp_path: Path, task: str) -> None:
    study("base_model.make_task", "--task", task, "--out", tmp_path / task, "--train", 30, "--test", 10)
    made = [json.loads(line) for part in ("train", "test") for line in (tmp_path / task / f"{part}.jsonl").open()]
    assert len({row["prompt"] for row in made}) == 40
    assert all(re.fullmatch(r"\S+ \w+ \d\d", row["completion"]) for row in made)


@pytest.mark.slow
def test_base_model_pretrains_another_architecture(study: Study, tmp_path: Path) -> None:
    sizes = ["--steps", 1, "--batch-size", 1, "--vocab-size", 320]
    study("base_model.pretrain", "--architecture", "qwen3", "--out", tmp_path, "--work", tmp_path / "work", *sizes)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["hidden_size"]) == ("qwen3", TABLES["qwen3-orders"].width)


@pytest.mark.slow
def test_base_model_pretrains_and_sweeps(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, work = tmp_path / "model", tmp_path / "work"
    study("base_model.make_task", "--out", tmp_path, "--train", 30, "--test", 10)
    small = ["--batch-size", 2, "--vocab-size", 320, "--save-every", 2]
    study("base_model.pretrain", "--out", model, "--work", work, "--steps", 2, *small)
    study("base_model.pretrain", "--out", model, "--work", work, "--steps", 4, *small)
    shown = capsys.readouterr().out
    assert "resumed at step 2" in shown
    assert finite(*re.findall(r"held-out (\S+)", shown))
    assert all(weight.isfinite().all() for weight in load_file(model / "model.safetensors").values())

    sizes = ["--ranks", 2, "--rates", "1e-3,1e-2", "--examples", 16, "--eval-rows", 5]
    study("base_model.sweep", "--model", model, "--data", tmp_path, "--variants", "lora,dora,pissa", *sizes)
    untrained, *runs = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"(\w+) +r=2 +(\S+)  (\S+)  \S+ s", line) for line in runs]
    wanted = list(itertools.product(("lora", "dora", "pissa"), ("0.001", "0.01")))
    assert [match and (match[1], match[2]) for match in found] == wanted
    assert finite(untrained.split()[-1], *(match[3] for match in found if match))


# The prior


def predicted(path: Path) -> dict[str, Any]:
    """What was measured of the shipped model, by method and variant, without times."""
    measured = json.loads(path.read_text())
    assert all(found["seconds"] > 0 for found in measured.values())
    return {key.removeprefix("quickstart/"): found["value"] for key, found in measured.items()}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return predicted(ROOT / "studies" / "curvature" / "measured.json")


def test_curvature_measures_training_and_sharpness_as_recorded(
    study: Study, tmp_path: Path, recorded: dict[str, Any]
) -> None:
    out = tmp_path / "measured.json"
    study("curvature.predict", "quickstart", "--only", "lora", "--methods", "training", "adam", "--out", out)
    found = predicted(out)
    assert found.keys() == {"training/lora", "adam/lora"}
    assert 0 < found["training/lora"] < 60
    assert found["adam/lora"] == pytest.approx(recorded["adam/lora"], rel=0.01)


@pytest.mark.slow
def test_curvature_measures_every_predictor_as_recorded(study: Study, tmp_path: Path, recorded: dict[str, Any]) -> None:
    out = tmp_path / "measured.json"
    study("curvature.predict", "quickstart", "--only", "lora", "pissa", "--methods", "fast", "probe", "--out", out)
    study("curvature.predict", "quickstart", "--only", "pissa", "--methods", "exact", "adam", "--out", out)
    found = predicted(out)
    assert len(found) == 6
    for key, value in found.items():
        if key.startswith("probe"):
            assert value["rates"] == recorded[key]["rates"]
            assert value["losses"][:20] == pytest.approx(recorded[key]["losses"][:20], rel=0.01)
        else:
            assert value == pytest.approx(recorded[key], rel=0.02)


def test_curvature_replays_a_search(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "replay.csv"
    study("curvature.replay", "--seeds", 1, "--models", "stories260k", "--priors", "laws and curvature", "--out", out)
    found = rows(out)
    assert {row["variant"] for row in found} == {"lora", "pissa"}
    assert list(found[0]) == ["model", "prior", "seed", "variant", "full_runs", "best"]
    for name in ("lora", "pissa"):
        best = [float(row["best"]) for row in found if row["variant"] == name]
        assert finite(*best)
        assert best == sorted(best, reverse=True)


def test_curvature_reports_its_tables_and_figures(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study("curvature.report", "--out", tmp_path)
    shown = capsys.readouterr().out
    parts = ["Fast against exact", "The exponent", "Relative to", "Absolute", "Cost", "Laws", "Tuning with it"]
    assert all(f"## {part}" in shown for part in parts)
    errors = shown.partition("| over both models | median error | worst |")[2].splitlines()[2:8]
    assert [cells(line)[0] for line in errors][-1] == "default prior"
    assert all(finite(*cells(line)[1:]) for line in errors)
    figures = {"replay.png", "curvature-quickstart.png", "curvature-stories260k.png"}
    assert {path.name for path in tmp_path.iterdir()} == figures
    recorded = (ROOT / "studies" / "curvature" / "results.md").read_text()
    assert [cells(line)[0] for line in shown.splitlines()] == [cells(line)[0] for line in recorded.splitlines()]


# The table of curves


def test_curves_collects_a_table_that_is_a_surface_and_resumes(study: Study, tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(yaml.safe_dump({key: SMALL[key] for key in ("model", "data", "training")} | {"rungs": [0.5, 1.0]}))
    command = ["curves.collect", spec, "--parts", "core", "--only", "lora", "--dir", tmp_path / "run"]
    study(*command, "--limit", 1)
    study(*command, "--limit", 1)
    found = rows(tmp_path / "tiny.csv")
    cell = ["part", "variant", "learning_rate", "batch_size", "rank", "alpha", "seed"]
    assert list(found[0]) == [*cell, "score@0.5", "score@1", "stopped_at", "seconds"]
    assert [float(row["learning_rate"]) for row in found] == [1.1247e-3, 2e-3]
    assert finite(*(row[rung] for row in found for rung in ("score@0.5", "score@1")))
    (curve,) = curves(tmp_path / "tiny.csv").values()
    assert finite(*curve.best())
    assert curve.score(2e-3, 1) == pytest.approx(float(found[1]["score@1"]))


def trained(cell: Cell, score: float | None) -> dict[str, Any]:
    return cell._asdict() | {"score@1": score}


def test_curves_design_extends_a_window_until_it_holds_the_best_and_repeats_the_best() -> None:
    grid = Grid(64, 400, batches=(4,), ranks=(8,), lowest={"lora": 2e-3, "pissa": 2e-3}, window=3)
    made = list(grid.grid(64, []))
    assert [cell.learning_rate for cell in made] == [2e-3, 3.5566e-3, 6.3246e-3] * 2
    falling = [trained(cell, score) for cell, score in zip(made, (3.0, 2.0, 1.0, 1.0, 2.0, None), strict=True)]
    assert [(cell.variant, cell.learning_rate) for cell in grid.ends(64, falling)] == [
        ("lora", 1.1247e-2),
        ("pissa", 1.1247e-3),
    ]
    held = [*falling[:3], trained(made[2]._replace(learning_rate=1.1247e-2), 2.0)]
    assert [cell.learning_rate for cell in grid.ends(64, held)] == [2e-2]
    held.append(trained(made[2]._replace(learning_rate=2e-2), None))
    assert list(grid.ends(64, held)) == []
    repeated = [(cell.learning_rate, cell.seed) for cell in beside_the_best(64, held)]
    assert repeated == [(rate, seed) for rate in (3.5566e-3, 6.3246e-3, 1.1247e-2) for seed in (1, 2)]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_curves_states_the_length_of_its_runs(table: str) -> None:
    written = yaml.safe_load((ROOT / "studies" / "curves" / f"{table}.yaml").read_text())
    assert written["training"]["examples"] == TABLES[table].examples


@pytest.mark.parametrize("table", GRIDS)
def test_curves_holds_every_setting_of_the_tables_grids(table: str) -> None:
    width, _, names, batches, ranks = TABLES[table]
    found = curves(ROOT / "studies" / "curves" / f"{table}.csv")
    for name, batch, rank in itertools.product(names, batches, ranks):
        curve = found[Setting(name, batch, rank, law_alpha(name, rank, width))]
        best = int(curve.scores[:, -1].argmin())
        assert 0 < best < len(curve.log_rates) - 2, (name, batch, rank)


# The search against a grid


def test_gsm8k_s_grid_resumes_and_is_compared_with_a_study(
    study: Study, small: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "grid"
    for seeds in (1, 2):
        study("gsm8k.grid", small, "--dir", folder, "--seeds", seeds, "--rates", 2e-3, 1e-2)
    found = json.loads((folder / "grid.json").read_text())
    settings = [(row["seed"], row["learning_rate"], row["variant"]) for row in found]
    assert settings == list(itertools.product((0, 1), (2e-3, 1e-2), ("lora", "pissa")))
    assert finite(*(row["value"] for row in found))
    capsys.readouterr()

    study("gsm8k.compare", folder / "grid.json", tuned)
    head, _, *lines = (line for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    result = TuneResult.load(tuned)
    assert [cells(line)[1] for line in lines] == list(result)
    for name, line in zip(result, lines, strict=True):
        row = dict(zip(cells(head), cells(line), strict=True))
        best = min(sum(r["value"] for r in found if r["variant"] == name and r["learning_rate"] == rate) / 2
                   for rate in (2e-3, 1e-2))  # fmt: skip
        assert float(row["grid's best (rate)"].split()[0]) == pytest.approx(best, abs=1e-4)
        assert float(row["difference"]) == pytest.approx(result[name].value - best, abs=2e-4)
        assert 0 < float(row["found after"]) <= float(row["spent"]) <= SMALL["budget"]


def test_gsm8k_compares_with_the_recorded_grid(study: Study, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study("gsm8k.compare", ROOT / "studies" / "gsm8k" / "grid.csv", tuned)
    shown = capsys.readouterr().out
    assert "| lora | 2.7839 (0.011) | 18 |" in shown
    assert "| pissa | 2.7927 (0.0063) | 18 |" in shown


# Two recordings


@pytest.mark.slow
def test_identity_records_and_tells_what_differs(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    few = ["--problems", "edge/laws-10x-too-low", "--seeds", 0, "--variants", "lora"]
    study("identity.record", one, *few)
    names = ("decisions", "study", "continued", "texts")
    recordings = {name: json.loads((one / f"{name}.json").read_text()) for name in names}
    assert len(recordings["decisions"]) == 2
    assert len(recordings["continued"]["trials"]) > len(recordings["study"]["trials"]) > 1
    assert len(recordings["study"]["adapters"]) == 2
    assert all(recordings["texts"].values())

    shutil.copytree(one, other)
    with pytest.raises(SystemExit) as ended:
        study("identity.compare", one, other)
    assert ended.value.code == 0
    changed = recordings["study"]
    changed["trials"][0][1] = "FAIL"
    (other / "study.json").write_text(json.dumps(changed))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        study("identity.compare", one, other)
    assert ended.value.code == 1
    assert "study: 1 differences\n  study.trials[0][1]: 'COMPLETE' -> 'FAIL'" in capsys.readouterr().out


# The search against its peers


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A made-up table in the paper's form."""
    path = tmp_path / "tables.csv"
    lines = ["model,task,rank,method,batch,lr,score,std"]
    for batch, (place, rate) in itertools.product((16, 64), enumerate((2e-5, 6.3246e-5, 2e-4, 6.3246e-4))):
        lines.append(f"Qwen3-0.6B,math,8,LoRA,{batch},{rate},{40 - 3 * (place - 2) ** 2 - batch / 64},0.5")
    path.write_text("\n".join(lines) + "\n")
    return path


PROBLEMS = {
    "curves": "curves/stories260k",
    "paper": "paper/Qwen3-0.6B-math-r8",
    "paper-wide": "paper-wide/Qwen3-0.6B-math-r8",
    "edge": "edge/unbiased",
    "hartmann": "hartmann/3-good",
}


def searched(table: Path, budget: float) -> list[dict[str, str]]:
    """Rows of a table of results, checked."""
    found = rows(table)
    assert tuple(found[0]) == COLUMNS
    for row in found:
        regrets = [float(row[f"regret@{at:g}"]) for at in GRID]
        assert finite(*regrets)
        assert regrets == sorted(regrets, reverse=True)
        assert 0 < float(row["spent"]) <= budget + 1e-3
    return found


@pytest.mark.parametrize("family", PROBLEMS)
def test_search_runs_on_a_problem_of_each_family_and_reports(
    study: Study, family: str, paper: Path, tmp_path: Path
) -> None:
    table, methods = tmp_path / "results.csv", ["autolora", "random", "Optuna TPE"]
    few = ["--repeats", 1, "--budget", 2, "--problems", PROBLEMS[family], "--paper", paper, "--table", table]
    study("search.run", *few, "--only", *methods)
    study("search.run", *few, "--only", *methods, "grid")
    found = searched(table, budget=2)
    assert {row["problem"] for row in found} == {PROBLEMS[family]}
    searches = {(row["method"], row["variant"]) for row in found}
    assert len(searches) == len(found)
    assert {method for method, _ in searches} == {*methods, "grid"}

    study("search.report", "--table", table, "--out", tmp_path)
    assert (tmp_path / f"{family}.png").stat().st_size > 1000
    shown = (tmp_path / "results.md").read_text()
    assert shown.count("\n| autolora | ") >= 2
    assert "nan" not in shown


@pytest.mark.parametrize("method", in_group("peers"))
def test_search_runs_every_peer_that_is_installed(study: Study, method: str, tmp_path: Path) -> None:
    if METHODS[method].missing:
        pytest.skip(f"{method} needs the package {METHODS[method].missing}")
    table = tmp_path / "results.csv"
    problem = "hartmann/3-good" if METHODS[method].takes("hartmann/3-good") else "curves/stories260k"
    study("search.run", "--repeats", 1, "--problems", problem, "--table", table, "--only", method)
    assert {row["method"] for row in searched(table, budget=12)} == {method}


def test_search_times_decisions(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study("search.decisions", "--trials", 10, "--decisions", 5)
    shown = capsys.readouterr().out
    times = re.findall(r"median (\S+) ms, 95th percentile (\S+) ms", shown)
    assert len(times) == 4
    assert finite(*itertools.chain(*times))


# The variants


def test_variants_compares_a_study_on_fresh_seeds_and_reports(
    study: Study, small: Path, tuned: Path, tmp_path: Path
) -> None:
    table = tmp_path / "compare.csv"
    few = ["--spec", small, "--dir", tmp_path / "run", "--out", table]
    for seeds in (1, 2):
        study("variants.compare", tuned, *few, "--seeds", seeds)
    found = rows(table)
    assert sorted((row["variant"], row["seed"]) for row in found) == [
        (name, seed) for name in ("lora", "pissa") for seed in ("1001", "1002")
    ]
    assert finite(*(row[column] for row in found for column in ("test", "learning_rate", "tuned_eval")))
    shutil.copy(ROOT / "studies" / "variants" / "cost.csv", tmp_path)
    study("variants.report", "--dir", tmp_path)
    shown = (tmp_path / "results.md").read_text()
    compared = shown.partition("## Every variant tuned")[2]
    lines = [cells(line) for line in compared.splitlines() if line.startswith(("| lora |", "| pissa |"))]
    assert len(lines) == 2
    assert finite(*(value for line in lines for value in line[1:3]))


def test_variants_report_is_as_recorded(study: Study, tmp_path: Path) -> None:
    folder = ROOT / "studies" / "variants"
    for name in ("cost.csv", "compare.csv"):
        shutil.copy(folder / name, tmp_path)
    study("variants.report", "--dir", tmp_path)
    assert (tmp_path / "results.md").read_text() == (folder / "results.md").read_text()


@pytest.mark.slow
def test_variants_measures_what_a_step_costs(study: Study, tmp_path: Path) -> None:
    table = tmp_path / "cost.csv"
    study("variants.cost", "--only", "lora", "dora (PEFT's)", "--widths", 256, "--out", table)
    found = rows(table)
    assert [row["variant"] for row in found] == ["lora", "dora (PEFT's)"]
    numbers = [column for column in found[0] if column != "variant"]
    assert finite(*(row[column] for row in found for column in numbers))
    assert float(found[0]["step_ratio"]) == pytest.approx(1, abs=0.5)
    assert float(found[1]["peak_mb"]) > float(found[0]["peak_mb"]) > 0


# Many workers


@pytest.mark.slow
def test_the_throughput_study_measures_every_loop_on_the_same_rows(study, tmp_path, monkeypatch):
    rows = [{"question": f"What is {n} and {n}?" + " Think." * (n % 7), "answer": f"It is {2 * n}."} for n in range(24)]
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("AUTOLORA_GSM8K", str(tmp_path))
    few = ("--rows", 8, "--rounds", 1, "--batches", 4, "--hidden", 64, "--layers", 1)
    study("throughput.run", "--dir", tmp_path / "out", *few)
    found = json.loads((tmp_path / "out" / "results.json").read_text())["batches"]["4"]
    ungrouped = ("autolora", "bare loop", "transformers.Trainer", "trl.SFTTrainer")
    assert len({found[loop][0]["tokens"] for loop in ungrouped}) == 1
    assert all(measured["seconds"] > 0 for [measured] in found.values())
    assert found["autolora"][0]["padded"] <= found["bare loop"][0]["padded"]
    losses = [found[loop][0]["losses"] for loop in ungrouped]
    assert all(len(each) == 2 for each in losses)
    assert "| 4 | trl.SFTTrainer, grouped |" in (tmp_path / "out" / "results.md").read_text()


def test_workers_simulates_times_decisions_and_reports(study: Study, tmp_path: Path) -> None:
    study("workers.simulate", "--workers", 1, 4, "--seeds", 1, "--budget", 2, "--out", tmp_path)
    few = ["--decisions", "--workers", 4, "--sizes", 5, 10]
    study("workers.simulate", *few, "--out", tmp_path)
    runs, decisions = rows(tmp_path / "runs.csv"), rows(tmp_path / "decisions.csv")
    assert [row["workers"] for row in runs] == ["1", "4"]
    assert all(0 < float(row["utilisation"]) <= 1 and float(row["trials"]) > 3 for row in runs)
    assert finite(*(row[column] for row in runs for column in ("makespan", "regret", "time_to_target")))
    assert [row["trials"] for row in decisions] == ["5", "10"]
    assert all(float(row["milliseconds"]) > 0 for row in decisions)
    study("workers.report", "--dir", tmp_path)
    shown = (tmp_path / "results.md").read_text()
    assert [line[:5] for line in shown.splitlines() if re.match(r"\| \d", line)] == ["| 1 |", "| 4 |", "| 4 |", "| 4 |"]


def test_workers_report_is_as_recorded_when_run_as_a_module(tmp_path: Path) -> None:
    folder = ROOT / "studies" / "workers"
    for name in ("runs.csv", "decisions.csv"):
        shutil.copy(folder / name, tmp_path)
    command = [sys.executable, "-m", "studies.workers.report", "--dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert (tmp_path / "results.md").read_text() == (folder / "results.md").read_text()
