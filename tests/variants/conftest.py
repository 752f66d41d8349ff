"""Tiny random models of the families that users bring, and a short training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

VOCABULARY = 96
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SHAPE, tie_word_embeddings=True),  # grouped-query attention
    "qwen3": lambda: Qwen3Config(**_SHAPE),
    "gemma3": lambda: Gemma3TextConfig(**_SHAPE, query_pre_attn_scalar=8, sliding_window=16),
    "gpt2": lambda: GPT2Config(  # Conv1D, biases
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    ),
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


def build_model(family: str = "llama") -> PreTrainedModel:
    """A random model, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(CONFIGS[family]())
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


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
