"""The training loop on the shipped model: exact resume, accumulation, memory, divergence, resident base."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint as checkpoint_activations

from autolora import head, variants
from autolora.search import Job
from autolora.space import Config
from autolora.spec import TrainingSpec
from autolora.trainers import Interrupted, checkpoint
from autolora.trainers.builtin import room, segment
from autolora.trainers.builtin.evaluation import GROWS_AFTER, Evaluator
from autolora.trainers.builtin.passes import Passes
from autolora.trainers.builtin.stepping import Stepper

CONFIG = Config(2e-3, 8, 4, 4.0)
RUNGS = (1 / 9, 1 / 3, 1.0)
SCARCE = 150
"""Tokens that fit where memory is short: of two rows or so."""
KINDS = ("lora", "pissa", "dora", "loft", "gora", "randlora")
"""One variant for each kind of state that a segment carries: two factors; a start taken off the base; a parameter
beside the factors; an optimizer of its own; ranks that differ by layer; bases shared between layers. What every variant
does by itself, resume bit for bit and leave the base as it was, is in tests/variants."""


def piece(stop: float, rung: int, variant: str = "lora", config: Config = CONFIG, trial: int = 0) -> Job:
    return Job(trial, variant, config, seed=0, start=0.0, stop=stop, rung=rung)


def final_state(bench, trial: int = 0):
    return checkpoint.newest(bench.trial_folder(trial))


def digest(model) -> str:
    parts = (parameter.detach().numpy().tobytes() for _, parameter in sorted(model.named_parameters()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def assert_same_end(first, second) -> None:
    (one, state), (two, other) = first, second
    assert one.losses == two.losses
    assert one.gradient_norms == two.gradient_norms
    assert one.scores[2] == two.scores[2]
    for name, tensor in state["adapter"].items():
        assert torch.equal(tensor, other["adapter"][name]), name


@pytest.fixture(scope="module")
def uncut(open_bench, tmp_path_factory):
    """The workbench of a full run of plain LoRA in one go; only looked at."""
    bench = open_bench(tmp_path_factory.mktemp("uncut"))
    segment.run(bench, piece(1.0, 2))
    return bench


@pytest.mark.parametrize("variant", KINDS)
def test_a_run_cut_at_every_rung_equals_the_uncut_one_bit_for_bit(make_bench, tmp_path, variant):
    uncut, cut = make_bench(tmp_path / "uncut"), make_bench(tmp_path / "cut")
    segment.run(uncut, piece(1.0, 2, variant))
    for rung, stop in enumerate(RUNGS):
        segment.run(cut, piece(stop, rung, variant))
    assert_same_end(final_state(uncut), final_state(cut))


def test_a_run_stopped_at_every_step_equals_the_uncut_one_bit_for_bit(make_bench, uncut):
    cut = make_bench()

    def stop(_):
        raise Interrupted

    for _ in range(uncut.steps(CONFIG)):
        with pytest.raises(Interrupted):
            segment.run(cut, piece(1.0, 2), stop)
    segment.run(cut, piece(1.0, 2))
    assert_same_end(final_state(uncut), final_state(cut))


class Killed(BaseException):
    """Nothing is committed on the way out."""


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_run_killed_again_and_again_equals_the_uncut_one_wherever_its_checkpoints_are(
    make_bench, uncut, tmp_path, kind
):
    cut = make_bench(tmp_path / "cut", **{"training.checkpoint_seconds": 0})
    cut.checkpoints = {"file": (tmp_path / "shared").as_uri(), "memory": f"memory://{tmp_path.name}"}[kind]
    kills = 0
    while (left := cut.steps(CONFIG) - 2 * kills) >= 3:
        steps = iter(range(left))

        def kill(_, steps=steps):
            if next(steps) == 2:  # its third: two are committed
                raise Killed

        with pytest.raises(Killed):
            segment.run(cut, piece(1.0, 2), kill)
        kills += 1
        assert checkpoint.read_manifest(cut.trial_folder(0)).step == 2 * kills
    segment.run(cut, piece(1.0, 2))
    assert kills >= 3
    assert not (tmp_path / "cut" / "trials").exists()
    assert_same_end(final_state(uncut), final_state(cut))


def test_an_adapter_that_was_shed_is_not_attached_and_the_error_names_keep(make_bench):
    bench = make_bench()
    segment.run(bench, piece(1.0, 2))
    checkpoint.shed(bench.trial_folder(0))
    with (
        pytest.raises(checkpoint.CheckpointError, match=r"its weights were removed from .*trials/0, .*`keep`"),
        bench.trained(0),
    ):
        pass
    assert len(checkpoint.example_scores(bench.checkpoints, [0])[0].contributions()) == 24


def test_dropout_is_the_same_after_a_cut(make_bench, tmp_path):
    options = {"training.dropout": 0.2}
    uncut, cut = make_bench(tmp_path / "uncut", **options), make_bench(tmp_path / "cut", **options)
    segment.run(uncut, piece(1.0, 2))
    for rung, stop in enumerate(RUNGS):
        segment.run(cut, piece(stop, rung))
    assert_same_end(final_state(uncut), final_state(cut))


def test_a_damaged_newest_checkpoint_costs_one_interval_and_nothing_else(make_bench, uncut):
    cut = make_bench()
    segment.run(cut, piece(RUNGS[0], 0))
    segment.run(cut, piece(RUNGS[1], 1))
    newest = max(cut.trial_folder(0).glob("step-*"))
    (newest / "adapter.safetensors").write_bytes(b"")
    segment.run(cut, piece(1.0, 2))
    assert_same_end(final_state(uncut), final_state(cut))


def test_a_score_that_was_committed_is_not_computed_again(make_bench, monkeypatch):
    bench = make_bench()
    value = segment.run(bench, piece(RUNGS[0], 0)).value
    monkeypatch.setattr(Evaluator, "scores", lambda *_: pytest.fail("evaluated twice"))
    assert segment.run(bench, piece(RUNGS[0], 0)).value == value


def test_a_full_length_score_tells_of_its_rows_also_when_it_is_reported_again(make_bench, monkeypatch):
    bench = make_bench()
    assert segment.run(bench, piece(RUNGS[0], 0)).rows is None
    first = segment.run(bench, piece(1.0, 2))
    assert len(first.rows.totals) == len(bench.data.eval)
    assert first.rows.value == pytest.approx(first.value)
    monkeypatch.setattr(Evaluator, "scores", lambda *_: pytest.fail("evaluated twice"))
    assert segment.run(bench, piece(1.0, 2)).rows == first.rows


def test_the_rows_scores_are_kept_at_full_length_alone_and_travel_with_the_checkpoint(make_bench, tmp_path):
    bench = make_bench()
    for rung, stop in enumerate(RUNGS):
        assert checkpoint.example_scores(tmp_path, [0]) == {}
        value = segment.run(bench, piece(stop, rung)).value
    [scores] = checkpoint.example_scores(tmp_path, [0, 1]).values()
    assert scores.value == value
    assert len(scores.contributions()) == 24


def test_a_checkpoint_of_another_configuration_is_not_continued(make_bench):
    bench = make_bench()
    segment.run(bench, piece(RUNGS[0], 0))
    with pytest.raises(checkpoint.CheckpointError, match="another configuration"):
        segment.run(bench, piece(RUNGS[0], 0, config=Config(1e-3, 8, 4, 4.0)))


def test_two_studies_that_share_a_place_for_checkpoints_do_not_continue_each_other_s(make_bench):
    segment.run(make_bench(), piece(RUNGS[0], 0))
    with pytest.raises(checkpoint.CheckpointError, match="another model, dataset or training"):
        segment.run(make_bench(training={"examples": 32, "warmup_ratio": 0.5}), piece(RUNGS[1], 1))


def test_the_base_is_bit_identical_after_every_kind_of_variant(make_bench, base):
    bench, before = make_bench(), digest(base.model)
    for trial, variant in enumerate(KINDS):
        segment.run(bench, piece(RUNGS[0], 0, variant, trial=trial))
    assert digest(base.model) == before


def test_training_lowers_the_evaluation_loss(uncut):
    with uncut.attached("lora", CONFIG, 0) as untrained:
        before = uncut.evaluator.scores(untrained, uncut.data.eval).value
    assert final_state(uncut)[0].scores[2] < before - 0.2


def test_micro_batches_accumulate_to_the_global_batch(make_bench, uncut):
    split = make_bench(**{"training.micro_batch": 3})
    segment.run(split, piece(RUNGS[1], 1))
    assert final_state(split)[0].losses == pytest.approx(final_state(uncut)[0].losses[:3], rel=1e-4)


def limit_memory(monkeypatch, most: int, checkpointed: int | None = None) -> list[int]:
    """More than ``most`` tokens in one forward pass raise what torch raises when memory runs out.

    With ``checkpointed``, that is how many fit where activations are computed again.
    """
    tried: list[int] = []
    genuine = head.summed_loss

    def limited(model, batch, *rest):
        tried.append(batch["input_ids"].numel())
        again = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        if tried[-1] > (checkpointed if checkpointed is not None and again else most):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return genuine(model, batch, *rest)

    monkeypatch.setattr(head, "summed_loss", limited)
    return tried


def one_pass(monkeypatch) -> None:
    """A pass may hold a whole batch, and costs more than any padding."""
    monkeypatch.setattr(room, "IN_MAIN_MEMORY", Passes(tokens=10_000, overhead=10_000))


def test_out_of_memory_halves_the_pass_and_keeps_the_batch_size(make_bench, uncut, monkeypatch):
    one_pass(monkeypatch)
    tight = make_bench()
    tried = limit_memory(monkeypatch, most=SCARCE)
    outcome = segment.run(tight, piece(RUNGS[1], 1))
    assert outcome.kind == "scored"
    assert len([tokens for tokens in tried if tokens > SCARCE]) <= 2, "what did not fit is not tried at each step"
    manifest = final_state(tight)[0]
    assert manifest.losses == pytest.approx(final_state(uncut)[0].losses[:3], rel=1e-4)
    assert manifest.passes["tokens"] <= SCARCE


def test_what_has_fitted_is_remembered_over_restarts_and_goes_up_again_with_the_next_trial(make_bench, monkeypatch):
    one_pass(monkeypatch)
    with monkeypatch.context() as scarce:
        limit_memory(scarce, most=SCARCE)
        bench = make_bench()
        segment.run(bench, piece(RUNGS[0], 0))
        low = final_state(bench)[0].passes["tokens"]
        tried = limit_memory(scarce, most=SCARCE)
        segment.run(make_bench(), piece(RUNGS[1], 1))
        assert max(tried) <= SCARCE
    for trial in range(1, 9):
        segment.run(bench, piece(RUNGS[0], 0, trial=trial))
    tokens = [checkpoint.newest(bench.trial_folder(trial))[0].passes["tokens"] for trial in range(1, 9)]
    assert tokens == [min(10_000, low * 2**trial) for trial in range(1, 9)]


def test_gradient_checkpointing_comes_before_a_trial_is_infeasible(make_bench, uncut, monkeypatch):
    one_pass(monkeypatch)
    bench = make_bench()
    limit_memory(monkeypatch, most=0, checkpointed=SCARCE)
    assert segment.run(bench, piece(RUNGS[1], 1)).kind == "scored"
    manifest = final_state(bench)[0]
    assert manifest.passes["checkpointing"] is True
    assert manifest.losses == pytest.approx(final_state(uncut)[0].losses[:3], rel=1e-4)
    assert not bench.base.checkpoints


def test_without_gradient_checkpointing_a_single_example_that_does_not_fit_is_infeasible(make_bench, monkeypatch):
    bench = make_bench(**{"training.gradient_checkpointing": False})
    limit_memory(monkeypatch, most=0, checkpointed=SCARCE)
    assert segment.run(bench, piece(RUNGS[1], 1)).kind == "infeasible"


@pytest.mark.parametrize("variant", KINDS)
def test_gradient_checkpointing_changes_no_bit(make_bench, variant, tmp_path):
    kept, again = (
        make_bench(tmp_path / str(wanted), **{"training.gradient_checkpointing": wanted, "training.dropout": 0.1})
        for wanted in (False, True)
    )
    outcomes = [segment.run(bench, piece(RUNGS[1], 1, variant)) for bench in (kept, again)]
    assert outcomes[0].value == outcomes[1].value
    assert final_state(kept)[0].losses == final_state(again)[0].losses


def test_a_single_example_that_does_not_fit_is_infeasible_with_the_reason(make_bench, monkeypatch):
    bench = make_bench()
    limit_memory(monkeypatch, most=0)
    outcome = segment.run(bench, piece(RUNGS[1], 1))
    assert outcome.kind == "infeasible"
    assert "out of memory while training on as little as one example at a time" in outcome.reason


def test_memory_that_runs_out_in_the_optimizer_is_infeasible_not_the_end_of_the_study(make_bench, monkeypatch):
    def step(self, closure=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    outcome = segment.run(make_bench(), piece(RUNGS[1], 1))
    assert outcome.kind == "infeasible"
    assert "out of memory while taking the optimizer's step: CUDA out of memory" in outcome.reason


def test_memory_that_runs_out_without_a_word_is_infeasible(make_bench, monkeypatch):
    def scores(*_):
        raise MemoryError

    monkeypatch.setattr(Evaluator, "scores", scores)
    outcome = segment.run(make_bench(), piece(RUNGS[1], 1))
    assert (outcome.kind, outcome.reason) == ("infeasible", "out of memory while evaluating: MemoryError")


def test_a_probe_that_memory_runs_out_in_leaves_no_gradient(make_bench, uncut, monkeypatch):
    """Its second pass has filled gradients when it fails."""

    def start(self, adapter, run, trained_bytes):
        run(1)
        with monkeypatch.context() as scarce:
            scarce.setattr(Stepper, "_accumulate", filled)
            with pytest.raises(torch.OutOfMemoryError):
                run(2)
        return Passes(1024, 64)

    accumulate = Stepper._accumulate

    def filled(stepper, passes):
        accumulate(stepper, passes)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(room.Room, "start", start)
    bench = make_bench()
    segment.run(bench, piece(RUNGS[0], 0))
    assert final_state(bench)[0].gradient_norms == final_state(uncut)[0].gradient_norms[:1]


@pytest.mark.parametrize("passes", [{"tokens": 5}, {"tokens": 0, "overhead": 1, "checkpointing": False}, {"a": 1}])
def test_a_checkpoint_whose_passes_are_damaged_is_passed_over(make_bench, uncut, passes):
    bench = make_bench()
    segment.run(bench, piece(RUNGS[0], 0))
    segment.run(bench, piece(RUNGS[1], 1))
    newest = max((bench.trial_folder(0)).glob("step-*/manifest.json"))
    newest.write_text(json.dumps({**json.loads(newest.read_text()), "passes": passes}))
    segment.run(bench, piece(1.0, 2))
    assert_same_end(final_state(bench), final_state(uncut))


def test_a_model_of_the_user_s_that_checkpoints_the_reentrant_way_trains_as_others_do_and_is_left_so(
    make_bench, base, monkeypatch
):
    """The reentrant kind would leave LoRAMoE's balance without a gradient."""
    plain = make_bench()
    segment.run(plain, piece(RUNGS[1], 1, "loramoe"))
    expected = final_state(plain)[0]
    blocks = [module for module in base.model.modules() if hasattr(module, "gradient_checkpointing")]
    reentrant = partial(checkpoint_activations, use_reentrant=True)
    for block in blocks:
        monkeypatch.setattr(block, "gradient_checkpointing", True)
        monkeypatch.setattr(block, "_gradient_checkpointing_func", reentrant, raising=False)
    bench = make_bench(plain.checkpoints / "other")
    segment.run(bench, piece(RUNGS[1], 1, "loramoe"))
    assert final_state(bench)[0].passes["checkpointing"] is True
    assert all(block.gradient_checkpointing for block in blocks)
    assert all(block._gradient_checkpointing_func is reentrant for block in blocks)
    assert final_state(bench)[0].gradient_norms == expected.gradient_norms


def test_evaluation_makes_its_passes_smaller_when_memory_runs_out_and_remembers_it(make_bench, monkeypatch):
    bench = make_bench()
    with bench.attached("lora", CONFIG, 0) as adapted:
        expected = bench.evaluator.scores(adapted, bench.data.eval).value
        genuine, tried = head.token_predictions, []

        def limited(model, batch, apart):
            tried.append(len(batch["input_ids"]))
            if tried[-1] > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return genuine(model, batch, apart)

        monkeypatch.setattr(head, "token_predictions", limited)
        assert bench.evaluator.scores(adapted, bench.data.eval).value == pytest.approx(expected, rel=1e-5)
        tried.clear()
        bench.evaluator.scores(adapted, bench.data.eval)
        assert max(tried) <= 5


def test_a_metric_that_makes_no_use_of_passes_is_not_tried_again(make_bench, monkeypatch):
    bench, calls = make_bench(), []

    def scores(evaluation):
        calls.append(len(evaluation.rows))
        raise MemoryError

    bench.evaluator.metric = replace(bench.evaluator.metric, scores=scores)
    with bench.attached("lora", CONFIG, 0) as adapted, pytest.raises(MemoryError):
        bench.evaluator.scores(adapted, bench.data.eval)
    assert calls == [24]


def test_evaluation_tries_larger_passes_again_after_a_while(make_bench):
    bench = make_bench()
    evaluator, most = bench.evaluator, bench.evaluator.passes
    evaluator.passes = Passes(64, 64)
    with bench.attached("lora", CONFIG, 0) as adapted:
        for _ in range(5 * (GROWS_AFTER + 1)):
            evaluator.scores(adapted, bench.data.eval.of([0]))
    assert evaluator.passes == most


def test_an_absurd_learning_rate_diverges_early_and_says_why(make_bench):
    bench = make_bench(**{"training.examples": 400})
    outcome = segment.run(bench, piece(1.0, 2, config=Config(100.0, 8, 4, 4.0)))
    assert outcome.kind == "diverged"
    assert outcome.at < 0.5
    assert outcome.value is None
    assert "loss" in outcome.reason or "gradient" in outcome.reason


def test_trials_of_one_seed_see_the_same_examples_in_the_same_order(make_bench):
    bench = make_bench()
    small = [row for step in range(4) for row in bench.batches.rows(0, 4 * step, 4 * step + 4)]
    large = [row for step in range(2) for row in bench.batches.rows(0, 8 * step, 8 * step + 8)]
    assert small == large


@pytest.mark.parametrize(
    ("examples", "batch", "steps"), [(72, 8, 9), (70, 8, 9), (100, 64, 2), (16, 16, 1), (33, 8, 5)]
)
def test_a_full_run_of_any_batch_size_trains_on_the_same_examples_each_once(make_bench, examples, batch, steps):
    bench = make_bench(**{"training.examples": examples})
    outcome = segment.run(bench, piece(1.0, 2, config=Config(1e-3, batch, 4, 4.0)))
    manifest, _ = checkpoint.newest(bench.trial_folder(0))
    assert (manifest.step, manifest.examples, outcome.at) == (steps, examples, 1.0)


def test_the_last_batch_ends_with_the_run(make_bench, monkeypatch):
    bench = make_bench(**{"training.examples": 100})
    seen: list[int] = []
    rows = bench.batches.rows
    monkeypatch.setattr(bench.batches, "rows", lambda *args: seen.extend(rows(*args)) or rows(*args))
    segment.run(bench, piece(1.0, 2, config=Config(1e-3, 64, 4, 4.0)))
    assert seen == rows(0, 0, 100).tolist()


def test_a_run_that_diverges_says_the_share_of_examples_that_it_has_seen(make_bench):
    bench = make_bench(**{"training.examples": 403})
    outcome = segment.run(bench, piece(1.0, 2, config=Config(100.0, 8, 4, 4.0)))
    assert outcome.kind == "diverged"
    assert outcome.at in [min(8 * step, 403) / 403 for step in range(1, 52)]


def test_another_seed_sees_another_order(make_bench):
    bench = make_bench()
    assert bench.batches.rows(0, 0, 8).tolist() != bench.batches.rows(1, 0, 8).tolist()


def test_an_epoch_shows_every_row_once(make_bench):
    bench = make_bench()
    rows = len(bench.data.train)
    seen = [row for step in range(rows) for row in bench.batches.rows(0, step, step + 1)]
    assert sorted(seen) == list(range(rows))


def test_global_random_state_is_left_alone(make_bench):
    bench = make_bench()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    segment.run(bench, piece(RUNGS[0], 0))
    assert torch.equal(torch.rand(3), expected)


def test_trials_leave_nothing_behind(make_bench, base):
    """Live tensors and modules do not grow with the number of trials, nor does the process."""
    bench = make_bench(**{"training.examples": 8, "data.eval_size": 4})

    def living() -> tuple[int, int]:
        gc.collect()
        objects = gc.get_objects()
        return (
            sum(isinstance(each, torch.Tensor) for each in objects),
            sum(isinstance(each, torch.nn.Module) for each in objects),
        )

    def trial(number: int) -> None:
        variant = KINDS[number % len(KINDS)]
        segment.run(bench, piece(1.0, 2, variant, trial=number))
        shutil.rmtree(bench.trial_folder(number))

    for number in range(len(KINDS)):  # caches of weight factors fill once
        trial(number)
    before, memory = living(), resident_bytes()
    for number in range(len(KINDS)):
        trial(number)
    assert living() == before
    assert resident_bytes() - memory < 32e6


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def with_gamma(gamma: float) -> Config:
    return Config(2e-3, 8, 4, 4.0, {"gamma": gamma})


def test_a_variant_starts_as_its_options_say(make_bench):
    """A quarter of LoRA-GA's gamma starts twice as large."""
    bench, starts = make_bench(), []
    for gamma in (4, 16):
        with bench.attached("lora_ga", with_gamma(gamma), 0) as adapted:
            starts.append(torch.cat([p.detach().flatten() for p in adapted.parameters() if p.requires_grad]))
    assert starts[0].norm() > 0
    torch.testing.assert_close(starts[0], 2 * starts[1])


def test_a_variant_learns_as_its_options_say(make_bench):
    bench, config = make_bench(), Config(2e-3, 8, 4, 4.0, {"ratio": 4})
    with bench.attached("lora_plus", config, 0) as adapted:
        optimizer = bench.variant("lora_plus", config).optimizer(adapted, config.learning_rate)
    assert {group["lr"] for group in optimizer.param_groups} == {2e-3, 8e-3}


def test_a_run_with_options_cut_at_every_rung_equals_the_uncut_one_bit_for_bit(make_bench, tmp_path):
    uncut, cut = make_bench(tmp_path / "uncut"), make_bench(tmp_path / "cut")
    segment.run(uncut, piece(1.0, 2, "lora_ga", with_gamma(0.5)))
    for rung, stop in enumerate(RUNGS):
        segment.run(cut, piece(stop, rung, "lora_ga", with_gamma(0.5)))
    assert_same_end(final_state(uncut), final_state(cut))


def test_a_checkpoint_of_other_options_is_not_continued(make_bench):
    bench = make_bench()
    segment.run(bench, piece(RUNGS[0], 0, "lora_ga", with_gamma(4)))
    with pytest.raises(checkpoint.CheckpointError, match="another configuration"):
        segment.run(bench, piece(RUNGS[0], 0, "lora_ga", with_gamma(16)))


def test_a_trained_adapter_is_attached_with_its_options(make_bench):
    """Its start was taken off the base: with another gamma, other weights would remain."""
    bench = make_bench()
    value = segment.run(bench, piece(1.0, 2, "lora_ga", with_gamma(4))).value
    with bench.trained(0) as (_, adapted):
        assert bench.evaluator.scores(adapted, bench.data.eval).value == value


def test_a_trial_is_clipped_by_its_own_settings(make_bench, monkeypatch):
    """As a dimension may search them."""
    seen = set()

    def watched(self, model, optimizer, max_norm):
        seen.add(max_norm)
        return 1.0

    monkeypatch.setattr(type(variants.get("lora")), "clip_gradients", watched)
    monkeypatch.setattr(TrainingSpec, "of_trial", lambda self, config: self.model_copy(update={"max_grad_norm": 0.25}))
    segment.run(make_bench(), piece(RUNGS[0], 0))
    assert seen == {0.25}
