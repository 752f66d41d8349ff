"""What a variant costs beside plain LoRA: time of a training step, its peak memory, and how long it takes to start.

    python -m studies.variants.cost                     # every variant at every width; resumable
    python -m studies.variants.cost --only dora --widths 1024

One row a variant and width is appended to ``cost.csv`` beside this file, or another with ``--out``; ``report.py`` makes
the table. Each is measured in a process of its own, on a random Llama-architecture model in float32. Steps alternate
with plain LoRA's on the same base and tokens, and of each the shortest counts.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WIDTHS = {256: 4, 1024: 2, 2048: 1}
"""Layers by width: what a layer costs decides, not how many there are."""
SEQUENCE, BATCH, RANK, VOCABULARY = 256, 2, 16, 512
ROUNDS = 6
PEFT_SUFFIX = " (PEFT's)"
"""Of the rows that are measured with PEFT's own forward pass, where the variant has a leaner one."""
COLUMNS = (
    "variant",
    "width",
    "trainable",
    "step_seconds",
    "step_ratio",
    "peak_mb",
    "first_start_seconds",
    "next_start_seconds",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="these variants")
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS), choices=list(WIDTHS))
    parser.add_argument("--out", type=Path, default=HERE / "cost.csv")
    parser.add_argument("--measure", nargs=2, metavar=("VARIANT", "WIDTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, width = arguments.measure
        print(json.dumps(measure(name, int(width))))
        return
    from autolora import variants

    known = [variants.get(name) for name in variants.names()]
    pefts = [f"{variant.name}{PEFT_SUFFIX}" for variant in known if variant.lean_forward]
    # At the greatest width those alone whose step is another than plain LoRA's; the others differ in their start.
    widest_only = ["lora", *(variant.name for variant in known if variant.own_step), *pefts]
    done = _done(arguments.out)
    for width in arguments.widths:
        for name in arguments.only or [*variants.names(), *pefts]:
            left_out = width == max(WIDTHS) and name not in widest_only
            if (name, width) in done or (left_out and not arguments.only):
                continue
            command = [sys.executable, "-m", "studies.variants.cost", "--measure", name, str(width)]
            alone = {**os.environ, "OMP_NUM_THREADS": "1"}
            found = subprocess.run(command, cwd=ROOT, env=alone, check=True, capture_output=True, text=True)
            row = json.loads(found.stdout.splitlines()[-1])
            _append(arguments.out, row)
            print(*row.values(), flush=True)


def measure(name: str, width: int) -> dict[str, Any]:
    """One row of the table; with ``PEFT_SUFFIX`` in its name, of the variant with PEFT's own forward pass."""
    from autolora.variants import detach, get

    known = name.removesuffix(PEFT_SUFFIX)
    if known != name:
        module, _, lean = get(known).lean_forward.partition(":")
        del getattr(importlib.import_module(module), lean).forward  # PEFT's class is its parent

    torch.set_num_threads(1)
    base = _model(width)
    tokens = torch.randint(0, VOCABULARY, (BATCH, SEQUENCE), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    variant, plain = get(known), get("lora")
    starts = []
    for _ in range(2):
        began = time.monotonic()
        model = _attach(variant, base, batch)
        starts.append(time.monotonic() - began)
        detach(model)

    model = _attach(variant, base, batch)
    optimizer = variant.optimizer(model, 1e-4)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    _step(variant, model, optimizer, batch)
    with PeakMemory([*model.parameters(), *model.buffers(), *_tensors(optimizer.state)]) as memory:
        for _ in range(2):  # LoFT moves one factor a step
            _step(variant, model, optimizer, batch)
    peak = memory.peak / 2**20
    detach(model)

    times: dict[str, list[float]] = {"own": [], "lora": []}
    for _ in range(ROUNDS):
        for key, measured in (("own", variant), ("lora", plain)):
            model = _attach(measured, base, batch)
            optimizer = measured.optimizer(model, 1e-4)
            _step(measured, model, optimizer, batch)  # allocates
            for _ in range(2):
                began = time.monotonic()
                _step(measured, model, optimizer, batch)
                times[key].append(time.monotonic() - began)
            detach(model)
    # The shortest of each: what else runs on the machine only ever adds.
    own, plain_time = min(times["own"]), min(times["lora"])
    values = (name, width, trainable, f"{own:.4f}", f"{own / plain_time:.3f}", f"{peak:.0f}")
    return dict(zip(COLUMNS, (*values, *(f"{seconds:.2f}" for seconds in starts)), strict=True))


def _model(width: int) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=WIDTHS[width],
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        max_position_embeddings=SEQUENCE,
    )
    return AutoModelForCausalLM.from_config(config).requires_grad_(False)


def _attach(variant: Any, base: Any, batch: Any) -> Any:
    alpha = variant.traits.law_alpha(RANK, base.config.hidden_size)
    alpha = RANK if variant.traits.unit_scale else alpha
    model = variant.attach(base, rank=RANK, alpha=alpha, batches=[batch], horizon=100)
    model.train()
    return model


def _step(variant: Any, model: Any, optimizer: Any, batch: Any) -> None:
    loss, penalty = model(**batch).loss, variant.penalty(model)
    (loss if penalty is None else loss + penalty).backward()
    variant.clip_gradients(model, optimizer, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    """Of an optimizer."""
    for own in state.values():
        yield from (value for value in own.values() if isinstance(value, torch.Tensor))


class PeakMemory(TorchDispatchMode):
    """The most bytes of tensors that lived at once: those there at first, and what is made inside.

    What a kernel takes for itself is not seen.
    """

    def __init__(self, resident: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.peak = self._live = 0
        self._known: set[int] = set()
        for tensor in resident:
            self._see(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self._live += size
        self.peak = max(self.peak, self._live)

        def gone() -> None:
            self._known.discard(key)
            self._live -= size

        weakref.finalize(storage, gone)


def _done(table: Path) -> set[tuple[str, int]]:
    if not table.exists():
        return set()
    with table.open() as file:
        return {(row["variant"], int(row["width"])) for row in csv.DictReader(file)}


def _append(table: Path, row: dict[str, Any]) -> None:
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
