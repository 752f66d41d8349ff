"""Tokens, and a short training loop: fixtures of the tests of adapters and of variants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from tests.support.tiny_models import VOCABULARY, build_model


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build() -> Callable[..., PreTrainedModel]:
    return build_model


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def train(tokens):
    """``train(model, optimizer, steps) -> losses`` on the tokens, in training mode."""

    def run(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
        model.train()
        losses = []
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return run


@pytest.fixture(scope="session")
def logits(tokens):
    """``logits(model)`` on the tokens, in evaluation mode."""

    def run(model: torch.nn.Module) -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            return model(input_ids=tokens).logits.float()

    return run


@pytest.fixture(scope="session")
def fingerprint():
    """``fingerprint(model)``: a hash over names, dtypes and bits of all weights."""

    def run(model: torch.nn.Module) -> str:
        digest = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    return run


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="session")
def difference() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Largest absolute difference, relative to the largest expected value."""
    return relative_difference
