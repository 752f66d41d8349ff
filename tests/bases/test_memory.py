"""Memory that runs out while a base is loaded is an answer, not a traceback."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel

from autolora import bases
from autolora.bases.base import Base
from autolora.bases.memory import out_of_memory
from autolora.trainers.builtin import evaluation
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from tests.support.checkpoints import saved, tiny
from tests.support.specs import small_spec

ERRORS = {
    "machine": lambda: MemoryError(),
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"),
    "file": lambda: OSError(errno.ENOMEM, "Cannot allocate memory"),
}
ANSWER = (
    r"model: memory ran out while .* on cpu: the [\d,]+ weights take [\d.]+ [kM]B in float32, "
    r"and this machine has [\d.]+ GB.*The weights take far less than that, so end other programs"
)


def no_memory(*args, **kwargs):
    raise MemoryError


@pytest.fixture(params=ERRORS)
def failing(request):
    """A function that fails as memory does."""

    def fails(*args, **kwargs):
        raise ERRORS[request.param]()

    return fails


@pytest.mark.parametrize("kind", [AutoConfig, AutoTokenizer, AutoModelForCausalLM])
def test_while_files_are_read(failing, kind, monkeypatch):
    monkeypatch.setattr(kind, "from_pretrained", failing)
    known = "how much the weights take is not known" if kind is AutoConfig else r"the [\d,]+ weights take"
    with pytest.raises(bases.ModelError, match=f"memory ran out while loading the model on cpu: {known}.*bfloat16"):
        bases.load(small_spec())


@pytest.mark.parametrize("method", ["to", "forward"])
def test_while_it_is_moved_and_checked(failing, method, monkeypatch):
    kind = PreTrainedModel if method == "to" else type(bases.load(small_spec()).model)
    monkeypatch.setattr(kind, method, failing)
    with pytest.raises(bases.ModelError, match=ANSWER):
        bases.load(small_spec())


def test_while_an_adapter_is_merged(failing, tmp_path, monkeypatch):
    from peft import LoraConfig, PeftModel, get_peft_model

    base = saved(tmp_path / "base", tiny())
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr(PeftModel, "from_pretrained", failing)
    with pytest.raises(bases.ModelError, match=ANSWER):
        bases.load(small_spec(model=str(tmp_path / "adapter")))


def test_while_a_model_object_is_checked(failing, tmp_path, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(saved(tmp_path, tiny()))
    monkeypatch.setattr(type(model), "forward", failing)
    with pytest.raises(bases.ModelError, match=ANSWER):
        bases.load(small_spec(model=model))


def test_while_the_metric_is_tried(failing, base, tmp_path, monkeypatch):
    spec = small_spec(metric={"name": "exact_match"})
    data = prepare_data(spec, base.tokenizer, tmp_path / "data")
    monkeypatch.setattr(evaluation, "check_generation", failing)
    with pytest.raises(bases.ModelError, match=r"while trying the metric exact_match on cpu: the [\d,]+ weights"):
        Workbench.of(spec, tmp_path, base, data)


class _Movable(torch.nn.Linear):
    """A model that another device has room for once."""

    def __init__(self, error):
        super().__init__(2, 2)
        self.moves, self.error = [], error

    def to(self, device):
        self.moves.append(str(device))
        if str(device) != "cpu":
            self.error()
        return self


def test_on_the_way_back_to_a_device(failing, base):
    model = _Movable(failing)
    elsewhere: Base = replace(base, model=model, device=torch.device("mps"), again=None)
    elsewhere.set_aside()
    said = "while moving it back to its device on mps: the 6 weights"
    with pytest.raises(bases.ModelError, match=said):
        elsewhere.recall()
    assert model.moves == ["cpu", "mps"]


def test_what_is_proposed_fits_the_dtype(monkeypatch):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", no_memory)
    with pytest.raises(bases.ModelError) as narrow:
        bases.load(small_spec(**{"training.dtype": "bfloat16"}))
    assert "in bfloat16" in str(narrow.value)
    assert "training.dtype" not in str(narrow.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((make(), True) for make in ERRORS.values()),
        (torch.OutOfMemoryError(), True),
        (RuntimeError("shapes do not fit"), False),
        (OSError(errno.ENOENT, "no such file"), False),
        (ValueError("a wrong value"), False),
        (KeyError("memory"), False),
    ],
    ids=str,
)
def test_what_counts_as_memory(error, expected):
    assert out_of_memory(error) == expected
    with pytest.raises(LookupError) as raised:
        raise LookupError("because of the above") from error
    assert out_of_memory(raised.value) == expected


PROGRAM = """
import json, resource, sys
import torch, transformers, peft, datasets
from autolora import bases
from autolora import spec as specs
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
spec = specs.load(model=sys.argv[1], data="builtin:quickstart/train.jsonl", training={"device": "cpu"})
try:
    bases.load(spec)
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space")
def test_in_a_process_that_has_no_more_memory(tmp_path):
    """The weights take 290 MB, and the process may take 150 MB more than it has."""
    config = LlamaConfig(vocab_size=96, hidden_size=1024, intermediate_size=4096, num_hidden_layers=4)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    folder = saved(tmp_path, AutoModelForCausalLM.from_config(config))
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(150 << 20)], capture_output=True, text=True, timeout=300
    )
    assert run.stdout.strip(), run.stderr[-3000:]
    kind, said = json.loads(run.stdout.strip().splitlines()[-1])
    assert kind == "ModelError", said
    assert f"the {parameters:,} weights take" in said
    assert "memory ran out while loading the model on cpu" in said
