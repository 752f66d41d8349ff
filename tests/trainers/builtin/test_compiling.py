"""Compiled training: as uncompiled but for rounding, few graphs whatever the lengths, refused where it cannot be."""

from __future__ import annotations

import functools
import logging

import pytest
import torch
import torch._dynamo
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from autolora.bases import ModelError, compiling
from autolora.bases.compiling import graphs
from autolora.search import Job
from autolora.space import Config, Space
from autolora.trainers import checkpoint
from autolora.trainers.builtin import compiling as trials
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.trainer import BuiltinTrainer

CONFIG = Config(2e-3, 8, 4, 4.0)
COMPILED = {"training.compile": True}


def piece(variant: str = "lora", config: Config = CONFIG) -> Job:
    return Job(0, variant, config, seed=0, start=0.0, stop=1.0, rung=2)


@pytest.fixture(autouse=True)
def _no_logs_of_the_compiler(monkeypatch):
    """Pytest would keep thousands of lines."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.fixture
def forgotten():
    """Without graphs of other tests; they are counted from here on."""
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def traced(forgotten, monkeypatch):
    """Graphs are captured and run as they are: what a compiler makes of them takes half a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def trained(bench, job):
    outcome = segment.run(bench, job)
    manifest, _ = checkpoint.newest(bench.trial_folder(0))
    return outcome, manifest


def assert_as_uncompiled(make_bench, tmp_path, **overrides):
    (one, plain), (two, fast) = (
        trained(make_bench(tmp_path / name, **{**overrides, **more}), piece())
        for name, more in (("plain", {}), ("fast", COMPILED))
    )
    assert two.value == pytest.approx(one.value, abs=1e-3)
    assert fast.losses == pytest.approx(plain.losses, abs=1e-3)
    assert fast.gradient_norms == pytest.approx(plain.gradient_norms, rel=1e-2)


def test_a_compiled_run_is_as_an_uncompiled_one_with_few_graphs(make_bench, tmp_path, traced):
    """Lengths and numbers of rows are symbols: one graph for the first block, whose input has no gradient, and one for
    all others. Those of a single row are others."""
    assert_as_uncompiled(make_bench, tmp_path, **{"training.dropout": 0.1})
    assert 2 <= graphs() <= 5  # the first is of the check for a compiler


@pytest.mark.slow
def test_so_does_what_the_compiler_makes_of_the_graphs(make_bench, tmp_path, forgotten):
    assert_as_uncompiled(make_bench, tmp_path)
    assert 2 <= graphs() <= 5  # the first is of the check for a compiler


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{"training.gradient_checkpointing": True}, {"training.micro_batch": 1}], ids=str)
def test_with_checkpointing_and_with_single_rows(make_bench, tmp_path, traced, overrides):
    assert_as_uncompiled(make_bench, tmp_path, **overrides)
    assert graphs() == 3  # the first is of the check for a compiler


@pytest.mark.slow
def test_another_trial_of_the_same_variant_and_rank_needs_no_graph_of_its_own(make_bench, tmp_path, traced):
    trained(make_bench(tmp_path / "one", **COMPILED), piece())
    before = graphs()
    trained(make_bench(tmp_path / "two", **COMPILED), piece(config=CONFIG.replaced(alpha=9.0, learning_rate=1e-4)))
    assert graphs() == before


def test_nothing_of_the_model_is_compiled_afterwards_or_by_default(make_bench, base, traced):
    blocks = compiling.blocks_of(base.model)
    assert len(blocks) == base.model.config.num_hidden_layers
    bench = make_bench()
    with bench.attached("lora", CONFIG, 0) as adapted:
        with compiling.compiled(adapted, "lora"):
            assert all(block._compiled_call_impl is not None for block in blocks)
        assert all(block._compiled_call_impl is None for block in blocks)
    trained(bench, piece())
    assert graphs() == 0


@pytest.mark.parametrize("variant", ["hira", "loramoe", "goat"])
def test_a_variant_that_cannot_be_compiled_is_refused_before_it_trains(make_bench, traced, variant):
    trainer = BuiltinTrainer(make_bench(**COMPILED))
    with pytest.raises(ModelError, match=f"blocks of LlamaForCausalLM with {variant}, rank 4, cannot be compiled"):
        trainer.check([variant], Space(rank=4), {})


@pytest.mark.slow
def test_what_can_be_compiled_is_not_refused_and_plain_steps_are_tried_once(make_bench, traced):
    trainer = BuiltinTrainer(make_bench(**COMPILED))
    before = graphs()
    trainer.check(["lora", "pissa", "rslora"], Space(rank=4), {})
    assert graphs() == before + 2


@pytest.mark.slow
def test_what_would_be_compiled_for_every_length_is_refused(make_bench, forgotten, monkeypatch):
    """As a model would be that loops over tokens."""
    real = torch.compile

    def of_fixed_lengths(function, **settings):
        return real(function, **{**settings, "dynamic": False, "backend": "aot_eager"})

    monkeypatch.setattr(torch, "compile", of_fixed_lengths)
    with pytest.raises(ModelError, match="are compiled again for rows of another length"):
        BuiltinTrainer(make_bench(**COMPILED)).check(["lora"], Space(rank=4), {})


def test_a_model_without_blocks_is_refused(make_bench, monkeypatch):
    monkeypatch.setattr(compiling, "blocks_of", lambda model: [])
    with pytest.raises(ModelError, match=r"training\.compile is true, but .* has no blocks"):
        make_bench(**COMPILED)


def test_a_machine_without_a_compiler_is_refused(make_bench, monkeypatch, forgotten):
    from torch._inductor import cpp_builder

    def missing(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    with (
        torch._inductor.config.patch(force_disable_caches=True),
        pytest.raises(ModelError, match=r"nothing can be compiled for cpu here .*set it to false, or install"),
    ):
        make_bench(**COMPILED)


def test_other_errors_are_not_taken_for_those_of_a_compiler(make_bench, traced):
    with (
        make_bench().attached("lora", CONFIG, 0) as adapted,
        pytest.raises(RuntimeError, match="of mine"),
        compiling.compiled(adapted, "lora"),
    ):
        raise RuntimeError("of mine")


def test_half_a_file_of_the_compilers_is_not_the_variant_s_fault(make_bench, traced):
    """As a process leaves it that is killed while it compiles."""
    with (
        make_bench().attached("lora", CONFIG, 0) as adapted,
        pytest.raises(ModelError, match=r"cannot be read \(TorchDynamoException: no block.*Remove the folder "),
        compiling.compiled(adapted, "lora"),
    ):
        raise TorchDynamoException("no block") from ImportError("main.so: file too short")


def test_memory_that_runs_out_while_it_is_tried_is_an_answer(make_bench, traced, monkeypatch):
    def fails(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trials, "_pass", fails)
    with pytest.raises(ModelError, match=r"memory ran out while compiling lora \(training\.compile\)"):
        BuiltinTrainer(make_bench(**COMPILED)).check(["lora"], Space(rank=4), {})


def test_no_pass_has_as_many_rows_as_tokens(make_bench, traced, monkeypatch):
    """Torch would take the two sizes for one, and compile again for the next length."""
    taken = []
    monkeypatch.setattr(trials, "_pass", lambda bench, adapted, rows: taken.append(bench.data.train.lengths[rows]))
    bench = make_bench(**COMPILED)
    lengths = bench.data.train.lengths.copy()
    lengths[:6] = 2
    monkeypatch.setitem(vars(bench.data.train), "lengths", lengths)
    BuiltinTrainer(bench).check(["lora"], Space(rank=4), {})
    assert len(taken) == 2
    assert all(len(lengths) == 2 and lengths.max() > 2 for lengths in taken)
