"""The check of a GPU, with tiny models on the CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from autolora.bases import Base
from autolora.head import summed_loss
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.stepping import Stepper
from autolora.trainers.trainer import Outcome
from studies.gpu import correctness, needs, run, speed
from studies.gpu.correctness import Checked
from studies.gpu.models import SHAPES, Place
from studies.gpu.report import AGREES, DIFFERS, FAILED, MEASURED, SKIPPED, TABLES, Case, Report, Result, Skip
from studies.gpu.speed import Comparison, Roofline
from studies.throughput import loops
from studies.throughput.loops import RANK

ROOT = Path(__file__).parents[2]
LOOPS = ("autolora", "bare PyTorch and PEFT", "transformers.Trainer")


def checked(out: Path, *arguments: str, program: tuple[str, ...] = ("-m", "studies.gpu")) -> tuple[str, int]:
    """What the command writes to a file, and how it ends."""
    command = [sys.executable, "-W", "ignore", *program, "--tiny", "--out", str(out), *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert out.exists(), done.stderr
    assert out.read_text() in done.stdout
    return out.read_text(), done.returncode


def rows(text: str, table: str) -> list[dict[str, str]]:
    """The rows of one table."""
    lines = text.partition(f"## {table.capitalize()}\n")[2].partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    text, status = checked(tmp_path_factory.mktemp("gpu") / "check.md")
    assert status == 0, text
    return text


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Place(torch.device("cpu"), torch.float32, tmp_path)
    torch.set_num_threads(threads)


def test_the_head_says_what_was_run_where_and_with_which_versions(whole):
    head = whole.partition("##")[0]
    assert "- Command: `python -m studies.gpu --tiny --out" in head
    assert "- Device: CPU" in head
    assert f"torch {torch.__version__}" in head
    assert "0 are wrong" in head


def test_training_is_right_and_no_error_is_above_its_tolerance(whole):
    found = {(row["check"], row["setting"]): row for row in rows(whole, "correctness")}
    about = SHAPES["tiny"].name
    packed = {
        ("4-bit against float32", about),
        ("cut at half and resumed", f"{about}, 4-bit"),
        *((f"{name} exported, read by PEFT", f"{about}, 4-bit") for name in ("lora", "dora", "pissa")),
    }
    assert set(found) == packed | {
        *(("cut at half and resumed", f"{about}, {dtype}") for dtype in ("float32", "bfloat16")),
        *(("gradient checkpointing", f"{about}, {dtype}") for dtype in ("float32", "bfloat16")),
        ("bfloat16 against float32", about),
        *((f"{name} exported, read by PEFT", f"{about}, float32") for name in ("lora", "dora", "pissa")),
        ("rows as datasets.Dataset", "the shipped task"),
        ("a study from begin to end", "the shipped model"),
    }
    for names, row in found.items():
        if names in packed and not needs.installed("bitsandbytes"):
            assert row["result"].startswith(f"{SKIPPED}bitsandbytes is not installed")
        elif names[0] == "a study from begin to end":
            assert row["result"].startswith(f"{AGREES}: the best loss is ")
        else:
            assert row["result"] == AGREES
            assert 0 <= float(row["error"]) <= float(row["tolerance"])


@pytest.mark.parametrize("fault", ["ascends", "keeps all"])
def test_training_that_is_wrong_is_found(place, monkeypatch, fault):
    """Whose losses rise, which no difference between two runs would show; or that does not compute layers again."""
    if fault == "ascends":
        own = Stepper.step

        def step(self):
            for parameter in self.adapted.parameters():
                if parameter.grad is not None:
                    parameter.grad.neg_()
            own(self)

        monkeypatch.setattr(Stepper, "step", step)
        wanted = ("bfloat16 against float32", "a study from begin to end")
    else:
        monkeypatch.setattr(Base, "checkpointing", lambda self, wanted: nullcontext())
        wanted = ("gradient checkpointing",)
    found = [case for case in correctness.cases(place, Checked("tiny")) if case.names[0] in wanted]
    assert found
    for case in found:
        assert case.run().word.startswith(DIFFERS), case.names


def test_a_run_that_checked_nothing_fails(tmp_path):
    text, status = checked(tmp_path / "check.md", "--minutes", "0", "--only", "correctness")
    assert status == 1
    assert AGREES not in text


def test_every_loop_is_timed_at_every_micro_batch_beside_the_floor_and_the_roofline(whole):
    product, *found = rows(whole, "speed")
    assert product["loop"] == "matrix product"
    assert "TFLOP/s" in product["result"]
    tiny, llama = SHAPES["tiny"].name, SHAPES["tiny Llama"].name
    expected = {
        *((model, "base alone", batch, "floor") for model in (tiny, llama) for batch in "12"),
        *((tiny, variant, batch, loop) for variant in ("lora", "dora") for batch in "12" for loop in LOOPS),
        *((llama, "pissa", batch, "autolora") for batch in "12"),
        (f"{tiny} in 4 bits", "base alone", "1", "floor"),
        *((f"{tiny} in 4 bits", "lora", "1", loop) for loop in LOOPS),
    }
    assert {(row["model"], row["variant"], row["micro-batch"], row["loop"]) for row in found} == expected
    for row in found:
        if "4 bits" in row["model"] and not needs.installed("bitsandbytes"):
            assert row["result"].startswith(f"{SKIPPED}bitsandbytes is not installed")
            continue
        assert row["result"] == MEASURED
        assert float(row["tokens/s"]) > 0
        assert all(row[column].endswith("%") for column in ("of the floor", "of the roofline"))


def test_memory_starts_and_processes_have_their_rows(whole):
    (memory,) = rows(whole, "memory")
    if sys.platform == "linux":
        assert memory["result"] == AGREES
        assert float(memory["planned / measured"]) == pytest.approx(1, abs=0.2)
    lora, pissa = rows(whole, "starts")
    assert lora["matrices"] == pissa["matrices"] == "14"
    assert all(row["extrapolated"].endswith(" s for 4 layers, extrapolated") for row in (lora, pissa))
    one, two = rows(whole, "workers")
    assert (one["processes"], one["of one process"], two["processes"]) == ("1", "1.00x", "2")
    assert all(float(row["tokens/s together"]) > 0 for row in (one, two))


WITHOUT = """
import runpy, sys
missing = ("bitsandbytes", "datasets", "optuna", "ray", "rich", "sqlalchemy", "trl")
sys.modules.update(dict.fromkeys(missing))  # as if not installed, also to those who look before they import
runpy.run_module("studies.gpu", run_name="__main__", alter_sys=True)
"""


def test_without_optional_packages_segments_are_trained_and_the_rows_of_those_are_skipped(tmp_path):
    text, status = checked(tmp_path / "check.md", "--only", "correctness", program=("-c", WITHOUT))
    assert status == 0, text
    found = {(row["check"], row["setting"]): row["result"] for row in rows(text, "correctness")}
    skipped = {names: result.split()[1] for names, result in found.items() if result.startswith(SKIPPED)}
    about = SHAPES["tiny"].name
    assert {check for (check, setting), package in skipped.items() if package == "bitsandbytes"} >= {
        "4-bit against float32",
        "lora exported, read by PEFT",
    }
    assert skipped["rows as datasets.Dataset", "the shipped task"] == "datasets"
    assert skipped["a study from begin to end", "the shipped model"] == "optuna"
    trained = {names: result for names, result in found.items() if names not in skipped}
    assert set(trained.values()) == {AGREES}
    assert ("cut at half and resumed", f"{about}, float32") in trained
    assert ("pissa exported, read by PEFT", f"{about}, float32") in trained
    assert "optuna missing" in text


def test_a_segment_that_forgets_its_optimizer_is_found_out(place, monkeypatch):
    monkeypatch.setattr(segment._Run, "restore", lambda self, state: None)
    cases = {case.names: case for case in correctness.cases(place, Checked("tiny"))}
    result = cases["cut at half and resumed", f"{SHAPES['tiny'].name}, bfloat16"].run()
    assert result.word == DIFFERS
    assert float(result.cells[0]) > 2 * correctness.REPEATED[torch.bfloat16]  # what is allowed on a GPU


@pytest.mark.parametrize("name", ["lora", "pissa"])
def test_an_export_of_another_scale_is_found_out(place, monkeypatch, name):
    genuine = correctness.BuiltinTrainer.export

    def altered(self, trial, folder):
        genuine(self, trial, folder)
        config = folder / "adapter_config.json"
        config.write_text(config.read_text().replace('"lora_alpha": ', '"lora_alpha": 1'))

    monkeypatch.setattr(correctness.BuiltinTrainer, "export", altered)
    cases = {case.names[0]: case for case in correctness.cases(place, Checked("tiny"))}
    assert cases[f"{name} exported, read by PEFT"].run().word == DIFFERS


@pytest.mark.parametrize(("shape", "billions"), [("0.5B", 0.494), ("1B", 1.236), ("8B", 8.03)])
def test_shapes_have_the_parameters_of_the_models_that_they_are_named_for(shape, billions):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(SHAPES[shape].config())
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(billions, abs=5e-4)


def products(run: Callable[[], object]) -> int:
    """Operations of the matrix products that torch counts; attention's own kernel and batched products left out."""
    with FlopCounterMode(display=False) as counter:
        run()
    counts = {str(kernel): count for kernel, count in counter.get_flop_counts()["Global"].items()}
    return counts.get("aten.mm", 0) + counts.get("aten.addmm", 0)


@pytest.mark.parametrize("shape", ["tiny", "tiny Llama"])
def test_operations_of_the_roofline_are_those_that_torch_counts(place, shape):
    length = 32
    timed = speed._Timed(place, Comparison(shape, ("lora",), (1,), length, 1), Roofline())
    base, batches, config = timed.bench.base, timed.bench.batches, SHAPES[shape]
    batch = batches.batch(batches.rows(0, 0, 1))
    attention = 6 * config.layers * config.hidden * length
    counted = products(lambda: loops._pass_of_the_base(base, batch))
    assert counted == length * (timed._operations(adapter=False) - attention)

    layers = timed.bench.coverage.layers
    first = [layers[f"model.layers.0.self_attn.{name}_proj"] for name in "qkv"]
    unneeded = 2 * sum(layer.in_features * (layer.out_features + RANK) for layer in first)  # of what goes to embeddings
    with timed.bench.attached("lora", Config(1e-4, 1, RANK, RANK), seed=0) as adapted:
        counted = products(lambda: summed_loss(adapted.train(), batch, apart=True).backward())
    assert counted == length * (timed._operations(adapter=True) - attention - unneeded)


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("out of memory while training: CUDA out of memory. Tried to", f"{SKIPPED}the device's memory ran out"),
        ("the loss is nan", f"{FAILED}RuntimeError: the segment ended before its last step"),
    ],
)
def test_a_segment_that_ends_early_is_not_timed(place, monkeypatch, reason, word):
    outcome = Outcome(0, "infeasible", None, 0.0, reason, 1.0)
    monkeypatch.setattr(segment, "run", lambda *_: outcome)
    asked = Comparison("tiny", ("lora",), (1,), 32, 1)
    report = Report(1.0, [])
    report.take(case for case in speed.cases(place, asked, Roofline()) if case.names[3] == "autolora")
    (row,) = report.rows
    assert row.word.startswith(word)


class TestReport:
    def taken(self, *cases: Case, minutes: float = 1.0, out: Path | None = None) -> Report:
        report = Report(minutes, ["Command: none"], out)
        report.take(iter(cases))
        return report

    def case(self, run=lambda: Result(("1",)), package: str | None = None) -> Case:
        return Case("starts", ("a start",), run, package)

    def raising(self, error: Exception) -> Case:
        def run() -> Result:
            raise error

        return self.case(run)

    def test_a_row_that_fails_leaves_the_others_and_is_wrong(self):
        failed, other = self.taken(self.raising(ValueError("no such kernel\nand more")), self.case()).rows
        assert failed.word == f"{FAILED}ValueError: no such kernel"
        assert failed.wrong
        assert (other.word, other.wrong) == (MEASURED, False)

    @pytest.mark.parametrize(
        ("error", "said"), [(Skip("not here"), "not here"), (torch.OutOfMemoryError("CUDA"), "the device's memory")]
    )
    def test_a_row_that_cannot_be_had_is_skipped_with_its_reason(self, error, said):
        (row,) = self.taken(self.raising(error)).rows
        assert row.word.startswith(f"{SKIPPED}{said}")
        assert not row.wrong

    def test_a_missing_package_is_named(self, monkeypatch):
        monkeypatch.setitem(needs.OPTIONAL, "no_such_package", "rows of none")
        (row,) = self.taken(self.case(package="no_such_package")).rows
        assert row.word == f"{SKIPPED}no_such_package is not installed (rows of none)"

    def test_no_row_begins_that_would_end_after_the_time(self):
        first, second = self.taken(self.case(), self.case(), minutes=0).rows
        assert first.word == second.word == f"{SKIPPED}0 minutes are almost over"
        report = Report(minutes=1.0, facts=[])
        report._longest["starts"] = 61.0
        report.take(iter([self.case(), Case("workers", ("a model", "1"), lambda: Result(()))]))
        assert [row.word.split(":")[0] for row in report.rows] == ["skipped", MEASURED]

    def test_every_row_is_written_at_once(self, tmp_path):
        out = tmp_path / "out.md"
        later = self.case(lambda: Result((out.read_text(),)))
        (_, second) = self.taken(self.case(), later, out=out).rows
        assert "| a start | 1 | - | - | - | measured |" in second.cells[1]
        assert "Command: none" in out.read_text()

    def test_a_cell_does_not_break_the_table(self):
        (row,) = self.taken(self.case(lambda: Result(("1",), "measured,\nwith | a bar"))).rows
        assert row.line().count("\n") == 0
        assert row.line().count(" | ") == len(TABLES["starts"])


def test_what_cannot_be_done_without_is_said_plainly(monkeypatch):
    assert needs.unmet() == []
    monkeypatch.setattr(needs, "REQUIRED", {"torch": "99.0", "no_such_package": "1.2"})
    with pytest.raises(SystemExit, match=r"torch is .*; at least 99\.0 is needed; no_such_package >= 1\.2 is missing"):
        needs.check()


def test_a_missing_package_is_said_before_it_is_imported():
    program = WITHOUT.replace('"bitsandbytes", ', '"pydantic", ')
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"studies.gpu cannot run under {sys.executable}: pydantic >= 2.7 is missing. Use ")


def test_on_a_gpu_every_size_and_variant_is_timed_at_its_micro_batches():
    comparisons = (*run.GPU.comparisons, *run.GPU.later)
    asked = {(each.shape, name): each.batches for each in comparisons if not each.packed for name in each.variants}
    assert any(each.packed and each.shape == "8B" for each in comparisons)
    assert {("0.5B", name) for name in ("lora", "dora", "pissa")} | {("1B", "lora"), ("8B", "lora")} <= set(asked)
    assert asked["0.5B", "lora"] == asked["8B", "lora"] == (1, 2, 4, 8, 16)
    assert (run.GPU.starts.shape, run.GPU.starts.layers) == ("8B", 4)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_another_interpreter_is_given_nothing_to_install():
    command = ["make", "--no-print-directory", "--dry-run", "check-gpu", "PYTHON_GPU=/other/python", "OUT=table.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["/other/python", "-m", "studies.gpu", "--out", "table.md"]
