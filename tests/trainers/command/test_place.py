"""Where a command runs: GPUs, ports, and several nodes."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

import autolora
from autolora import spec as specs
from autolora.execution.devices import DevicesError
from autolora.execution.inline import InlineExecutor
from autolora.spec import SpecError
from autolora.trainers.command import place, ports
from autolora.trainers.command.current import current_trial
from autolora.trainers.command.errors import NoTrialError
from autolora.trainers.command.process import REPORT, TRIAL
from tests.support.commands import SCORES, command_spec, command_trainer, job


def said(folder, text: str, **settings) -> str:
    """What a command prints in a segment."""
    command_trainer(folder, f"echo said {text} {{stop}}; {SCORES}", prior="laws", **settings).run(job())
    log = (folder / "logs" / "0.log").read_text()
    return next(line for line in log.splitlines() if line.startswith("said "))


def test_a_command_finds_its_port_and_host_in_its_line_and_its_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("MASTER_PORT", raising=False)
    words = said(tmp_path, "{port} $MASTER_PORT $PET_MASTER_PORT {rendezvous} {host} {nodes} {node_rank}").split()[1:]
    port = words[0]
    assert words == [port, port, port, f"127.0.0.1:{port}", "127.0.0.1", "1", "0", "1"]


def test_a_port_that_the_user_has_set_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "12345")
    assert said(tmp_path, "$MASTER_PORT").split()[1] == "12345"


def test_the_first_gpus_are_shown_to_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    two = {"resources.gpu": 2}
    assert said(tmp_path, "{gpus} $CUDA_VISIBLE_DEVICES", **two) == "said 2 4,5 1"
    assert said(tmp_path / "all", "{gpus} $CUDA_VISIBLE_DEVICES") == "said 3 4,5,7 1"


@pytest.mark.parametrize(("named", "seen"), [("", []), ("-1", []), ("0, 1", ["0", "1"]), ("1,-1,2", ["1"])])
def test_visible_gpus_are_counted_as_cuda_does(monkeypatch, named, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert place.visible() == seen


def test_more_gpus_than_there_are_are_refused_before_anything_runs(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(DevicesError, match=r"resources\.gpu is 4, and this process sees 2"):
        InlineExecutor(command_spec(**{"resources.gpu": 4}))


def test_several_nodes_need_ray_and_a_command():
    with pytest.raises(DevicesError, match=r"resources\.nodes is 2.*--executor ray"):
        InlineExecutor(command_spec(**{"resources.nodes": 2}))
    with pytest.raises(SpecError, match=r"nodes: 2 is for trainer: \{command"):
        specs.load({"trainer": "own:make", "resources": {"nodes": 2}, "metric": "eval_loss"})


def test_ports_that_are_reserved_at_once_differ():
    with ExitStack() as stack:
        assert len({stack.enter_context(ports.reserved()) for _ in range(20)}) == 20


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A trial as its command finds it."""
    trainer = command_trainer(tmp_path, f"cp $AUTOLORA_TRIAL {{folder}}/told.json; : {{stop}}; {SCORES}", prior="laws")
    trainer.run(job(3))
    monkeypatch.setenv(TRIAL, str(trainer.work(3) / "told.json"))
    monkeypatch.setenv(REPORT, str(tmp_path / "report.jsonl"))
    return tmp_path / "report.jsonl"


def test_rank_0_reports_for_all(begun, monkeypatch):
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        autolora.current_trial().report(step=1, loss=float(rank))
    assert [json.loads(line) for line in begun.read_text().splitlines()] == [{"step": 1, "loss": 0.0}]


def test_the_batch_is_shared_by_all_processes(begun, monkeypatch):
    assert current_trial().local_batch_size == 8
    monkeypatch.setenv("WORLD_SIZE", "4")
    trial = current_trial()
    arguments = trial.arguments()
    assert trial.processes == 4
    assert trial.local_batch_size == 2
    assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] == 2
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(NoTrialError, match=r"batch_size 8 cannot be shared by 3 processes.*multiples of 3"):
        _ = current_trial().local_batch_size
