"""What becomes of every layer of many architectures, whether LoRA's adapter reloads, and which variants refuse.

    python -m studies.compatibility.architectures [--only llama,mixtral] > studies/compatibility/architectures.md

Minutes on one core. An exception is a failure in the table; nothing is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from tempfile import TemporaryDirectory

os.environ["HF_HUB_OFFLINE"] = "1"  # whatever asks the hub for a model of this name is at fault

import torch
import transformers
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from autolora import variants
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.targets import Coverage, survey
from autolora.variants import VariantError
from studies.compatibility.configs import VOCABULARY, build, settings

RANK, STEPS, RATE, SEED = 4, 3, 5e-3, 0
WITHOUT_EXPERTS = AdapterSpec(target_parameters=())
FAULT = "**fault**"
LIMIT = 1e-5
"""Logits of a reloaded adapter may differ by so much: sums in another order."""


@dataclass(frozen=True)
class Row:
    """What the table says of one architecture."""

    kind: str
    adapted: str
    share: str
    left_out: str
    trains: str
    reloads: str
    refusals: str

    def markdown(self) -> str:
        cells = (self.kind, self.adapted, self.share, self.left_out, self.trains, self.reloads, self.refusals)
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def row(kind: str) -> Row:
    """Try everything on one architecture."""
    try:
        coverage = survey(build(kind))
    except Exception as error:
        return Row(kind, _fault(error), "", "", "", "", "")
    trains, reloads = _lora(kind)
    return Row(
        kind,
        ", ".join(coverage.kinds),
        f"{100 * coverage.share:.1f}%",
        "; ".join(f"{', '.join(kinds)}: {reason}" for reason, kinds in coverage.reasons.items()),
        trains,
        reloads,
        _refusals(kind, coverage),
    )


def _lora(kind: str) -> tuple[str, str]:
    """Whether LoRA's loss falls and every factor gets a gradient; and how far logits of its export are from its own."""
    variant, base = variants.get("lora"), build(kind)
    try:
        adapted = variant.attach(base, rank=RANK, alpha=2 * RANK)
        losses = _train(variant, adapted)
        idle = [name for name, p in adapted.named_parameters() if p.requires_grad and not _moved(p)]
        trained = _logits(adapted)
    except Exception as error:
        return _fault(error), ""
    trains = f"{losses[0]:.3f} to {losses[-1]:.3f}"
    if not losses[-1] < losses[0] or idle:
        trains = f"{FAULT}: {trains}; without a gradient: {', '.join(idle) or 'none'}"
    try:
        with TemporaryDirectory() as folder:
            variant.export(adapted, folder)
            difference = float((_logits(PeftModel.from_pretrained(build(kind), folder)) - trained).abs().max())
    except Exception as error:
        return trains, _fault(error)
    return trains, f"{difference:.1e}" if difference < LIMIT else f"{FAULT}: differs by {difference:.1e}"


def _moved(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _train(variant: variants.Variant, adapted: PeftModel) -> list[float]:
    """Losses before each of a few steps, and after the last."""
    optimizer, tokens, losses = variant.optimizer(adapted, RATE), _tokens(), []
    adapted.train()
    torch.manual_seed(SEED)  # of the dropout that some of the models have
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = adapted(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    with torch.no_grad():
        losses.append(float(adapted(input_ids=tokens, labels=tokens, use_cache=False).loss))
    return losses


def _refusals(kind: str, coverage: Coverage) -> str:
    """Which variants refuse, by reason; with experts in one parameter, once with them and once without."""
    found = _refused(kind, AdapterSpec())
    if not any(layer.experts for layer in coverage.layers.values()):
        return found
    return f"{found}. Without experts: {_refused(kind, WITHOUT_EXPERTS)}"


def _refused(kind: str, adapter: AdapterSpec) -> str:
    reasons: dict[str, list[str]] = {}
    base = build(kind)
    for name in variants.names():
        try:
            _attach_and_step(base, name, adapter)
        except VariantError as error:
            reasons.setdefault(_general(str(error), name), []).append(name)
        except Exception as error:
            reasons.setdefault(_fault(error), []).append(name)
            base = build(kind)
    count = len(variants.names())
    return "; ".join(f"{_listed(names, count)}: {reason}" for reason, names in reasons.items()) or "none"


def _attach_and_step(base: PreTrainedModel, name: str, adapter: AdapterSpec) -> None:
    variant, tokens = variants.get(name), _tokens()
    batch = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    adapted = variant.attach(base, RANK, RANK, batches=[batch], horizon=10, adapter=adapter)
    try:
        adapted.train()
        optimizer = variant.optimizer(adapted, 1e-4)
        adapted(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
    finally:
        variants.detach(adapted)


def _general(message: str, name: str) -> str:
    """The reason without what names the variant, the layer and what to do."""
    for mark in (", as ", ": "):
        message = message.partition(mark)[0]
    return message.removeprefix(f"{name} ")


def _listed(names: list[str], count: int) -> str:
    """Names, or those that are not among them where these are fewer."""
    others = [name for name in variants.names() if name not in names]
    if len(others) < len(names) and len(names) > 6:
        return f"all {count} but {', '.join(others)}" if others else f"all {count}"
    return ", ".join(names)


def _fault(error: Exception) -> str:
    traceback.print_exception(error, file=sys.stderr)
    return f"{FAULT}: {type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"


def _logits(model: torch.nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(input_ids=_tokens(), use_cache=False).logits
    return logits


def _tokens() -> Tensor:
    return torch.randint(3, VOCABULARY - 2, (2, 16), generator=torch.Generator().manual_seed(SEED))


def report(rows: list[Row], seconds: float, only: str | None) -> str:
    """The table in Markdown, with what it was made by."""
    packages = ("torch", "transformers", "peft")
    command = "python -m studies.compatibility.architectures" + (f" --only {only}" if only else "")
    faults = [row.kind for row in rows if FAULT in row.markdown()]
    return "\n".join(
        [
            "# Architectures",
            "",
            f"{len(rows)} random models, {len(faults)} with a fault{': ' + ', '.join(faults) if faults else ''}. "
            f"Made by `{command}` in {seconds:.0f} s with Python {platform.python_version()}, "
            f"{', '.join(f'{name} {version(name)}' for name in packages)}.",
            "",
            "- share: of the weights of all layers, without embeddings and output head, those that get an adapter.",
            f"- loss: of LoRA at rank {RANK}, before the first and after {STEPS} steps; every factor gets a gradient.",
            "- export: largest difference of logits between the trained model and plain PEFT's with what it exported.",
            f"- refused: which of the {len(variants.names())} variants refuse the model, and why. All others are "
            "attached, take a step and are taken off again.",
            "",
            "| architecture | adapters on | share | none on | loss | export | refused |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(row.markdown() for row in rows),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="model types, separated by commas")
    asked = parser.parse_args()
    kinds = asked.only.split(",") if asked.only else list(settings())
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    began, rows = time.monotonic(), []
    for kind in kinds:
        rows.append(row(kind))
        print(f"{time.monotonic() - began:6.1f} s {kind}", file=sys.stderr)
    print(report(rows, time.monotonic() - began, asked.only), end="")


if __name__ == "__main__":
    main()
