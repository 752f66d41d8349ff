"""The frozen base: what identifies it, where it lies, and what is said if it cannot be loaded."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from autolora import bases
from autolora.bases.device import find_device, find_dtype
from autolora.bases.pretrained import hidden_size, load_config
from tests.support.specs import small_spec


def test_the_fingerprint_is_that_of_the_weights_in_any_dtype(base):
    other = replace(base, model=copy.deepcopy(base.model).to(torch.bfloat16), dtype=torch.bfloat16)
    assert other.fingerprint() == base.fingerprint()
    with torch.no_grad():
        next(other.model.parameters()).view(-1)[0] += 1
    assert other.fingerprint() != base.fingerprint()


def test_nothing_of_the_base_is_trainable(base):
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_any_token_pads_if_the_tokenizer_names_none(base):
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.pad_token = None
    assert replace(base, tokenizer=tokenizer).pad_token_id == tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert replace(base, tokenizer=tokenizer).pad_token_id == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_forward_pass_is_in_16_bits_if_the_base_is(base, dtype):
    with base.autocast():
        assert not torch.is_autocast_enabled("cpu")
    with replace(base, dtype=dtype).autocast():
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == dtype


def test_batches_go_to_the_device_of_the_base(base):
    placed = base.placed({"input_ids": torch.ones(1, 2, dtype=torch.long)})
    assert placed["input_ids"].device == base.device


def test_a_model_object_is_taken_as_it_is(base):
    spec = small_spec().model_copy(update={"model": base.model})
    assert bases.load(spec).model is base.model
    assert hidden_size(load_config(spec)) == base.model.config.hidden_size


def test_a_cuda_device_that_is_not_there_is_refused_with_what_to_write(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(bases.ModelError, match=r"training\.device is 'cuda:1', but .*'auto' or 'cpu'"):
        find_device("cuda:1")


def test_the_base_is_float32_on_a_cpu_unless_a_dtype_is_named():
    assert find_dtype("auto", torch.device("cpu")) == torch.float32
    assert find_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    assert find_dtype("float16", torch.device("cpu")) == torch.float16


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_the_base_has_16_bits_on_a_cuda_gpu_unless_a_dtype_is_named(monkeypatch, has_bfloat16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert find_dtype("auto", torch.device("cuda")) == dtype
    assert find_dtype("float32", torch.device("cuda")) == torch.float32


def test_a_directory_without_a_model_is_named_with_what_belongs_there(tmp_path):
    with pytest.raises(bases.ModelError, match=rf"(?s)cannot load .* from the directory {tmp_path}.*config\.json"):
        bases.load(small_spec(model=str(tmp_path)))


def test_a_batch_goes_to_cuda_from_pinned_memory_without_being_waited_for(base):
    """What the device would be asked is recorded: no GPU is at hand."""

    class Recorded:
        def __init__(self, is_cpu: bool) -> None:
            self.is_cpu, self.asked = is_cpu, []

        def pin_memory(self):
            self.asked.append("pinned")
            return self

        def to(self, device, non_blocking):
            self.asked.append((device, non_blocking))
            return self

    cuda = torch.device("cuda")
    batch = {"input_ids": Recorded(is_cpu=True), "labels": Recorded(is_cpu=False)}
    placed = replace(base, device=cuda).placed(batch)
    assert {name: found.asked for name, found in placed.items()} == {
        "input_ids": ["pinned", (cuda, True)],
        "labels": [(cuda, True)],
    }
