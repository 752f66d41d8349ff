"""Training in float16: the loss is scaled, and steps whose gradients overflow are skipped."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
import torch

from autolora import bases, variants
from autolora.bases import Base
from autolora.head import summed_loss
from autolora.search import Job
from autolora.space import Config
from autolora.trainers import Interrupted, checkpoint
from autolora.trainers.builtin import scaling, segment
from autolora.trainers.builtin.evaluation import SplitEvaluation
from autolora.trainers.builtin.range_test import range_test
from autolora.trainers.builtin.scaling import LossScaler, Scaler, scaler_for
from autolora.trainers.builtin.stepping import Stepper
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from tests.support.specs import small_spec
from tests.support.tiny_models import VOCABULARY, build_model

CONFIG = Config(2e-3, 8, 4, 4.0)
OWN = [
    *("lora", "loft", "lora_pro", "loramoe"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("pissa", "dora", "lora_plus", "rplora", "relora")),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("adalora", "lora_ga", "hira", "randlora")),
]
"""Variants whose start, optimizer, clipping, penalty or schedule is their own, and some without."""
HIGH = 2.0**21
"""A first scale at which gradients overflow for some steps."""


@pytest.fixture(scope="module")
def half():
    """The shipped model in float16."""
    return bases.load(small_spec(**{"training.dtype": "float16"}))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture
def make_half(half, tokens, tmp_path):
    """A workbench in float16 in a folder; keyword arguments override the specification."""

    def make(name: str = "run", **overrides):
        spec = small_spec(**{"training.dtype": "float16", **overrides})
        return Workbench.of(spec, tmp_path / name, half, prepare_data(spec, half.tokenizer, tokens))

    return make


def piece(stop: float = 1.0, rung: int = 2, variant: str = "lora", config: Config = CONFIG) -> Job:
    return Job(0, variant, config, seed=0, start=0.0, stop=stop, rung=rung)


def end(bench):
    return checkpoint.newest(bench.trial_folder(0))


def skipped(bench) -> int:
    return sum(map(math.isinf, end(bench)[0].gradient_norms))


def assert_same_end(first, second) -> None:
    (one, state), (two, other) = end(first), end(second)
    assert (one.losses, one.gradient_norms, one.scores[2]) == (two.losses, two.gradient_norms, two.scores[2])
    assert all(torch.equal(tensor, other["adapter"][name]) for name, tensor in state["adapter"].items())


def stop_at_once(_):
    raise Interrupted


def test_a_run_is_as_in_float32_up_to_rounding(make_half, make_bench, tmp_path):
    half, full = make_half(), make_bench(tmp_path / "full")
    for bench in (half, full):
        assert segment.run(bench, piece()).kind == "scored"
    (one, state), (two, _) = end(half), end(full)
    assert one.scores[2] == pytest.approx(two.scores[2], abs=0.01)
    assert one.losses == pytest.approx(two.losses, abs=0.02)
    assert one.gradient_norms == pytest.approx(two.gradient_norms, rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in state["adapter"].values())


@pytest.mark.parametrize("variant", OWN)
def test_every_kind_of_variant_trains_and_skips_and_goes_on_bit_for_bit(make_half, monkeypatch, variant):
    """The scale's state is part of the checkpoint: a run stopped after every step falls as often as the uncut one."""
    monkeypatch.setattr(scaling, "FIRST", HIGH)
    uncut, cut = make_half("uncut"), make_half("cut")
    assert segment.run(uncut, piece(variant=variant)).kind == "scored"
    assert 0 < skipped(uncut) < uncut.steps(CONFIG)
    for _ in range(uncut.steps(CONFIG)):
        with pytest.raises(Interrupted):
            segment.run(cut, piece(variant=variant), stop_at_once)
    segment.run(cut, piece(variant=variant))
    assert_same_end(uncut, cut)


def overflowing(monkeypatch, when):
    """Gradients are infinite in the steps for which ``when(step)`` holds."""
    real = Stepper._accumulate
    steps = []

    def accumulate(self, *args, **kwargs):
        loss = real(self, *args, **kwargs)
        if when(len(steps)):
            next(p for p in self.adapted.parameters() if p.grad is not None).grad.view(-1)[0] = math.inf
        steps.append(None)
        return loss

    monkeypatch.setattr(Stepper, "_accumulate", accumulate)


def test_a_step_that_overflows_changes_neither_adapter_nor_optimizer(make_half, monkeypatch):
    """The schedule and the order of the data go on."""
    bench = make_half(**{"training.warmup_ratio": 0.0})
    overflowing(monkeypatch, lambda step: step == 1)
    states = []
    for _ in range(3):
        with pytest.raises(Interrupted):
            segment.run(bench, piece(), stop_at_once)
        states.append(end(bench)[1])
    first, second, third = states

    def moments(state):
        return [tensor for each in state["optimizer"]["state"].values() for tensor in each.values()]

    assert all(torch.equal(tensor, second["adapter"][name]) for name, tensor in first["adapter"].items())
    assert all(map(torch.equal, moments(first), moments(second)))
    assert not all(torch.equal(tensor, third["adapter"][name]) for name, tensor in second["adapter"].items())
    assert [state["scaler"]["scale"] for state in states] == [scaling.FIRST, scaling.FIRST / 2, scaling.FIRST / 2]
    assert [state["schedule"]["last_epoch"] for state in states] == [1, 2, 3]


@pytest.mark.filterwarnings("error:Detected call of")
def test_overflows_are_no_divergence_and_no_warning(make_half, monkeypatch):
    overflowing(monkeypatch, lambda step: step % 3 == 0)
    bench = make_half()
    assert segment.run(bench, piece()).kind == "scored"
    assert skipped(bench) == 3


def test_gradients_that_overflow_at_the_least_scale_are_a_divergence(make_half, monkeypatch):
    monkeypatch.setattr(scaling, "FIRST", 4.0)
    overflowing(monkeypatch, lambda step: step >= 1)
    outcome = segment.run(make_half(), piece())
    assert outcome.kind == "diverged"
    assert outcome.reason == "the gradients overflowed float16 with the loss scaled by 1, the least"
    assert outcome.at == pytest.approx(4 * 8 / 72)  # a good step, and three at scales of 4, 2 and 1


def test_a_loss_that_is_no_number_is_a_divergence_at_once(make_half, monkeypatch):
    overflowing(monkeypatch, lambda step: step == 2)
    real, losses = Stepper.gradients, []

    def gradients(self, *args):
        loss, norm = real(self, *args)
        losses.append(loss)
        return (math.nan if len(losses) == 3 else loss), norm

    monkeypatch.setattr(Stepper, "gradients", gradients)
    outcome = segment.run(make_half(), piece())
    assert (outcome.kind, outcome.reason) == ("diverged", "the training loss became nan at step 3")


@pytest.mark.slow
def test_micro_batches_are_scaled_alike(make_half):
    whole, parts = make_half("whole"), make_half("parts", **{"training.micro_batch": 2})
    for bench in (whole, parts):
        segment.run(bench, piece())
    assert end(parts)[0].losses == pytest.approx(end(whole)[0].losses, abs=0.01)
    assert end(parts)[0].gradient_norms == pytest.approx(end(whole)[0].gradient_norms, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("apart", [True, False])
def test_gradients_of_confident_tokens_do_not_vanish(dtype, apart):
    """With the head apart, gradients at its input are computed along with the loss: they are scaled there already.

    Tokens that the model gives all but a millionth of the probability: without a scale nothing is left in float16.
    """
    ids = torch.randint(3, VOCABULARY, (8, 32), generator=torch.Generator().manual_seed(0))

    def gradient(dtype, scale):
        model = build_model("qwen3")
        model.lm_head.weight.data.mul_(8)
        with torch.no_grad():
            best = model(input_ids=ids).logits.topk(2)
        sure = best.values[..., 0] - best.values[..., 1] > math.log(1e6)
        batch = {"input_ids": ids, "labels": best.indices[..., 0].where(sure, -100).roll(1, -1)}
        model = model.to(dtype).requires_grad_(False)
        weight = model.model.layers[0].mlp.down_proj.weight.requires_grad_(True)
        (summed_loss(model, batch, apart, scale) * scale).backward()
        return weight.grad.float() / scale

    expected, found = gradient(torch.float32, 1.0), gradient(dtype, 2.0**14)
    assert expected.norm() > 0
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_a_run_goes_on_in_another_dtype(make_half, make_bench, tmp_path):
    """As on another device: a checkpoint in float32 has no scale, and one in float16 has one that is not needed."""
    full, half = make_bench(tmp_path / "run"), make_half("run")
    with pytest.raises(Interrupted):
        segment.run(full, piece(), stop_at_once)
    assert "scaler" not in end(full)[1]
    half.__dict__["identity"] = full.identity  # both have training.dtype: auto on two devices
    with pytest.raises(Interrupted):
        segment.run(half, piece(), stop_at_once)
    assert end(half)[1]["scaler"]["scale"] == scaling.FIRST
    assert segment.run(full, piece()).kind == "scored"


@pytest.mark.slow
def test_the_range_test_skips_too(make_half, monkeypatch):
    monkeypatch.setattr(scaling, "FIRST", HIGH)
    config = Config(1e-4, 8, 4, 4.0)
    found = range_test(make_half(), "lora", config, 30, 0.1)
    assert len(found.losses) > 15
    assert min(found.losses) < found.losses[0]


def test_a_metric_that_generates_is_tried_and_scored_in_float16(make_half):
    bench = make_half(metric={"name": "exact_match", "max_new_tokens": 4}, **{"data.eval_size": 8})
    outcome = segment.run(bench, piece())
    assert (outcome.kind, outcome.rows is not None) == ("scored", True)


def test_what_computes_with_the_base_may_use_fast_matmuls(make_bench, monkeypatch):
    """Forwards, backwards, and scoring; not where an adapter is made, which is exact."""
    inside, seen = [], {}

    @contextmanager
    def fast_matmuls(self):
        inside.append(None)
        yield
        inside.pop()

    def watch(owner, name):
        real = getattr(owner, name)

        def watched(*args, **kwargs):
            seen.setdefault(name, set()).add(bool(inside))
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    monkeypatch.setattr(Base, "fast_matmuls", fast_matmuls)
    watch(Stepper, "gradients")
    watch(SplitEvaluation, "over_tokens")
    watch(type(variants.get("pissa")), "initialize")
    bench = make_bench()
    segment.run(bench, piece(variant="pissa"))
    range_test(bench, "pissa", CONFIG, 3, 0.1)
    assert seen == {"gradients": {True}, "over_tokens": {True}, "initialize": {False}}
    assert inside == []


@pytest.mark.parametrize(("dtype", "kind"), [("float32", Scaler), ("bfloat16", Scaler), ("float16", LossScaler)])
def test_only_float16_is_scaled(dtype, kind):
    base = bases.load(small_spec(**{"training.dtype": dtype}))
    assert type(scaler_for(base)) is kind


def test_without_scaling_nothing_is_changed():
    scaler, parameter = Scaler(), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    loss = parameter.sum() * math.inf
    assert scaler.scaled(loss) is loss
    loss.backward()
    assert scaler.unscale(optimizer)
    assert (scaler.exhausted, scaler.state()) == (None, {})


def test_the_scale_grows_again_and_is_restored():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer, scaler = torch.optim.SGD([parameter], lr=0.1), LossScaler(torch.device("cpu"))
    for step in range(2001):
        scaler.scaled(parameter.sum() * (math.inf if step == 0 else 1.0)).backward()
        assert scaler.unscale(optimizer) == (step > 0)
        if step:
            assert torch.equal(parameter.grad, torch.ones(2))
        optimizer.zero_grad()
        if step == 1000:
            other = LossScaler(torch.device("cpu"))
            other.restore(scaler.state())
            assert other.state() == scaler.state()
            scaler = other
    assert scaler.state()["scale"] == scaling.FIRST
