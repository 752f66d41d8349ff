"""What a step asks of the device: one read, whatever the number of passes; and inputs of 16 bits taken as they come."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from autolora import bases, losses, variants
from autolora.adapters.attachment import attachment
from autolora.adapters.kernels.loft import LoftAdamW
from autolora.tasks.causal_lm.split import Split
from autolora.trainers.builtin.batches import given
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from studies.throughput.counts import CONFIG, Counts, count, stepping
from tests.support.specs import small_spec
from tests.support.tiny_models import build_model

FIRST = ("lora", "loft", "lora_pro", "adalora", "loramoe")
OWN = [
    *FIRST,
    *(pytest.param(name, marks=pytest.mark.slow) for name in variants.names() if name not in FIRST),
]
"""Variants whose clipping, optimizer, forward pass or penalty is their own; and all."""


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Workbenches of the shipped model in 16 bits, by dtype."""
    made: dict[str, Workbench] = {}

    def make(dtype: str) -> Workbench:
        if dtype not in made:
            spec = small_spec(**{"training.dtype": dtype})
            base, folder = bases.load(spec), tmp_path_factory.mktemp(dtype)
            made[dtype] = Workbench.of(spec, folder, base, prepare_data(spec, base.tokenizer, folder, base.limits))
        return made[dtype]

    return make


@pytest.mark.parametrize("variant", OWN)
def test_the_device_is_read_once_a_step_whatever_the_passes(make_bench, variant):
    bench = make_bench()
    assert [count(bench, variant, rows).reads for rows in (8, 2, 1)] == [1, 1, 1]


def test_a_float16_step_reads_besides_whether_gradients_overflowed(half):
    assert [count(half("float16"), "lora", rows).reads for rows in (8, 2)] == [2, 2]


def test_the_counter_sees_every_kind_of_read():
    values, mask = torch.arange(4.0), torch.tensor([True, False, True, False])
    reads = {
        "item": lambda: values.sum().item(),
        "float": lambda: float(values.sum()),
        "bool": lambda: bool(mask.any()),
        "tolist": lambda: values.tolist(),
        "numpy": lambda: values.numpy(),
        "nonzero": lambda: mask.nonzero(),
        "where": lambda: torch.where(mask),
        "mask": lambda: values[mask],
        "set by mask": lambda: values.clone().__setitem__(mask, torch.ones(2)),
    }
    for name, read in reads.items():
        with Counts() as counts:
            read()
        assert counts.reads >= 1, name
    with Counts() as counts:
        values.index_select(0, torch.tensor([0, 2])).sum()
    assert counts.reads == 0


@pytest.mark.parametrize("answer", [0.5, torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64)])
def test_a_variant_may_clip_to_a_number_or_to_a_tensor(make_bench, monkeypatch, answer):
    monkeypatch.setattr(type(variants.get("lora")), "clip_gradients", lambda *_: answer)
    with stepping(make_bench(), "lora") as stepper:
        loss, norm = stepper.gradients(0)
    assert (type(loss), type(norm), norm) == (float, float, 0.5)
    assert math.isfinite(loss)


@pytest.mark.parametrize("joined", [False, True])
def test_the_places_told_with_a_batch_are_those_that_its_labels_say(make_bench, joined):
    bench = make_bench()
    split: Split = bench.data.train
    rows = [0, 5, 3]
    batch = losses.with_places(split.joined(rows) if joined else split.batch(rows, 0))
    places = batch.pop(losses.PLACES)
    assert torch.equal(places, losses.target_places(batch))
    assert len(places) == split.target_counts[rows].sum()
    assert (batch["labels"].flatten()[places + 1] != losses.IGNORED).all()
    assert losses.PLACES in given(split, rows, bench.base)


def test_threads_that_overlap_leave_transformers_as_it_was():
    from transformers import masking_utils

    own, first, second = masking_utils.find_packed_sequence_indices, threading.Event(), threading.Event()

    def early() -> None:
        with losses.one_sequence_a_row(known=True):
            first.set()
            second.wait(60)

    thread = threading.Thread(target=early)
    thread.start()
    first.wait(60)
    with losses.one_sequence_a_row(known=True):  # begins amid the other, and ends after it
        second.set()
        thread.join(60)
        assert masking_utils.find_packed_sequence_indices is not own
    assert masking_utils.find_packed_sequence_indices is own


def test_a_row_that_holds_several_sequences_is_still_found_by_transformers():
    """Rows without positions of their own are not looked at; packed ones are masked as before."""
    model, ids = build_model(), torch.tensor([[5, 6, 7, 8, 9, 10]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with torch.no_grad():
        packed = losses.all_logits(model, {"input_ids": ids, "position_ids": positions})
        alone = losses.all_logits(model, {"input_ids": ids[:, 3:]})
    assert torch.allclose(packed[:, 3:], alone, atol=1e-5)


@pytest.mark.parametrize(("variant", "fewer"), [("lora", 4), ("moslora", 4), ("relora", 4), ("hydralora", 2)])
def test_inputs_in_16_bits_are_not_copied_to_float32_and_back(half, variant, fewer):
    """Four copies a layer were: forward to float32 and back, and so the gradient. Routers still read float32."""
    bench = half("bfloat16")
    with stepping(bench, variant) as stepper:
        layers = attachment(stepper.adapted).layers.values()
        lean, wide = (copies_of_inputs(stepper, layers, enabled) for enabled in (False, True))
    # The gradient of what goes into the first block is not taken: three layers have two copies less.
    assert wide - lean >= fewer * len(layers) - 6


def copies_of_inputs(stepper, layers, enabled: bool) -> int:
    for layer in layers:
        layer.module.cast_input_dtype_enabled = enabled
    with Counts() as counts:
        stepper.gradients(0)
    stepper.optimizer.zero_grad()
    return sum(number for shape, number in counts.casts.items() if len(shape) == 3)


@pytest.mark.parametrize("variant", ["lora", "adalora", "moslora", "melora", "rasa", "denselora"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_computed_in_16_bits_stays_the_same_bits(half, dtype, variant):
    with stepping(half(dtype), variant) as stepper:
        found = []
        for enabled in (True, False):
            for layer in attachment(stepper.adapted).layers.values():
                layer.module.cast_input_dtype_enabled = enabled
            numbers = stepper.gradients(0)
            found.append((numbers, [p.grad.clone() for p in stepper.adapted.parameters() if p.grad is not None]))
            stepper.optimizer.zero_grad()
    (one, wide), (two, lean) = found
    assert one == two
    assert all(torch.equal(a, b) for a, b in zip(wide, lean, strict=True))


def test_dropout_is_drawn_in_float32_as_before(half):
    bench = half("bfloat16")
    bench.training = bench.training.model_copy(update={"dropout": 0.1})
    try:
        with bench.attached("lora", CONFIG, 0) as adapted:
            assert all(layer.module.cast_input_dtype_enabled for layer in attachment(adapted).layers.values())
    finally:
        bench.training = bench.training.model_copy(update={"dropout": 0.0})
    with bench.attached("lora", CONFIG, 0) as adapted:
        assert not any(layer.module.cast_input_dtype_enabled for layer in attachment(adapted).layers.values())


@pytest.mark.parametrize("variant", OWN)
def test_parameters_and_gradients_are_contiguous(make_bench, variant):
    """Fused AdamW ignores strides."""
    with stepping(make_bench(), variant) as stepper:
        stepper.gradients(0)
        trained = [p for p in stepper.adapted.parameters() if p.requires_grad]
        assert all(p.is_contiguous() for p in trained)
        assert all(p.grad.is_contiguous() for p in trained if p.grad is not None)


@pytest.mark.parametrize("variant", OWN)
def test_parameters_are_moved_by_fused_adamw_or_by_the_variant_s_own_optimizer(make_bench, variant):
    with stepping(make_bench(), variant) as stepper:
        optimizer = stepper.optimizer
        assert isinstance(optimizer, LoftAdamW) or all(group["fused"] for group in optimizer.param_groups)
