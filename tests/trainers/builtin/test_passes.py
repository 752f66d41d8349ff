"""A batch is cut into the cheapest passes; what fits is found by one probe, and remembered."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from autolora.adapters.memory import Device
from autolora.bases import ModelError
from autolora.trainers.builtin import room
from autolora.trainers.builtin.passes import Passes
from autolora.trainers.builtin.room import SPARE, Cost, fitted


def lengths(rows: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 400, rows)


def cost(cut: list[np.ndarray], lengths: np.ndarray, overhead: int) -> int:
    return sum(int(lengths[rows].max()) * len(rows) + overhead for rows in cut)


def cheapest(sorted_lengths: tuple[int, ...], tokens: int, overhead: int) -> int:
    """By trying every cut of rows in order."""
    if not sorted_lengths:
        return 0
    found = []
    for rows in range(1, len(sorted_lengths) + 1):
        padded = sorted_lengths[0] * rows
        if rows == 1 or padded <= tokens:
            found.append(padded + overhead + cheapest(sorted_lengths[rows:], tokens, overhead))
    return min(found)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("overhead", [0, 64, 1000])
def test_a_cut_is_the_cheapest_there_is(seed, overhead):
    rows = lengths(10, seed)
    cut = Passes(tokens=900, overhead=overhead).cut(rows)
    expected = cheapest(tuple(int(length) for length in sorted(rows, reverse=True)), 900, overhead)
    assert cost(cut, rows, overhead) == expected


@pytest.mark.parametrize("tokens", [1, 100, 500, 5000])
@pytest.mark.parametrize("most", [None, 1, 3])
def test_every_row_is_in_one_pass_and_no_pass_is_larger_than_allowed(tokens, most):
    rows = lengths()
    cut = Passes(tokens, overhead=64).cut(rows, most)
    assert sorted(np.concatenate(cut)) == list(range(len(rows)))
    for each in cut:
        assert len(each) == 1 or rows[each].max() * len(each) <= tokens
        assert most is None or len(each) <= most


def test_the_longest_rows_go_first():
    cut = Passes(tokens=800, overhead=0).cut(lengths())
    longest = [int(lengths()[rows].max()) for rows in cut]
    assert all(first >= second for first, second in pairwise(longest))


def test_a_cut_is_a_function_of_the_lengths_alone():
    cuts = [Passes(800, 64).cut(lengths()) for _ in range(2)]
    assert all(np.array_equal(one, two) for one, two in zip(*cuts, strict=True))


def test_rows_of_one_length_and_no_limit_pass_together():
    assert [len(rows) for rows in Passes(10_000, 64).cut(np.full(12, 100))] == [12]


def test_passes_travel_as_plain_numbers():
    passes = Passes(1234, 56, checkpointing=True)
    assert Passes.of(json.loads(json.dumps(passes.record()))) == passes


def test_a_straight_line_through_two_measurements_says_what_fits():
    """A million bytes that stay, and a thousand for each token."""
    one, two = Cost(1e6 + 100 * 1e3, 0.030), Cost(1e6 + 200 * 1e3, 0.050)
    passes = fitted(100, one, two, available=11e6)
    assert passes.tokens == pytest.approx(((1 - SPARE) * 11e6 - 1e6) / 1e3, abs=1)
    assert passes.overhead == pytest.approx(50, abs=1)  # 10 ms, at 0.2 ms a token


def test_at_least_the_longest_row_is_tried_whatever_the_measurements_say():
    assert fitted(100, Cost(1e6, 0.03), Cost(2e6, 0.05), available=1e5).tokens == 100


def test_passes_that_take_the_same_time_whatever_they_hold_are_as_large_as_they_can_be():
    assert fitted(100, Cost(1e6, 0.03), Cost(2e6, 0.03), available=1e8).overhead >= 1000


class Gpu:
    """A device of so many bytes, where a pass takes a thousand bytes a token beside ten thousand that stay."""

    def __init__(self, monkeypatch, bench, memory: float, again: float = 1.0) -> None:
        self.memory, self.again, self.passes, self._base = memory, again, [], bench.base
        bench.room.base = replace(bench.base, device=torch.device("cuda"))
        self._longest, self._peak = bench.room.longest, 0.0
        monkeypatch.setattr(room, "_available", lambda device: int(memory))
        monkeypatch.setattr(bench.room, "_measured", self.measured)
        monkeypatch.setattr(room, "_name", lambda device: "a card")
        monkeypatch.setattr(room, "capacity", lambda device: Device("cuda", int(memory)))

    def run(self, rows: int) -> None:
        self.passes.append(rows)
        a_token = 1e3 * (self.again if self._base.checkpoints else 1.0)
        self._peak = 1e4 + a_token * rows * self._longest
        if self._peak > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def measured(self, run, rows: int) -> Cost:
        run(rows)
        return Cost(self._peak, 0.01 + 1e-4 * rows * self._longest)


def test_room_on_a_gpu_is_found_by_one_probe_with_the_longest_row(monkeypatch, make_bench):
    bench = make_bench()
    gpu = Gpu(monkeypatch, bench, memory=1e9)
    passes = bench.room.start("lora", gpu.run, trained_bytes=1000)
    assert gpu.passes == [1, 1, 2]
    assert passes.tokens == pytest.approx((1 - SPARE) * 1e6, rel=0.02)
    assert passes.overhead == pytest.approx(100, abs=1)
    assert bench.room.start("lora", gpu.run, 1000) == passes
    assert gpu.passes == [1, 1, 2], "it is known for the next trial"


def test_what_a_probe_found_is_known_after_a_restart(monkeypatch, make_bench):
    first = make_bench()
    found = first.room.start("lora", Gpu(monkeypatch, first, memory=1e9).run, 1000)
    second = make_bench()
    gpu = Gpu(monkeypatch, second, memory=1e9)
    assert second.room.start("lora", gpu.run, 1000) == found
    assert gpu.passes == []
    assert second.room.start("dora", gpu.run, 1000) == found
    assert gpu.passes == [1, 1, 2], "another variant has a probe of its own"


def test_a_file_of_findings_that_is_damaged_is_found_out_again(monkeypatch, make_bench, caplog):
    bench = make_bench()
    bench.room.file.write_text('{"a card": ')
    gpu = Gpu(monkeypatch, bench, memory=1e9)
    bench.room.start("lora", gpu.run, 1000)
    assert gpu.passes == [1, 1, 2]
    assert "room.json" in caplog.text


def test_where_one_row_does_not_fit_activations_are_computed_again(monkeypatch, make_bench):
    bench = make_bench()
    gpu = Gpu(monkeypatch, bench, memory=1e4 + 500 * bench.room.longest, again=0.1)
    passes = bench.room.start("lora", gpu.run, 0)
    assert passes.checkpointing
    assert passes.tokens >= 2 * bench.room.longest
    assert not bench.base.checkpoints


def test_where_nothing_fits_the_trial_finds_out(monkeypatch, make_bench):
    bench = make_bench()
    gpu = Gpu(monkeypatch, bench, memory=1e3)
    passes = bench.room.start("lora", gpu.run, 0)
    assert bench.room.less("lora", passes, rows=1, tokens=bench.room.longest).checkpointing
    assert not bench.room.file.exists()


def test_a_folder_that_cannot_be_written_to_ends_nothing(monkeypatch, make_bench, caplog):
    bench = make_bench()
    bench.room.file = bench.room.file.parent / "gone" / "room.json"
    bench.room.start("lora", Gpu(monkeypatch, bench, memory=1e9).run, 1000)
    assert "is not kept" in caplog.text


def test_after_memory_has_run_out_for_one_row_the_next_trial_tries_without_checkpointing_again(make_bench):
    bench = make_bench()
    first = bench.room.start("lora", pytest.fail, 0)
    again = bench.room.less("lora", first, rows=1, tokens=48)
    assert again.checkpointing
    assert not bench.room.start("lora", pytest.fail, 0).checkpointing
    later = [bench.room.start("lora", pytest.fail, 0) for _ in range(8)]
    assert later[-1] == first


@pytest.mark.parametrize("wanted", [True, False])
def test_a_trial_that_was_begun_checkpoints_as_the_user_says_by_now(make_bench, wanted):
    bench = make_bench(**{"training.gradient_checkpointing": wanted})
    assert bench.room.resumed(Passes(512, 64, checkpointing=not wanted)) == Passes(512, 64, wanted)
    kept = Passes(512, 64, checkpointing=True)
    assert make_bench(**{"training.gradient_checkpointing": "auto"}).room.resumed(kept) == kept


def test_gradient_checkpointing_that_a_model_cannot_do_is_refused_at_once(make_bench, monkeypatch, base):
    monkeypatch.setattr(type(base.model), "supports_gradient_checkpointing", False)
    with pytest.raises(ModelError, match=r"training\.gradient_checkpointing is true"):
        make_bench(**{"training.gradient_checkpointing": True})
    make_bench(**{"training.gradient_checkpointing": "auto"})
