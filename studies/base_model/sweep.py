"""Final loss of the quickstart task over learning rates, with plain PEFT and a plain loop: is there something to tune?

    python -m studies.base_model.sweep --variants lora,dora,pissa --ranks 2,8

A run is 800 examples at batch size 8, alpha = r, AdamW without weight decay, a cosine with 3% warm-up, clipping at 1.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

QUICKSTART = Path(__file__).parents[2] / "autolora" / "quickstart"
VARIANTS: dict[str, dict[str, Any]] = {"lora": {}, "dora": {"use_dora": True}, "pissa": {"init_lora_weights": "pissa"}}
RATES = [round(10 ** (k / 4), 9) for k in range(-16, -2)]
IGNORED = -100


class Example(NamedTuple):
    """Token ids of a whole row, and how many of them are prompt."""

    ids: list[int]
    prompt: int


def load(path: Path, tokenizer: Any) -> list[Example]:
    examples = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        prompt = tokenizer(row["prompt"] + "\n").input_ids
        completion = tokenizer(row["completion"], add_special_tokens=False).input_ids
        examples.append(Example([*prompt, *completion, tokenizer.eos_token_id], len(prompt)))
    return examples


def collate(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Right-padded ``input_ids``, ``attention_mask`` and ``labels`` of the completions, each ``(batch, seq)``."""
    width = max(len(example.ids) for example in examples)
    inputs, mask, labels = [], [], []
    for ids, prompt in examples:
        rest = width - len(ids)
        inputs.append(ids + [0] * rest)
        mask.append([1] * len(ids) + [0] * rest)
        labels.append([IGNORED] * prompt + ids[prompt:] + [IGNORED] * rest)
    return {
        "input_ids": torch.tensor(inputs),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


@torch.no_grad()
def evaluate(model: torch.nn.Module, examples: list[Example]) -> float:
    """Mean loss in nats a completion token."""
    model.eval()
    total, tokens = 0.0, 0
    for start in range(0, len(examples), 50):
        inputs = collate(examples[start : start + 50])
        count = int((inputs["labels"] != IGNORED).sum())
        total += model(**inputs).loss.item() * count
        tokens += count
    return total / tokens


def train(variant: str, rank: int, rate: float, examples: list[Example], args: argparse.Namespace) -> torch.nn.Module:
    """The adapted model after a full run; one whose loss is no longer finite stops there."""
    torch.manual_seed(args.seed)
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM", **VARIANTS[variant]
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(args.model), config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    order = Random(args.seed).sample(examples, args.examples)
    steps = math.ceil(args.examples / args.batch_size)
    schedule = get_scheduler("cosine", optimizer, math.ceil(0.03 * steps), steps)
    model.train()
    for start in range(0, args.examples, args.batch_size):
        loss = model(**collate(order[start : start + args.batch_size])).loss
        if not loss.isfinite():
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=QUICKSTART / "model")
    parser.add_argument("--data", type=Path, default=QUICKSTART, help="folder of train.jsonl and test.jsonl")
    parser.add_argument("--variants", default="lora", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--ranks", default="8")
    parser.add_argument("--rates", default=",".join(f"{rate:.2g}" for rate in RATES))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--examples", type=int, default=800)
    parser.add_argument("--eval-rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    examples = load(args.data / "train.jsonl", tokenizer)
    held_out = load(args.data / "test.jsonl", tokenizer)[: args.eval_rows]
    print(f"untrained: {evaluate(AutoModelForCausalLM.from_pretrained(args.model), held_out):.3f}")
    for variant in args.variants.split(","):
        for rank in map(int, args.ranks.split(",")):
            for rate in map(float, args.rates.split(",")):
                started = time.perf_counter()
                model = train(variant, rank, rate, examples, args)
                seconds = time.perf_counter() - started
                loss = evaluate(model, held_out)
                print(f"{variant:6} r={rank:<3} {rate:8.2g}  {loss:.3f}  {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
