"""Which shortcuts each architecture can be read with, and whether loss and gradients stay what they are.

    python -m studies.compatibility.reading [--only llama,opt] [--out FILE]

Writes reading.md beside this file. Each model gets a LoRA with random factors. Its loss and gradients are compared with
those of whole logits and a mask, and with those under gradient checkpointing. A minute on one core.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor, nn

from autolora import head, variants
from autolora.bases.base import Base
from autolora.bases.reading import reading_of
from autolora.losses import IGNORED, target_logits
from studies.compatibility.configs import VOCABULARY, build, settings

TOKENIZER = SimpleNamespace(all_special_ids=[0, 1, 2], added_tokens_decoder={}, pad_token_id=0, eos_token_id=1)
CHUNK = 4 * VOCABULARY
"""Logits at a time, so that several chunks are needed."""


def row(kind: str) -> str:
    model = build(kind).requires_grad_(False)
    base = Base(model, TOKENIZER, torch.device("cpu"), torch.float32)  # type: ignore[arg-type]
    reading = reading_of(base)
    adapted = variants.get("lora").attach(model, rank=4, alpha=4.0, seed=0)
    adapted.train()
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    torch.manual_seed(0)
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.05)
    whole = batch()
    short = {name: tensor for name, tensor in whole.items() if reading.masked or name != "attention_mask"}

    def gradients(loss: Callable[[], Tensor]) -> list[Tensor]:
        torch.manual_seed(1)  # some architectures have dropout of their own
        found = torch.autograd.grad(loss(), parameters, allow_unused=True)
        return [torch.zeros(()) if each is None else each for each in found]

    def of_whole_logits() -> Tensor:
        logits, targets = target_logits(adapted, whole)
        return nn.functional.cross_entropy(logits, targets, reduction="sum")

    def as_trained() -> Tensor:
        return head.summed_loss(adapted, short, reading.apart)

    expected, found = gradients(of_whole_logits), gradients(as_trained)
    error = max(float((a - b).abs().max() / (a.abs().max() + 1e-9)) for a, b in zip(expected, found, strict=True))
    checkpointed = "not supported"
    if base.can_checkpoint:
        with base.checkpointing(True):
            again = gradients(as_trained)
        checkpointed = "equal" if all(map(torch.equal, found, again)) else "**differs**"
    mask, apart = ("needed" if reading.masked else "left out"), ("apart" if reading.apart else "whole logits")
    return f"| {kind} | {mask} | {apart} | {error:.0e} | {checkpointed} |"


def batch() -> dict[str, Tensor]:
    """Three rows, the second padded."""
    ids = torch.randint(3, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(0))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :5] = IGNORED
    labels[1, 8:], mask[1, 8:] = IGNORED, 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="architectures, with commas between")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    head.CHUNK = CHUNK
    chosen = arguments.only.split(",") if arguments.only else list(settings())
    lines = [
        "# Shortcuts",
        "",
        "Made by `python -m studies.compatibility.reading`. Gradients: largest difference from those of whole logits "
        "and a mask, relative to the largest of the parameter.",
        "",
        "| architecture | mask | head | gradients | under gradient checkpointing |",
        "| --- | --- | --- | --- | --- |",
        *map(row, chosen),
    ]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
