"""Factorizations on disk: the same bits, once for all processes, whatever became of the files."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from autolora.adapters import factors, store, svd
from autolora.adapters.attachment import attachment
from autolora.adapters.state import adapter_state
from autolora.adapters.store import Store
from autolora.adapters.subtraction import weight_matrix
from autolora.space import Config
from autolora.variants import detach, get
from autolora.variants.goat import SegmentedSvd
from tests.support.processes import FORKED
from tests.support.tiny_models import build_model

OF_WEIGHTS = ("pissa", "olora", "milora", "goat")
OF_DATA = ("corda", "corda_kpm", "eva", "lora_ga", "lora_one", "gora", "lora_da")
RANK = 4


@pytest.fixture
def batches(tokens):
    return [{"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}]


@pytest.fixture
def kept(tmp_path):
    return Store(tmp_path / "factors", least=0)


def start(base, name, batches, kept=None):
    """The state that an adapter starts in, without memory of an earlier one."""
    factors.forget(base)
    arguments = {"rank": RANK, "alpha": RANK, "batches": batches, "horizon": 10}
    if kept is None:
        adapted = get(name).attach(base, **arguments)
    else:
        with factors.kept_in(base, kept):
            adapted = get(name).attach(base, **arguments)
    state = adapter_state(adapted)
    detach(adapted)
    return state


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


def entries(kept):
    return sorted(kept.folder.glob(f"*{store.SUFFIX}"))


@pytest.fixture
def computed(monkeypatch):
    """How often anything was factorized."""
    counts = []
    for kind in ("svd", "qr", "eigh", "inv"):
        original = getattr(torch.linalg, kind)
        monkeypatch.setattr(
            torch.linalg, kind, lambda *a, original=original, **k: counts.append(1) or original(*a, **k)
        )
    return counts


@pytest.mark.parametrize("name", [*OF_WEIGHTS, *OF_DATA])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_start_has_the_same_bits_without_it_with_it_and_from_it(batches, kept, computed, name, family):
    plain = start(build_model(family), name, batches)
    assert computed
    assert same(start(build_model(family), name, batches, kept), plain)
    assert entries(kept)
    computed.clear()
    files = entries(kept)
    assert same(start(build_model(family), name, batches, kept), plain)
    assert not computed, "another process reads it"
    assert entries(kept) == files


def test_layers_that_are_computed_in_no_time_are_not_kept(batches, tmp_path):
    usual = Store(tmp_path / "factors")
    start(build_model(), "pissa", batches, usual)
    assert entries(usual) == []


@pytest.mark.parametrize("name", ["pissa", "lora_ga"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        lambda path: path.write_bytes(b"version https://git-lfs" + b"\n" * 40),
        lambda path: shutil.copy(next(other for other in path.parent.glob("*s") if other != path), path),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["empty", "cut", "cut in its head", "a bit", "another file", "of another layer", "a folder"],
)
def test_a_damaged_entry_is_computed_again(batches, kept, computed, caplog, name, damage):
    plain = start(build_model(), name, batches, kept)
    damage(entries(kept)[0])
    computed.clear()
    with caplog.at_level(logging.WARNING):
        assert same(start(build_model(), name, batches, kept), plain)
    assert computed
    assert "it is computed again" in caplog.text


@pytest.mark.parametrize("name", ["pissa", "lora_ga"])
def test_what_cannot_be_written_costs_time_alone(batches, tmp_path, caplog, name):
    (tmp_path / "file").write_text("")
    kept = Store(tmp_path / "file", least=0)
    assert same(start(build_model(), name, batches, kept), start(build_model(), name, batches))
    assert caplog.text.count("are not kept") == 1


@pytest.mark.parametrize(("limit", "value"), [("MOST_BYTES", 3000), ("SPARE_BYTES", 1 << 60)])
def test_it_takes_no_more_than_there_is_room_for(batches, kept, monkeypatch, caplog, limit, value):
    monkeypatch.setattr(store, limit, value)
    start(build_model(), "pissa", batches, kept)
    assert store.size_of(kept.folder) <= 3000 * 1.5
    assert caplog.text.count("is full") == 1


class TestKeys:
    """What numbers depend on is in the key."""

    def count(self, kept, base, name, batches):
        before = len(entries(kept))
        start(base, name, batches, kept)
        return len(entries(kept)) - before

    @pytest.fixture
    def layers(self, kept, batches):
        return self.count(kept, build_model(), "pissa", batches)

    def test_other_weights(self, kept, layers, batches):
        base = build_model()
        with torch.no_grad():
            base.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-6
        assert self.count(kept, base, "pissa", batches) == 1

    def test_weights_in_another_dtype(self, kept, layers, batches):
        assert self.count(kept, build_model().bfloat16(), "pissa", batches) == layers

    def test_another_method(self, kept, layers, batches):
        assert self.count(kept, build_model(), "milora", batches) == layers

    def test_another_number_of_components(self, kept, layers, batches, monkeypatch):
        monkeypatch.setattr(factors, "KEPT_RANK", 8)
        assert self.count(kept, build_model(), "pissa", batches) == layers

    @pytest.mark.parametrize("fact", ["_processor", "_versions"])
    def test_another_machine_or_version(self, kept, layers, batches, monkeypatch, fact):
        monkeypatch.setattr(store, fact, lambda: ("another",))
        assert self.count(kept, build_model(), "pissa", batches) == layers

    def test_other_options_of_a_variant(self):
        assert store.name_of(SegmentedSvd(2)) != store.name_of(SegmentedSvd(4))

    def test_what_the_sample_shows_depends_on_the_whole_model_and_the_sample(self, kept, batches):
        layers = self.count(kept, build_model(), "lora_ga", batches)
        assert layers
        base = build_model()
        with torch.no_grad():
            base.model.norm.weight[0] += 1e-6  # of no adapted layer
        assert self.count(kept, base, "lora_ga", batches) == layers
        base = build_model()
        base.config.rms_norm_eps *= 2
        assert self.count(kept, base, "lora_ga", batches) == layers
        other = [{**batches[0], "labels": batches[0]["labels"].flip(1)}]
        assert self.count(kept, build_model(), "lora_ga", other) == layers
        assert self.count(kept, build_model(), "lora_ga", batches) == 0

    def test_code_of_others_may_change_while_its_name_stays(self, kept):
        def own(weight, components):
            return (weight[:, :components],)

        base = build_model()
        layers = {"up": base.model.layers[0].mlp.up_proj}
        with factors.kept_in(base, kept):
            found = factors.weight_factors(base, layers, RANK, own)
        assert torch.equal(found["up"][0], weight_matrix(layers["up"])[:, :32])
        assert entries(kept) == []


def _work(folder: str, log: str, seconds: float) -> None:
    """A worker that starts PiSSA; every SVD is noted and takes a while."""
    own = svd.exact_svd

    def slow(matrix):
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return own(matrix)

    svd.exact_svd = slow
    torch.set_num_threads(1)
    base = build_model()
    with factors.kept_in(base, Store(Path(folder), least=0)):
        adapted = get("pissa").attach(base, rank=RANK, alpha=RANK)
    torch.save(adapter_state(adapted), f"{log}.{os.getpid()}")


def workers(tmp_path, count, seconds):
    processes = [
        FORKED.Process(target=_work, args=(str(tmp_path / "factors"), str(tmp_path / "log"), seconds))
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def layers_of(base):
    adapted = get("lora").attach(base, rank=2, alpha=2)
    try:
        return len(attachment(adapted).layers)
    finally:
        detach(adapted)


def test_workers_that_start_at_once_share_the_work(tmp_path):
    processes = workers(tmp_path, 3, 0.3)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    done = (tmp_path / "log").read_text().split()
    assert len(done) == layers_of(build_model()), "each matrix is factorized once"
    assert len(set(done)) > 1, "by several workers"
    states = [torch.load(path) for path in tmp_path.glob("log.*")]
    assert len(states) == 3
    assert all(same(state, states[0]) for state in states)


def test_what_a_killed_worker_was_computing_is_computed_by_another(tmp_path):
    [killed] = workers(tmp_path, 1, 600)
    until = time.monotonic() + 60
    while not (tmp_path / "log").exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    [other] = workers(tmp_path, 1, 0)
    other.join()
    assert other.exitcode == 0
    assert len((tmp_path / "log").read_text().split()) == layers_of(build_model()) + 1


def test_nobody_waits_for_ever_for_another(tmp_path, kept, batches, monkeypatch):
    monkeypatch.setattr(factors, "PATIENCE", 0.3)
    monkeypatch.setattr(store, "SLOTS", 1)
    with kept.turn("0" * 32):
        assert same(start(build_model(), "pissa", batches, kept), start(build_model(), "pissa", batches))


@pytest.mark.parametrize("name", ["pissa", "lora_ga"])
def test_trials_share_it_with_later_starts_of_a_study(make_bench, computed, name):
    """In the run directory; a trial that goes on reads it, too."""
    bench = make_bench()
    bench.store.least = 0
    for _ in range(2):
        factors.forget(bench.base.model)
        computed.clear()
        with bench.attached(name, Config(1e-3, 4, 2, 2.0), 0):
            pass
    assert not computed
    assert store.size_of(bench.store.folder) > 0
    assert bench.store.folder.name == "factors"


def test_products_of_another_precision_are_other_numbers():
    device = torch.device("cpu")
    exact = store.key_of(device, "fact")
    torch.set_float32_matmul_precision("medium")
    try:
        assert store.key_of(device, "fact") != exact
    finally:
        torch.set_float32_matmul_precision("highest")
    assert store.key_of(device, "fact") == exact


def test_a_file_that_was_swept_while_it_was_written_closes_nothing(tmp_path, monkeypatch, caplog):
    kept = store.Store(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(store.files, "replacing", lambda path: (_ for _ in ()).throw(FileNotFoundError("gone")))
        kept.save("0" * 32, (torch.ones(2),))
    assert "is not kept" in caplog.text
    kept.save("1" * 32, (torch.ones(2),))
    assert kept.load("1" * 32) is not None


def test_the_bound_holds_for_all_that_write_to_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MOST_BYTES", 3000)
    monkeypatch.setattr(store, "RECOUNT", 1)
    writers = [store.Store(tmp_path) for _ in range(4)]
    for place in range(12):
        writers[place % 4].save(f"{place:032}", (torch.ones(200),))
    assert store.size_of(tmp_path) <= 3000 + 4 * 1000
