"""The callback that follows a segment inside a tool's Trainer."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest
from transformers import TrainerCallback

from autolora.integrations.segment import REPORT, TRIAL, SegmentCallback
from tests.support.tools import small_run

LORA = {"r": 2, "lora_alpha": 4}
SETTINGS = {"max_steps": 6, "learning_rate": 1e-2, "per_device_train_batch_size": 8, "lr_scheduler_type": "linear"}


@pytest.fixture
def run(tmp_path):
    """Train a segment in this process; returns what was reported, and the steps of the checkpoints."""

    def train(stop: float, seconds: float = 1e9, more: tuple[TrainerCallback, ...] = (), resume=None, **arguments):
        folder, report = tmp_path / "work", tmp_path / "report.jsonl"
        folder.mkdir(exist_ok=True)
        report.write_text("")
        told = {"folder": str(folder), "stop": stop, "specification": {"training": {"checkpoint_seconds": seconds}}}
        callback = SegmentCallback(told, report)
        output = folder / "output"
        small_run.train([callback, *more], lora=LORA, resume=resume, output=str(output), **{**SETTINGS, **arguments})
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        return lines, sorted(int(path.name.split("-")[1]) for path in output.glob("checkpoint-*"))

    return train


def logged(checkpoint: Path, key: str) -> list[float]:
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return [each[key] for each in state["log_history"] if key in each]


def test_it_stops_at_the_fraction_on_the_schedule_of_the_full_run(run, tmp_path):
    lines, saved = run(1 / 3)
    assert ([each["step"] for each in lines if "loss" in each], saved) == ([1, 2], [2])
    assert math.isfinite(lines[-1]["eval_loss"])
    output = tmp_path / "work" / "output"
    assert not (tmp_path / "work" / "adapter").exists()  # of a completed run alone
    lines, saved = run(1.0, resume=str(output / "checkpoint-2"))
    assert ([each["step"] for each in lines if "loss" in each], saved[-1]) == ([3, 4, 5, 6], 6)
    rates = logged(output / "checkpoint-6", "learning_rate")
    assert rates == pytest.approx([1e-2 * (1 - n / 6) for n in range(6)])
    assert (tmp_path / "work" / "adapter" / "adapter_model.safetensors").is_file()


def test_the_score_is_in_the_state_of_the_checkpoint(run, tmp_path):
    lines, _ = run(0.5)
    assert logged(tmp_path / "work" / "output" / "checkpoint-3", "eval_loss") == [lines[-1]["eval_loss"]]


@pytest.mark.parametrize(("seconds", "expected"), [(0, [1, 2, 3]), (1e9, [3])])
def test_a_checkpoint_is_written_every_so_many_seconds(run, seconds, expected):
    assert run(0.5, seconds=seconds)[1] == expected


class Sigterm(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            signal.raise_signal(signal.SIGTERM)


def test_on_sigterm_it_writes_a_checkpoint_and_stops_without_a_score(run):
    before = signal.getsignal(signal.SIGTERM)
    lines, saved = run(1.0, more=(Sigterm(),))
    assert ([each["step"] for each in lines], saved) == ([1, 2], [2])
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loss_that_is_nan_is_reported_as_it_is(run):
    lines, _ = run(1.0, learning_rate=1e38, max_grad_norm=0.0)
    assert any(math.isnan(each["loss"]) for each in lines if "loss" in each)


def test_a_process_that_autolora_has_not_started_has_none(monkeypatch, tmp_path):
    monkeypatch.delenv(TRIAL, raising=False)
    assert SegmentCallback.here() is None
    told = tmp_path / "trial.json"
    told.write_text(json.dumps({"folder": str(tmp_path), "stop": 1.0}))
    monkeypatch.setenv(TRIAL, str(told))
    monkeypatch.setenv(REPORT, str(tmp_path / "report"))
    assert isinstance(SegmentCallback.here(), SegmentCallback)
