"""Leading singular triplets of large matrices: how long they take and how near their product is to the best.

    python -m studies.variants.svd                     # 2048 x 2048, in minutes
    python -m studies.variants.svd --sizes 2048 4096

A row is a matrix and a number of components: how long they take, and the relative error of B A to the best product of
rank 8, and of that many. Spectra are known by construction, of a Gaussian matrix by an eigendecomposition in float64.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from autolora.adapters.svd import exact_svd, krylov_svd

SPECTRA = {
    "Gaussian": None,
    "i^-0.3": lambda i: i**-0.3,
    "i^-1": lambda i: 1 / i,
    "trained": lambda i: i**-0.5 * (1 + 9 * torch.exp(-i / 4)),
}
"""Singular values by place, from 1. The last is as those of language models: a few large ones before a slow fall."""
FEW, RANKS = 8, (16, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[2048])
    parser.add_argument("--ranks", nargs="+", type=int, default=list(RANKS), help="kept of each matrix")
    parser.add_argument("--exact", action="store_true", help="time the exact SVD, too, once for each size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| size | spectrum | components | seconds | error at rank 8 | error at all |", flush=True)
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for size in arguments.sizes:
        for name, matrix, best in _matrices(size, max(arguments.ranks)):
            for rank in arguments.ranks:
                print(_row(size, name, matrix, best, rank), flush=True)
        if arguments.exact:
            began = time.monotonic()
            exact_svd(matrix)
            print(f"| {size} | {name} | all, exact | {time.monotonic() - began:.1f} | | |", flush=True)


def _row(size: int, name: str, matrix: Tensor, best: tuple[Tensor, ...], rank: int) -> str:
    began = time.monotonic()
    found = krylov_svd(matrix, rank)
    seconds = time.monotonic() - began
    if found is None:
        return f"| {size} | {name} | {rank} | {seconds:.1f} | the exact SVD takes over | |"
    errors = " | ".join(f"{_error(found, best, cut):.0e}" for cut in (FEW, rank))
    return f"| {size} | {name} | {rank} | {seconds:.1f} | {errors} |"


def _error(found: tuple[Tensor, ...], best: tuple[Tensor, ...], rank: int) -> float:
    ours, exact = (_product(triplets, rank) for triplets in (found, best))
    return float((ours - exact).norm() / exact.norm())


def _product(triplets: tuple[Tensor, ...], rank: int) -> Tensor:
    u, values, vh = (part.double() for part in triplets)
    return (u[:, :rank] * values[:rank]) @ vh[:rank]


def _matrices(size: int, rank: int) -> Iterator[tuple[str, Tensor, tuple[Tensor, ...]]]:
    """Name, matrix in float32, and its leading U, S, V^T in float64."""
    stream = torch.Generator().manual_seed(1)
    places = torch.arange(1, size + 1, dtype=torch.float64)
    for name, spectrum in SPECTRA.items():
        u, v = (torch.randn(size, size, generator=stream, dtype=torch.float64) for _ in range(2))
        if spectrum is None:
            matrix = u.float()
            squares, vectors = torch.linalg.eigh(matrix.double().T @ matrix.double())
            values, vh = squares[-rank:].flip(0).sqrt(), vectors[:, -rank:].flip(1).T
            yield name, matrix, ((matrix.double() @ vh.T) / values, values, vh)
            continue
        u, v, values = torch.linalg.qr(u).Q, torch.linalg.qr(v).Q, spectrum(places)
        yield name, ((u * values) @ v.T).float(), (u[:, :rank].clone(), values[:rank], v[:, :rank].T.clone())


if __name__ == "__main__":
    main()
