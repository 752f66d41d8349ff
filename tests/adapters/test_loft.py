"""LoFT's optimizer against dense computations, and the variant that trains with it."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import get_scheduler

from autolora.adapters.attachment import attachment
from autolora.adapters.kernels import loft as module
from autolora.adapters.kernels.loft import LoftAdamW
from autolora.variants import VariantError, get

BETAS = (0.9, 0.999)
STEPS = 8


def random_pair(m, n, rank, seed=0, zero_b=False):
    """A (rank, n) and B (m, rank), float64."""
    stream = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(shape, generator=stream, dtype=torch.float64) for shape in ((rank, n), (m, rank)))
    return torch.nn.Parameter(a), torch.nn.Parameter(torch.zeros_like(b) if zero_b else b)


def objective(m, n, seed=5):
    """``loss(W, step)``: a quadratic about a target and a linear term of its own each step, as a batch's noise."""
    stream = torch.Generator().manual_seed(seed)
    target = torch.randn(m, n, generator=stream, dtype=torch.float64)
    noise = torch.randn(STEPS, m, n, generator=stream, dtype=torch.float64)
    return lambda weight, step: (weight - target).square().sum() / 2 + (weight * noise[step]).sum()


def run(optimizer, weight, loss, steps=STEPS, first=0):
    """W = ``weight()`` after each step."""
    trajectory = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss(weight(), step).backward()
        optimizer.step()
        trajectory.append(weight().detach().clone())
    return trajectory


def inverse(gram, damping):
    return torch.linalg.inv(gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype))


class TestFullRank:
    # Decay shrinks B A, AdamW's all of W: the two are one where W0 = 0, as here.
    @pytest.mark.parametrize("weight_decay", [0.0, 0.3])
    @pytest.mark.parametrize("eps", [1e-4, 1e-8])
    def test_square_factors_take_adamw_s_steps_on_w(self, difference, weight_decay, eps):
        a, b = random_pair(6, 6, 6)
        start = (b @ a).detach().clone()
        dense = torch.nn.Parameter(start.clone())
        loss, settings = objective(6, 6), {"lr": 0.05, "betas": BETAS, "eps": eps, "weight_decay": weight_decay}
        expected = run(torch.optim.AdamW([dense], **settings), lambda: dense, loss)
        actual = run(LoftAdamW([(a, b)], damping=0, **settings), lambda: b @ a, loss)
        before, expected_before = [start, *actual], [start, *expected]
        for step in range(STEPS):
            change = expected[step] - expected_before[step]
            assert difference(actual[step] - before[step], change) < 1e-8

    def test_moments_in_the_full_space_are_adamw_s(self, difference):
        a, b = random_pair(6, 6, 6)
        dense = torch.nn.Parameter((b @ a).detach().clone())
        reference = torch.optim.AdamW([dense], lr=0.05, eps=1e-4, weight_decay=0)
        optimizer = LoftAdamW([(a, b)], lr=0.05, damping=0)
        loss = objective(6, 6)
        run(reference, lambda: dense, loss)
        run(optimizer, lambda: b @ a, loss)
        for factor, other, transposed in ((b, a, False), (a, b.T, True)):
            state = optimizer.state[factor]
            mean = state["mean"] @ other
            first = reference.state[dense]["exp_avg"]
            assert difference(mean, first.T if transposed else first) < 1e-8


@pytest.mark.parametrize("damping", [0.0, 1e-2])
@pytest.mark.parametrize("zero_b", [False, True])
class TestRankDeficient:
    def test_every_step_is_the_projection_of_the_dense_one(self, difference, damping, zero_b):
        """Against P of every pair of entries of a row, (m, n, n), and explicit projectors."""
        m, n, rank, lr, eps = 5, 7, 3, 0.05, 1e-4
        a, b = random_pair(m, n, rank, zero_b=zero_b)
        loss = objective(m, n)
        optimizer = LoftAdamW([(a, b)], lr=lr, betas=BETAS, eps=eps, damping=damping)
        # Of W for B, and of W^T for A: the mean gradient (rows, columns), and of its products (rows, columns, columns).
        means = [torch.zeros(m, n, dtype=a.dtype), torch.zeros(n, m, dtype=a.dtype)]
        squares = [torch.zeros(m, n, n, dtype=a.dtype), torch.zeros(n, m, m, dtype=a.dtype)]
        for step in range(STEPS):
            before = [b.detach().clone(), a.detach().T.clone()]
            others = [before[1].T, before[0].T]
            dense = (before[0] @ before[1].T).requires_grad_()
            loss(dense, step).backward()
            run(optimizer, lambda: b @ a, loss, steps=1, first=step)
            after = [b.detach(), a.detach().T]
            mover = step % 2
            for side, gradient in enumerate((dense.grad, dense.grad.T)):
                other = others[side]
                projector = torch.zeros(other.shape[1], other.shape[1], dtype=a.dtype)
                if other.any():
                    projector = other.T @ inverse(other @ other.T, damping) @ other
                seen = gradient @ projector
                means[side] = BETAS[0] * means[side] + (1 - BETAS[0]) * seen
                products = seen[:, :, None] * seen[:, None, :]
                squares[side] = BETAS[1] * squares[side] + (1 - BETAS[1]) * products
                if side == mover:
                    first, second = (1 - beta ** (step + 1) for beta in BETAS)
                    variance = squares[side].diagonal(dim1=1, dim2=2) / second
                    full = means[side] / first / (variance.sqrt() + eps) @ projector
                    moved = (after[side] - before[side]) @ other
                    assert difference(moved, -lr * full) < 1e-8
                    plain = other.T @ torch.linalg.pinv(other @ other.T) @ other
                    assert difference(moved @ plain, moved) < 1e-10
            assert torch.equal(after[1 - mover], before[1 - mover])
            # What the resting side keeps is projected on the new row space of the factor that moved.
            rests = 1 - mover
            new = after[mover].T
            projector = new.T @ inverse(new @ new.T, damping) @ new
            means[rests] = means[rests] @ projector
            squares[rests] = projector.T @ squares[rests] @ projector


class TestZeroB:
    @pytest.mark.parametrize("damping", [0.0, 1e-6])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_start_at_b_zero_is_finite_and_trains(self, damping, dtype):
        a, b = (torch.nn.Parameter(p.detach().to(dtype)) for p in random_pair(5, 7, 3, zero_b=True))
        optimizer = LoftAdamW([(a, b)], lr=0.05, damping=damping)
        loss = objective(5, 7)
        trajectory = run(optimizer, lambda: b @ a, loss)
        assert all(weight.isfinite().all() for weight in trajectory)
        assert all(t.isfinite().all() for p in (a, b) for t in optimizer.state[p].values() if torch.is_tensor(t))

    def test_a_has_no_moments_and_rests_while_b_is_zero(self):
        a, b = random_pair(5, 7, 3, zero_b=True)
        start = a.detach().clone()
        optimizer = LoftAdamW([(a, b)], lr=0.0)  # as at the first step of a warm-up
        run(optimizer, lambda: b @ a, objective(5, 7), steps=1)
        optimizer.param_groups[0]["lr"] = 0.1
        run(optimizer, lambda: b @ a, objective(5, 7), steps=1, first=1)
        assert torch.equal(a, start)
        assert not optimizer.state[a]["mean"].any()
        assert not optimizer.state[a]["cross"].any()
        assert optimizer.state[b]["mean"].any()


class TestInvariance:
    def test_the_run_of_w_does_not_depend_on_the_split_into_factors(self, difference):
        a, b = random_pair(5, 7, 3)
        mix = torch.randn(3, 3, generator=torch.Generator().manual_seed(8), dtype=a.dtype)
        other = torch.nn.Parameter(mix @ a.detach()), torch.nn.Parameter(b.detach() @ torch.linalg.inv(mix))
        loss = objective(5, 7)
        one = run(LoftAdamW([(a, b)], lr=0.05, damping=0), lambda: b @ a, loss)
        two = run(LoftAdamW([other], lr=0.05, damping=0), lambda: other[1] @ other[0], loss)
        assert difference(two[-1], one[-1]) < 1e-8


class TestFloat32:
    """At the default damping, against float64."""

    @staticmethod
    def losses(dtype, samples, rate, **settings):
        """Of a regression with that many samples, so that gradients have that rank; the factors have rank 8."""
        stream = torch.Generator().manual_seed(0)
        shapes = (8, 64), (64, samples), (96, samples)
        a, x, y = (torch.randn(shape, generator=stream, dtype=torch.float64).to(dtype) for shape in shapes)
        a, b = torch.nn.Parameter(a / 8), torch.nn.Parameter(torch.zeros(96, 8, dtype=dtype))
        optimizer = LoftAdamW([(a, b)], lr=rate, **settings)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = (b @ (a @ x) - y).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def test_rounding_and_damping_change_little(self):
        exact = self.losses(torch.float64, 100, 1e-2, damping=0)
        assert exact[-1] < 0.9 * exact[0]
        assert self.losses(torch.float32, 100, 1e-2) == pytest.approx(exact, rel=1e-3)

    @pytest.mark.parametrize("rate", [1e-3, 1e-2])
    def test_gradients_of_rank_one_do_no_harm(self, rate):
        """B is then of rank one but for rounding, from its first step on, and A's gradient is too."""
        single, double = (self.losses(dtype, 1, rate) for dtype in (torch.float32, torch.float64))
        assert double[-1] < double[0] / 30
        assert single[-1] < 3 * double[-1]


class TestClipping:
    @pytest.mark.parametrize("moved", [0, 1])  # steps before: B's turn, then A's
    @pytest.mark.parametrize("damping", [0.0, 1e-2])
    def test_norm_is_the_projected_full_gradient_s(self, moved, damping):
        pairs = [random_pair(5, 7, 3), random_pair(6, 4, 2, seed=1)]
        losses = [objective(5, 7), objective(6, 4, seed=3)]
        optimizer = LoftAdamW(pairs, lr=0.05, damping=damping)

        def backward(step):
            optimizer.zero_grad()
            sum(loss(b @ a, step) for (a, b), loss in zip(pairs, losses, strict=True)).backward()

        for step in range(moved):
            backward(step)
            optimizer.step()
        backward(moved)
        total = 0.0
        for (a, b), loss in zip(pairs, losses, strict=True):
            dense = (b @ a).detach().requires_grad_()
            loss(dense, moved).backward()
            gradient, other = (dense.grad.T, b.detach().T) if moved else (dense.grad, a.detach())
            total += (gradient @ other.T @ inverse(other @ other.T, damping) @ other).square().sum().item()
        gradients = [p.grad.clone() for pair in pairs for p in pair]
        assert optimizer.clip_grad_norm(math.inf) == pytest.approx(total**0.5, rel=1e-10)
        assert optimizer.clip_grad_norm(total) == pytest.approx(total**0.5, rel=1e-10)  # above the norm
        assert all(torch.equal(p.grad, g) for p, g in zip(sum(pairs, ()), gradients, strict=True))
        assert optimizer.clip_grad_norm(0.5) == pytest.approx(total**0.5, rel=1e-10)
        for parameter, gradient in zip(sum(pairs, ()), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient * 0.5 / total**0.5, rtol=1e-5, atol=0)
        assert optimizer.clip_grad_norm(math.inf) == pytest.approx(0.5, rel=1e-5)

    def test_without_gradients_it_is_zero_and_a_step_does_nothing(self):
        a, b = random_pair(5, 7, 3)
        optimizer = LoftAdamW([(a, b)], lr=0.05)
        assert optimizer.clip_grad_norm(1.0) == 0
        optimizer.step()
        assert not optimizer.state


class TestState:
    @pytest.mark.parametrize("cut", [3, 4])  # A's turn, and B's
    def test_resumed_equals_uncut_bit_for_bit(self, cut):
        a, b = random_pair(5, 7, 3, zero_b=True)
        loss = objective(5, 7)
        optimizer = LoftAdamW([(a, b)], lr=0.05, weight_decay=0.1)
        schedule = get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=STEPS)

        def steps(optimizer, schedule, pair, first, count):
            for step in range(first, first + count):
                run(optimizer, lambda: pair[1] @ pair[0], loss, steps=1, first=step)
                schedule.step()

        steps(optimizer, schedule, (a, b), 0, cut)
        stored = io.BytesIO()
        torch.save([a.detach(), b.detach(), optimizer.state_dict(), schedule.state_dict()], stored)
        steps(optimizer, schedule, (a, b), cut, STEPS - cut)

        stored.seek(0)
        *factors, state, schedule_state = torch.load(stored, weights_only=True)
        pair = tuple(torch.nn.Parameter(factor) for factor in factors)
        again = LoftAdamW([pair], lr=0.9)
        schedule = get_scheduler("cosine", again, num_warmup_steps=2, num_training_steps=STEPS)
        again.load_state_dict(state)
        schedule.load_state_dict(schedule_state)
        steps(again, schedule, pair, cut, STEPS - cut)
        assert torch.equal(pair[0], a)
        assert torch.equal(pair[1], b)

    def test_blocks_give_what_the_whole_gives(self, difference, monkeypatch):
        weights = []
        for chunk in (2**22, 20, 1):  # everything at once, some rows and columns, one of each
            monkeypatch.setattr(module, "CHUNK", chunk)
            a, b = random_pair(6, 7, 3)
            weights.append(run(LoftAdamW([(a, b)], lr=0.05), lambda a=a, b=b: b @ a, objective(6, 7))[-1])
        assert difference(weights[1], weights[0]) < 1e-12
        assert difference(weights[2], weights[0]) < 1e-12


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that operations make anew, beside those kept."""

    def __init__(self, kept):
        super().__init__()
        self.kept, self.elements = {tensor.untyped_storage().data_ptr() for tensor in kept}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.kept:
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize(("m", "n", "rank"), [(60, 80, 2), (10, 40, 8), (40, 10, 8)])
def test_no_temporary_is_larger_than_a_chunk_or_a_factor(monkeypatch, m, n, rank):
    monkeypatch.setattr(module, "CHUNK", 100)
    a, b = random_pair(m, n, rank)
    optimizer = LoftAdamW([(a, b)], lr=0.05)
    loss = objective(m, n)
    run(optimizer, lambda: b @ a, loss, steps=1)
    kept = [a, b, a.grad, b.grad, *(t for p in (a, b) for t in optimizer.state[p].values() if torch.is_tensor(t))]
    for _ in range(2):
        with Largest(kept) as largest:
            optimizer.step()
        assert largest.elements <= max(100, a.numel(), b.numel())


class TestVariant:
    def test_loss_falls_and_the_factors_move_in_turn(self, build, train):
        variant = get("loft")
        model = variant.attach(build(), rank=4, alpha=4)
        optimizer = variant.optimizer(model, 3e-3)
        layers = attachment(model).layers.values()

        def factors():
            return copy.deepcopy([(layer.a, layer.b) for layer in layers])

        def moved(before, after, side):
            return [not torch.equal(old[side], new[side]) for old, new in zip(before, after, strict=True)]

        start = factors()
        losses = train(model, optimizer, 1)
        one = factors()
        assert all(moved(start, one, 1))
        assert not any(moved(start, one, 0))
        losses += train(model, optimizer, 1)
        two = factors()
        assert all(moved(one, two, 0))
        assert not any(moved(one, two, 1))
        losses += train(model, optimizer, 18)
        assert losses[-1] < losses[0] - 0.2
        assert all(factor.isfinite().all() for pair in factors() for factor in pair)

    def test_clipping_is_its_own(self, build, tokens):
        variant = get("loft")
        model = variant.attach(build(), rank=4, alpha=4)
        optimizer = variant.optimizer(model, 3e-3)
        model(input_ids=tokens, labels=tokens).loss.backward()
        norm = float(optimizer.clip_grad_norm(math.inf))
        assert norm > 0
        assert variant.clip_gradients(model, optimizer, norm / 2) == norm
        assert float(variant.clip_gradients(model, optimizer, math.inf)) == pytest.approx(norm / 2, rel=1e-4)
        with pytest.raises(VariantError, match="got AdamW"):
            variant.clip_gradients(model, torch.optim.AdamW(model.parameters()), 1.0)

    def test_eps_and_weight_decay_reach_the_optimizer(self, build):
        variant = get("loft").configured(eps=1e-5)
        model = variant.attach(build(), rank=4, alpha=4)
        (group,) = variant.optimizer(model, 3e-3, weight_decay=0.1).param_groups
        assert (group["lr"], group["eps"], group["weight_decay"]) == (3e-3, 1e-5, 0.1)

    def test_alpha_other_than_the_rank_is_refused_and_nothing_left_behind(self, build, fingerprint):
        base = build()
        before = fingerprint(base)
        with pytest.raises(VariantError, match=r"loft got alpha 8 at rank 4.*use alpha = rank"):
            get("loft").attach(base, rank=4, alpha=8)
        assert fingerprint(base) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must not be negative, got -1.0"),
        ({"damping": -1e-6}, "damping must not be negative"),
        ({"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LoftAdamW([random_pair(5, 7, 3)], **{"lr": 0.1, **settings})


def test_factors_that_do_not_fit_are_refused():
    a, b = random_pair(5, 7, 3)
    with pytest.raises(ValueError, match=r"got \(5, 3\) and \(3, 7\)"):
        LoftAdamW([(b, a)], lr=0.1)
