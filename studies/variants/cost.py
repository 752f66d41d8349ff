"""What a variant costs beside plain LoRA: time of a training step, its peak memory, and how long it takes to start.

    python studies/variants/cost.py                     # every variant at every width; resumable
    python studies/variants/cost.py --only dora --widths 1024

One row a variant and width is appended to ``cost.csv`` beside this file; ``report.py`` makes the table. Each is
measured in a process of its own, on a random Llama-architecture model in float32. Steps alternate with plain LoRA's on
the same base and tokens, so a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
TABLE = HERE / "cost.csv"
WIDTHS = {256: 4, 512: 2, 1024: 2, 2048: 1}
"""Layers by width: what a layer costs decides, not how many there are."""
SEQUENCE, BATCH, RANK, VOCABULARY = 256, 2, 16, 512
STEPS = 5
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
    parser.add_argument("--measure", nargs=2, metavar=("VARIANT", "WIDTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, width = arguments.measure
        print(json.dumps(measure(name, int(width))))
        return
    from autolora import variants

    done = _done()
    for width in arguments.widths:
        for name in arguments.only or variants.names():
            if (name, width) in done:
                continue
            command = [sys.executable, __file__, "--measure", name, str(width)]
            # Memory that is freed goes back to the system at once, so that a peak is what was in use.
            alone = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
            found = subprocess.run(command, env={**os.environ, **alone}, check=True, capture_output=True, text=True)
            row = json.loads(found.stdout.splitlines()[-1])
            _append(row)
            print(*row.values(), flush=True)


def measure(name: str, width: int) -> dict[str, Any]:
    """One row of the table."""
    import torch

    from autolora.variants import detach, get

    torch.set_num_threads(1)
    before = _memory("VmRSS")
    base = _model(width)
    tokens = torch.randint(0, VOCABULARY, (BATCH, SEQUENCE), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    variant, plain = get(name), get("lora")
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
    _reset_peak()
    for _ in range(2):  # LoFT moves one factor a step
        _step(variant, model, optimizer, batch)
    peak = _memory("VmHWM") - before
    detach(model)

    times: dict[str, list[float]] = {"own": [], "lora": []}
    for _ in range(STEPS):
        for key, measured in (("own", variant), ("lora", plain)):
            model = _attach(measured, base, batch)
            optimizer = measured.optimizer(model, 1e-4)
            _step(measured, model, optimizer, batch)  # allocates
            began = time.monotonic()
            for _ in range(2):
                _step(measured, model, optimizer, batch)
            times[key].append((time.monotonic() - began) / 2)
            detach(model)
    ratio = median(own / lora for own, lora in zip(times["own"], times["lora"], strict=True))
    values = (name, width, trainable, f"{median(times['own']):.4f}", f"{ratio:.3f}", f"{peak:.0f}")
    return dict(zip(COLUMNS, (*values, *(f"{seconds:.2f}" for seconds in starts)), strict=True))


def _model(width: int) -> Any:
    import torch
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
    model(**batch).loss.backward()
    variant.clip_gradients(model, optimizer, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _memory(key: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _done() -> set[tuple[str, int]]:
    if not TABLE.exists():
        return set()
    with TABLE.open() as file:
        return {(row["variant"], int(row["width"])) for row in csv.DictReader(file)}


def _append(row: dict[str, Any]) -> None:
    new = not TABLE.exists()
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
