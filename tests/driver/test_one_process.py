"""Several uses of one process: threads, calls within calls, model objects that are used before and afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM

import autolora
from autolora import quickstart
from autolora.driver.alone import ProcessInUseError
from tests.support.specs import SMALL_SPEC


def tune(folder, callbacks=(), **overrides):
    return autolora.tune(spec={**SMALL_SPEC, "budget": 1, **overrides}, dir=folder, callbacks=callbacks)


class DuringATrial(autolora.Callback):
    """Calls a function once, amid the first segment, and keeps what it raised."""

    def __init__(self, function) -> None:
        self.function, self.raised = function, None

    def on_step(self, progress) -> None:
        function, self.function = self.function, None
        if function is not None:
            try:
                function()
            except Exception as error:
                self.raised = error


def in_a_thread(function) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result()


@pytest.mark.parametrize("caller", [lambda function: function(), in_a_thread])
def test_a_second_study_is_refused_while_one_runs_and_does_not_disturb_it(tmp_path, caller):
    second = DuringATrial(lambda: caller(lambda: tune(tmp_path / "second")))
    result = tune(tmp_path / "first", [second])
    assert isinstance(second.raised, ProcessInUseError)
    assert str(tmp_path / "first") in str(second.raised)
    assert not (tmp_path / "second").exists()
    assert result["lora"].adapter_dir
    assert tune(tmp_path / "second")["lora"].value == result["lora"].value


def test_a_study_that_failed_does_not_hold_the_process(tmp_path):
    with pytest.raises(autolora.SpecError):
        tune(tmp_path / "wrong", space={"batch_size": [640]})
    assert tune(tmp_path / "right")["lora"].adapter_dir


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("out of memory")])
def test_a_model_object_is_whole_where_attaching_an_adapter_was_cut_short(model, error, tmp_path, monkeypatch):
    from peft.tuners.lora.model import LoraModel

    usual, names = LoraModel._create_and_replace, list(model.state_dict())
    calls = iter(range(1000))

    def cut_short(*args, **kwargs):
        if next(calls) == 2:
            raise error
        return usual(*args, **kwargs)

    monkeypatch.setattr(LoraModel, "_create_and_replace", cut_short)
    if isinstance(error, MemoryError):  # the trial is infeasible, and the others are trained
        assert tune(tmp_path, model=model, budget=2)["lora"].adapter_dir
    else:
        with pytest.raises(KeyboardInterrupt):
            tune(tmp_path, model=model)
    assert list(model.state_dict()) == names


def test_models_that_threads_load_at_once_are_whole():
    from autolora import bases
    from tests.support.specs import small_spec

    start = threading.Barrier(4)

    def load() -> bool:
        start.wait()
        base = bases.load(small_spec())
        return all(parameter.device.type == "cpu" for parameter in base.model.parameters())

    def outline() -> bool:
        start.wait()
        return autolora.recommend(quickstart.resolve("builtin:quickstart")).learning_rate > 0

    with ThreadPoolExecutor(4) as pool:
        assert all(future.result() for future in [pool.submit(work) for work in (load, outline, load, load)])


@pytest.fixture
def model():
    """A model object in a state that is neither that of a fresh one nor that of a tuned one."""
    model = AutoModelForCausalLM.from_pretrained(quickstart.resolve("builtin:quickstart"))
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    for number, module in enumerate(model.modules()):
        module.training = number % 3 == 0
    return model


def state(model: torch.nn.Module) -> tuple:
    return (
        [(name, p.requires_grad, p.dtype, p.device) for name, p in model.named_parameters()],
        [(name, type(module), module.training) for name, module in model.named_modules()],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
    )


@pytest.mark.parametrize("variant", ["lora", "pissa", "dora"])
@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_a_model_object_comes_back_as_it_was(model, tmp_path, variant, ends):
    def fail() -> None:
        raise RuntimeError("of a callback")

    class Failing(autolora.Callback):
        def on_step(self, progress) -> None:
            fail()

    parameters, modules, tensors = state(model)
    data = {"train": "builtin:quickstart/train.jsonl", "eval_size": 8}
    if ends == "well":
        tune(tmp_path, model=model, data=data, variants=[variant])
    else:
        with pytest.raises(RuntimeError, match="of a callback"):
            tune(tmp_path, [Failing()], model=model, data=data, variants=[variant])
    now = state(model)
    assert (now[0], now[1]) == (parameters, modules)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in now[2].items())
