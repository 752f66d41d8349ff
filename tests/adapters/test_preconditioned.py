"""LoRA-Pro's and Riemannian gradients against dense least squares and PEFT's own, and the variants that use them."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from transformers import get_scheduler

from autolora.adapters.attachment import attachment
from autolora.adapters.kernels.gram import eigen_gram, inverse_gram
from autolora.adapters.kernels.preconditioned import Pair, PreconditionedAdamW, lora_pro, riemannian
from autolora.adapters.start import DEFAULT_NAME
from autolora.variants import get

M, N, RANK, SCALE = 7, 9, 3, 1.7
METHODS = {"lora_pro": lora_pro, "rplora": riemannian}


def pair_of(gradient, a, b, scale=SCALE):
    """The pair with the gradients that G (m, n) gives it."""
    return Pair(a, b, scale * b.T @ gradient, scale * gradient @ a.T, scale)


def random_pair(seed=0, m=M, n=N, rank=RANK, scale=SCALE):
    """G (m, n) and a pair that sees it, float64."""
    stream = torch.Generator().manual_seed(seed)
    shapes = ((m, n), (rank, n), (m, rank))
    gradient, a, b = (torch.randn(shape, generator=stream, dtype=torch.float64) for shape in shapes)
    return gradient, pair_of(gradient, a, b, scale)


def update(pair, grad_a, grad_b):
    """Of W, to first order."""
    return pair.scale * (pair.b @ grad_a + grad_b @ pair.a)


def tangent_basis(pair):
    """The matrix (m n, r (m + n)) that takes (dA, dB), flattened and joined, to the update of W."""
    m, n, rank = len(pair.b), pair.a.shape[1], len(pair.a)
    columns = []
    for place in range(rank * (m + n)):
        unit = torch.zeros(rank * (m + n), dtype=pair.a.dtype)
        unit[place] = 1
        columns.append(update(pair, unit[: rank * n].view(rank, n), unit[rank * n :].view(m, rank)).flatten())
    return torch.stack(columns, dim=1)


class TestLoraPro:
    @pytest.mark.parametrize("seed", range(3))
    def test_its_update_is_the_closest_to_the_full_gradient(self, seed, difference):
        gradient, pair = random_pair(seed)
        [(grad_a, grad_b)] = lora_pro([pair], damping=0.0)
        found = update(pair, grad_a, grad_b)

        basis = tangent_basis(pair)
        best = basis @ torch.linalg.lstsq(basis, gradient.flatten(), driver="gelsd").solution
        assert difference(found.flatten(), best) < 1e-10

        stream = torch.Generator().manual_seed(seed)
        distance = (found - gradient).norm()
        for size in (1e-3, 1e-1, 1.0):
            for _ in range(20):
                noise_a = size * torch.randn(grad_a.shape, generator=stream, dtype=torch.float64)
                noise_b = size * torch.randn(grad_b.shape, generator=stream, dtype=torch.float64)
                assert (update(pair, grad_a + noise_a, grad_b + noise_b) - gradient).norm() > distance

    def test_of_the_pairs_with_that_update_it_is_the_nearest_to_the_gradients(self, difference):
        """X, free in (X A, -B X), is where the distance is stationary; and the paper's formulas give the same."""
        _, pair = random_pair()
        [(grad_a, grad_b)] = lora_pro([pair], damping=0.0)
        shift = torch.zeros(RANK, RANK, dtype=torch.float64, requires_grad=True)
        moved = (grad_a + shift @ pair.a - pair.grad_a, grad_b - pair.b @ shift - pair.grad_b)
        (slope,) = torch.autograd.grad(sum(part.square().sum() for part in moved), shift)
        assert slope.abs().max() < 1e-10

        p, q = pair.b.T @ pair.b, pair.a @ pair.a.T
        right = -torch.linalg.solve(p, pair.grad_a @ pair.a.T) / SCALE**2
        eye = torch.eye(RANK, dtype=torch.float64)
        x = torch.linalg.solve(torch.kron(p, eye) + torch.kron(eye, q), right.flatten()).view(RANK, RANK)
        projector = pair.b @ torch.linalg.solve(p, pair.b.T)
        expected_a = torch.linalg.solve(p, pair.grad_a) / SCALE**2 + x @ pair.a
        expected_b = (pair.grad_b - projector @ pair.grad_b) @ torch.linalg.inv(q) / SCALE**2 - pair.b @ x
        assert difference(grad_a, expected_a) < 1e-10
        assert difference(grad_b, expected_b) < 1e-10

    def test_damping_hardly_moves_the_update(self, difference):
        _, pair = random_pair()
        exact, damped = (update(pair, *lora_pro([pair], damping)[0]) for damping in (0.0, 1e-5))
        assert 0 < difference(damped, exact) < 1e-3

    def test_the_update_does_not_depend_on_how_the_product_is_split(self, difference):
        gradient, pair = random_pair()
        mixed = torch.randn(RANK, RANK, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        other = pair_of(gradient, mixed @ pair.a, pair.b @ torch.linalg.inv(mixed))
        expected = update(pair, *lora_pro([pair], 0.0)[0])
        assert difference(update(other, *lora_pro([other], 0.0)[0]), expected) < 1e-8

    def test_at_b_zero_a_rests_and_b_takes_the_whole_projection(self, difference):
        gradient, pair = random_pair()
        start = pair_of(gradient, pair.a, torch.zeros_like(pair.b))
        [(grad_a, grad_b)] = lora_pro([start], damping=1e-5)
        assert not grad_a.any()
        projection = gradient @ torch.linalg.pinv(start.a) @ start.a
        assert difference(update(start, grad_a, grad_b), projection) < 1e-4


class TestRiemannian:
    @pytest.mark.parametrize("damping", [0.0, 1e-2, 1.0])
    def test_peft_s_gives_the_same_over_steps(self, difference, damping):
        """On a model of one layer, from B other than 0."""
        gradient, pair = random_pair(scale=1.0)
        peft_optimizer = pytest.importorskip("peft.optimizers.riemannian", reason="comes with PEFT 0.21")

        class Layer(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.lora_A, self.lora_B = torch.nn.ModuleDict(), torch.nn.ModuleDict()
                for factors, value in ((self.lora_A, pair.a), (self.lora_B, pair.b)):
                    factors[DEFAULT_NAME] = torch.nn.Linear(*value.T.shape, bias=False, dtype=torch.float64)
                    factors[DEFAULT_NAME].weight.data.copy_(value)

            def factors(self):
                return self.lora_A[DEFAULT_NAME].weight, self.lora_B[DEFAULT_NAME].weight

        ours, theirs = Layer(), Layer()
        optimizers = (
            PreconditionedAdamW([(*ours.factors(), 1.0)], riemannian, damping, lr=0.05, weight_decay=0.1),
            peft_optimizer.create_riemannian_optimizer(
                torch.nn.ModuleDict({"layer": theirs}), torch.optim.AdamW, lr=0.05, reg=damping, weight_decay=0.1
            ),
        )
        for _ in range(6):
            for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
                optimizer.zero_grad()
                a, b = layer.factors()
                (b @ a - gradient).square().sum().backward()
                optimizer.step()
            for own, other in zip(ours.factors(), theirs.factors(), strict=True):
                assert difference(own, other) < 1e-9
        assert difference(ours.factors()[0], pair.a) > 0.01

    @pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
    def test_damping_is_absolute(self, size):
        """Whatever the factors' size is: small ones are damped, large ones hardly."""
        gradient, pair = random_pair()
        pair = pair_of(gradient, size * pair.a, size * pair.b)
        [(grad_a, grad_b)] = riemannian([pair], damping=0.1)
        for found, expected, factor in ((grad_a, pair.grad_a, pair.b), (grad_b.T, pair.grad_b.T, pair.a.T)):
            damped = factor.T @ factor + 0.1 * torch.eye(RANK, dtype=torch.float64)
            torch.testing.assert_close(damped @ found, expected)

    def test_while_b_is_small_a_keeps_its_own_gradient(self, difference):
        """Up to a factor, at the default damping. One relative to B^T B would blow up what B's weak directions see."""
        gradient, pair = random_pair()
        early = pair_of(gradient, pair.a, 1e-3 * pair.b)
        damping = get("rplora").damping
        [(grad_a, _)] = riemannian([early], damping)
        assert difference(damping * grad_a, early.grad_a) < 1e-2

    def test_at_b_zero_a_rests(self):
        gradient, pair = random_pair()
        start = pair_of(gradient, pair.a, torch.zeros_like(pair.b))
        [(grad_a, grad_b)] = riemannian([start], damping=1e-5)
        assert not grad_a.any()
        assert grad_b.isfinite().all()
        assert grad_b.any()


@pytest.mark.parametrize("precondition", METHODS.values(), ids=METHODS)
class TestBoth:
    def test_a_batch_gives_what_each_pair_does_alone(self, precondition, difference):
        pairs = [random_pair(seed, m, n)[1] for seed, (m, n) in enumerate([(7, 9), (4, 12), (11, 3)])]
        for pair, together in zip(pairs, precondition(pairs, 1e-3), strict=True):
            [alone] = precondition([pair], 1e-3)
            assert all(difference(*of_both) < 1e-12 for of_both in zip(together, alone, strict=True))

    @pytest.mark.parametrize("broken", [float("nan"), float("inf")])
    def test_what_is_not_finite_shows_and_nothing_raises(self, precondition, broken):
        gradient, pair = random_pair()
        a = pair.a.clone()
        a[0, 0] = broken
        sound = random_pair(seed=1)[1]
        damaged, (other_a, other_b) = precondition([pair_of(gradient, a, pair.b), sound], 1e-5)
        assert not damaged[1].isfinite().all()
        assert other_a.isfinite().all()
        assert other_b.isfinite().all()

    def test_factors_of_deficient_rank_stay_finite_in_float32(self, precondition):
        gradient, pair = random_pair()
        a, b = pair.a.float(), pair.b.float()
        a[1], b[:, 1] = a[0], b[:, 0]
        [(grad_a, grad_b)] = precondition([pair_of(gradient.float(), a, b)], 1e-5)
        assert grad_a.isfinite().all()
        assert grad_b.isfinite().all()

    def test_gradients_are_replaced_in_place_and_the_step_is_adamw_s(self, precondition):
        """Pairs of two ranks, one without a gradient, and a closure."""
        pairs = [random_pair(0, rank=2)[1], random_pair(1, rank=3)[1], random_pair(2)[1]]
        parameters = [tuple(torch.nn.Parameter(factor.float()) for factor in pair[:2]) for pair in pairs]
        own = PreconditionedAdamW([(*factors, SCALE) for factors in parameters], precondition, 1e-5, 0.05, 0.1)
        reference = copy.deepcopy(parameters)
        plain = torch.optim.AdamW(sum(reference, ()), lr=0.05, weight_decay=0.1, fused=True)
        for (a, b), (other_a, other_b), pair in list(zip(parameters, reference, pairs, strict=True))[:2]:
            a.grad, b.grad = pair.grad_a.float(), pair.grad_b.float()
            [(other_a.grad, other_b.grad)] = precondition([Pair(a.data, b.data, a.grad, b.grad, SCALE)], 1e-5)
        places = [factor.grad.data_ptr() for factors in parameters[:2] for factor in factors]
        assert own.step(lambda: 2.5) == 2.5
        plain.step()
        assert [factor.grad.data_ptr() for factors in parameters[:2] for factor in factors] == places
        for factors, others in zip(parameters, reference, strict=True):
            for factor, other in zip(factors, others, strict=True):
                torch.testing.assert_close(factor, other)
        assert torch.equal(parameters[2][0], pairs[2].a.float())


@pytest.mark.parametrize("name", METHODS)
class TestVariant:
    def test_a_schedule_and_a_cut_leave_the_run_as_it_is(self, name, build, train):
        """The state is AdamW's own."""
        variant = get(name)

        def start():
            model = variant.attach(build(), rank=4, alpha=8)
            optimizer = variant.optimizer(model, 5e-3, weight_decay=0.1)
            return model, optimizer, get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=8)

        def steps(model, optimizer, schedule, count):
            losses = []
            for _ in range(count):
                losses += train(model, optimizer, 1)
                schedule.step()
            return losses

        model, optimizer, schedule = start()
        steps(model, optimizer, schedule, 4)
        stored = io.BytesIO()
        torch.save([model.state_dict(), optimizer.state_dict(), schedule.state_dict()], stored)
        uncut = steps(model, optimizer, schedule, 4)
        stored.seek(0)
        again = start()
        for part, state in zip(again, torch.load(stored, weights_only=True), strict=True):
            part.load_state_dict(state)
        assert steps(*again, 4) == uncut
        assert optimizer.state_dict()["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}

    def test_s_and_the_options_reach_the_optimizer(self, name, build):
        variant = get(name).configured(damping=1e-3)
        model = variant.attach(build(), rank=4, alpha=8)
        optimizer = variant.optimizer(model, 3e-3, weight_decay=0.1)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"], optimizer.damping) == (3e-3, 0.1, 1e-3)
        assert optimizer.precondition is METHODS[name]
        assert [pair[2] for pair in optimizer.pairs] == [2.0] * len(attachment(model).layers)

    def test_without_damping_a_singular_gram_leaves_no_gradients(self, name):
        """As B's after the first step on one token, whose gradient has rank 1."""
        b = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]])
        pair = Pair(torch.eye(2), b, torch.ones(2, 2), torch.ones(3, 2), 1.0)
        assert not all(gradient.isfinite().all() for gradient in METHODS[name]([pair], 0.0)[0])
        assert all(gradient.isfinite().all() for gradient in METHODS[name]([pair], get(name).damping)[0])


def test_a_gram_s_eigenvectors_and_its_inverse_belong_together():
    grams = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grams = grams @ grams.mT
    grams[2] = 0
    values, vectors = eigen_gram(grams, 1e-3)
    torch.testing.assert_close((vectors / values[:, None, :]) @ vectors.mT, inverse_gram(grams, 1e-3))
    assert torch.equal(inverse_gram(grams, 0.0)[2], torch.eye(5, dtype=torch.float64))
