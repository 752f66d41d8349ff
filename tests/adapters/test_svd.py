"""Leading singular triplets of large matrices, against the exact SVD."""

from __future__ import annotations

import pytest
import torch

from autolora.adapters import svd
from autolora.adapters.svd import exact_svd, krylov_svd, leading_svd, trailing_svd

SIZE, RANKS = 240, (1, 7, 16, 24)
SPECTRA = {
    "a third": lambda i: i**-0.3,
    "one": lambda i: 1 / i,
    "two": lambda i: i**-2.0,
    "outliers": lambda i: 1 + 100 * (i <= 3),
    "pairs": lambda i: ((i + 1) // 2) ** -0.5,
}


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    """Every matrix of a test is one whose whole SVD would take too long."""
    monkeypatch.setattr(svd, "EXACT_WIDTH", 100)
    monkeypatch.setattr(svd, "BLOCK", 8)


def made(values, m=SIZE, n=SIZE, seed=0):
    """A matrix (m, n) in float32 with these singular values, in float64 as U, S and V^T."""
    stream = torch.Generator().manual_seed(seed)
    u, v = (torch.randn(size, len(values), generator=stream, dtype=torch.float64) for size in (m, n))
    u, v = torch.linalg.qr(u).Q, torch.linalg.qr(v).Q
    return ((u * values) @ v.T).float(), (u, values, v.T)


def product(triplets, rank):
    u, values, vh = (part.double() for part in triplets)
    return (u[:, :rank] * values[:rank]) @ vh[:rank]


def places(count=SIZE):
    return torch.arange(1, count + 1, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, 2 * SIZE), (2 * SIZE, SIZE)])
@pytest.mark.parametrize("spectrum", [name for name in SPECTRA if name != "outliers"])
def test_the_product_is_the_best_of_its_rank(spectrum, shape):
    matrix, exact = made(SPECTRA[spectrum](places()), *shape)
    found = leading_svd(matrix, 24)
    for rank in RANKS:
        if spectrum == "pairs" and rank % 2:
            continue  # of two equal values either is the best
        best = product(exact, rank)
        assert (product(found, rank) - best).norm() < 1e-4 * best.norm()


def test_a_gaussian_matrix_has_its_leading_triplets_too():
    """The bulk of a weight's spectrum is like it: no gap anywhere."""
    matrix = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    exact, found = torch.linalg.svd(matrix.double()), leading_svd(matrix, 16)
    for rank in (4, 16):
        best = product(exact, rank)
        assert (product(found, rank) - best).norm() < 1e-4 * best.norm()


def test_u_and_v_are_orthonormal_and_the_values_fall():
    u, values, vh = leading_svd(made(SPECTRA["one"](places()))[0], 24)
    assert (u.shape, values.shape, vh.shape) == ((SIZE, 24), (24,), (24, SIZE))
    identity = torch.eye(24)
    assert torch.dist(u.T @ u, identity) < 1e-4
    assert torch.dist(vh @ vh.T, identity) < 1e-4
    assert bool((values[:-1] >= values[1:]).all())


@pytest.mark.parametrize("rank", [0, 1, 5, 30])
def test_a_matrix_of_low_rank(rank):
    """As a gradient over few tokens is, and 0 where none reaches the layer."""
    matrix, exact = made(torch.linspace(2, 1, rank, dtype=torch.float64)) if rank else (torch.zeros(SIZE, SIZE), None)
    u, values, vh = leading_svd(matrix, 24)
    assert all(part.isfinite().all() for part in (u, values, vh))
    assert torch.dist(u.T @ u, torch.eye(24)) < 1e-4
    assert torch.dist(vh @ vh.T, torch.eye(24)) < 1e-4
    if exact:
        best = product(exact, 24)
        assert (product((u, values, vh), 24) - best).norm() < 1e-4 * best.norm()
    assert not values[rank:].gt(1e-5).any()


def test_two_calls_give_the_same_bits_and_global_randomness_is_untouched():
    matrix, _ = made(SPECTRA["one"](places()))
    torch.manual_seed(1)
    first, state = leading_svd(matrix, 24), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert all(torch.equal(one, other) for one, other in zip(first, leading_svd(matrix, 24), strict=True))


def test_where_it_does_not_converge_the_svd_is_exact(monkeypatch):
    """Here a tolerance that float32 cannot reach."""
    matrix, _ = made(SPECTRA["one"](places()))
    monkeypatch.setattr(svd, "TOLERANCE", 0.0)
    assert krylov_svd(matrix, 24) is None
    u, values, vh = exact_svd(matrix)
    found = leading_svd(matrix, 24)
    assert all(torch.equal(*pair) for pair in zip(found, (u[:, :24], values[:24], vh[:24]), strict=True))


def test_many_components_of_a_flat_spectrum_are_exact():
    matrix, _ = made(SPECTRA["outliers"](places()))
    assert torch.equal(leading_svd(matrix, 200)[1], exact_svd(matrix)[1][:200])


def test_small_matrices_and_trailing_triplets_are_exact(monkeypatch):
    matrix, _ = made(SPECTRA["one"](places()))
    u, values, vh = exact_svd(matrix)
    trailing = trailing_svd(matrix, 5)
    assert all(torch.equal(*pair) for pair in zip(trailing, (u[:, -5:], values[-5:], vh[-5:]), strict=True))
    monkeypatch.setattr(svd, "EXACT_WIDTH", SIZE)
    assert torch.equal(leading_svd(matrix, 5)[0], u[:, :5])
