"""Pretrain a small model on generated text, on one CPU core; by default the quickstart's.

    python -m studies.base_model.pretrain --out autolora/quickstart/model
    python -m studies.base_model.pretrain --architecture qwen3 --steps 1000 --seed 1 --out runs/models/qwen3

Everything derives from ``--seed``. ``--work`` keeps a checkpoint; the same command started again goes on from it.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from studies.base_model.text import document

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CONTEXT = 256
HELD_OUT = "held-out"

ARCHITECTURES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (
        LlamaForCausalLM,
        LlamaConfig,
        {
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            # the usual 0.02 is meant for widths of a thousand and more; here attention would take long to leave uniform
            "initializer_range": 0.08,
        },
    ),
    "qwen3": (
        Qwen3ForCausalLM,
        Qwen3Config,
        {
            "hidden_size": 160,
            "intermediate_size": 448,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,  # the heads together are wider than the residual stream, as in Qwen3's small models
            "initializer_range": 0.06,
        },
    ),
}
"""Model class, configuration class and sizes. Qwen3 has normalized queries and keys and shared key-value heads."""


def build_tokenizer(seed: int, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, trained on generated text, that opens every sequence with BOS."""
    rng = Random(f"{seed}-tokenizer")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([document(rng) for _ in range(20_000)], trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int, tokenizer: PreTrainedTokenizerFast, architecture: str) -> PreTrainedModel:
    torch.manual_seed(seed)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model_class, config_class, sizes = ARCHITECTURES[architecture]
    config = config_class(
        vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, tie_word_embeddings=True, **sizes, **ids
    )
    model: PreTrainedModel = model_class(config)
    model.generation_config = GenerationConfig(**ids)
    return model


def batch(tokenizer: PreTrainedTokenizerFast, rng: Random, rows: int) -> torch.Tensor:
    """Token ids of documents packed end to end, ``(rows, CONTEXT)``."""
    ids: list[int] = []
    while len(ids) < rows * CONTEXT:
        ids += [*tokenizer(document(rng)).input_ids, tokenizer.eos_token_id]
    return torch.tensor(ids[: rows * CONTEXT]).view(rows, CONTEXT)


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> float:
    """Mean loss, in nats a token, on 64 rows from a random stream of their own."""
    rows = batch(tokenizer, Random(f"{seed}-{HELD_OUT}"), 64)
    model.eval()
    losses = [model(input_ids=part, labels=part).loss.item() for part in rows.split(16)]
    model.train()
    return sum(losses) / len(losses)


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    tokenizer = build_tokenizer(args.seed, args.vocab_size)
    model = build_model(args.seed, tokenizer, args.architecture)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    warmup = max(1, args.steps // 50)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / args.steps)),
    )
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = args.work / "checkpoint.pt"
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        first = state.pop("step")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        print(f"resumed at step {first}")

    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    started = time.perf_counter()
    model.train()
    for step in range(first, args.steps):
        # a step's text depends on the step alone, so a resumed run reads what an uninterrupted one would
        rows = batch(tokenizer, Random(f"{args.seed}-{step}"), args.batch_size)
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        done = step + 1
        if done % args.save_every == 0 or done == args.steps:
            partial = checkpoint.with_suffix(".partial")
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": done}, partial)
            partial.replace(checkpoint)
            seconds = time.perf_counter() - started
            held_out = held_out_loss(model, tokenizer, args.seed)
            print(f"step {done}  train {loss.item():.3f}  held-out {held_out:.4f}  {seconds:.0f} s", flush=True)

    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"wrote {args.out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--work", type=Path, default=Path("runs/base_model"), help="folder of the checkpoint")
    parser.add_argument("--architecture", default="llama", choices=ARCHITECTURES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=8, help=f"rows of {CONTEXT} tokens")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--vocab-size", type=int, default=768)
    parser.add_argument("--save-every", type=int, default=250, help="steps between checkpoints and evaluations")
    parser.add_argument("--threads", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
