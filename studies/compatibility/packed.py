"""Every variant on a base in 4 bits and on one in 8, through bitsandbytes: what it does, or why it is refused.

    python -m studies.compatibility.packed [--only lora,dora] [--out FILE]

Writes packed.md beside this file. A small random Llama is saved, loaded as `autolora tune` loads it, trained on for ten
steps, exported, and the adapter loaded with plain PEFT on a new copy. Two minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

import autolora
from autolora import variants
from autolora.adapters.errors import VariantError
from autolora.adapters.export import OWN
from autolora.bases import packed
from autolora.study.versions import installed_versions

BITS = (4, 8)
VOCABULARY, RANK, STEPS = 96, 4, 10
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
RATE = 5e-3
"""For LoRA at s = 1; other variants get theirs by their traits."""


@dataclass(frozen=True)
class Row:
    """What became of one variant on one base.

    Attributes:
        refused: why; the other fields are then of no meaning.
        started: largest difference that attaching makes to the logits, relative to the largest logit.
        moved: the same of training.
        reloaded: largest difference of the reloaded adapter's logits, relative to the largest.
        losses: of each step.
        restored: the base has the same bits and gives the same logits once the adapter is taken off.
    """

    refused: str = ""
    started: float = 0.0
    moved: float = 0.0
    reloaded: float = 0.0
    losses: Sequence[float] = ()
    restored: bool = True


def save(folder: Path) -> Path:
    """A random model, and where it was saved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=2, initializer_range=0.2, **SHAPE)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def load(folder: Path, bits: int) -> PreTrainedModel:
    """The saved model in so many bits, as :func:`autolora.bases.load` holds it."""
    packing = packed.packing(bits, torch.float32)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=packing, device_map={"": "cpu"}
    )
    packed.settle(model)
    return model.requires_grad_(False).eval()


def row(name: str, bits: int, saved: Path, out: Path) -> Row:
    """Train, export and reload one variant.

    Args:
        name: of the variant.
        bits: of the base.
        saved: where :func:`save` saved it.
        out: where the adapter is exported to.
    """
    variant, model, tokens = variants.get(name), load(saved, bits), batch()
    before, untouched = digest(model), logits(model, tokens)
    alpha = float(RANK if variant.traits.unit_scale else 2 * RANK)
    inputs = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    try:
        adapted = variant.attach(model, rank=RANK, alpha=alpha, batches=[inputs], horizon=2 * STEPS)
    except VariantError as refusal:
        return Row(refused=str(refusal))
    started = difference(logits(adapted, tokens), untouched)
    traits = variant.traits
    rate = RATE * 10**traits.shift / traits.scale(alpha, RANK) ** traits.exponent
    losses = train(adapted, variant.optimizer(adapted, rate), tokens)
    trained = logits(adapted, tokens)
    variant.export(adapted, out)
    fresh = load(saved, bits)
    reloaded = (
        autolora.load_adapter(fresh, out) if variant.export_form == OWN else PeftModel.from_pretrained(fresh, out)
    )
    error = difference(logits(reloaded, tokens), trained)
    back = variants.detach(adapted)
    restored = digest(back) == before and torch.equal(logits(back, tokens), untouched)
    return Row("", started, difference(trained, untouched), error, losses, restored)


def batch() -> Tensor:
    return torch.randint(3, VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(2))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor) -> list[float]:
    model.train()
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        found: Tensor = model(input_ids=tokens).logits
    return found.float()


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def digest(model: nn.Module) -> str:
    """Of all bits of a model, the scales of packed weights included."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def line(name: str, found: Row) -> str:
    if found.refused:
        return f"| {name} | refused: {found.refused.partition(', as those of')[0]} | | | |"
    moves = " (by its paper)" if variants.get(name).moves_at_start else ""
    back = "yes" if found.restored else "**no**"
    losses = f"{found.losses[0]:.3f} to {found.losses[-1]:.3f}"
    return f"| {name} | {found.started:.1e}{moves} | {losses} | {found.reloaded:.1e} | {back} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="variants, with commas between")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    chosen = arguments.only.split(",") if arguments.only else variants.names()
    versions = installed_versions()
    known = ", ".join(f"{name} {versions[name]}" for name in ("bitsandbytes", "peft", "torch", "transformers"))
    lines = [
        "# Variants on bases in few bits",
        "",
        f"Made by `python -m studies.compatibility.packed` with {known}, on a CPU. Differences are the largest of all "
        "logits, relative to the largest logit.",
    ]
    with TemporaryDirectory() as folder:
        saved = save(Path(folder) / "base")
        for bits in BITS:
            lines += [
                "",
                f"## {bits} bits",
                "",
                "| variant | attaching changes logits by | loss over ten steps | reloaded adapter is off by "
                "| base as before |",
                "| --- | --- | --- | --- | --- |",
            ]
            for name in chosen:
                lines.append(line(name, row(name, bits, saved, Path(folder) / f"{name}-{bits}")))
                print(bits, lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
