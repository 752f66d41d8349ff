"""The memory plan against the peak of real training steps.

    python -m studies.throughput.memory                 # writes memory.md beside this file; some ten minutes
    python -m studies.throughput.memory --only dora --out dora.md

Every setting is planned in this process and trained in another one, on a random Llama or Mixtral on the CPU.
What is measured is the most that the process held (``VmHWM``, of Linux alone) less what it held before the model was
made, libraries warm. The allocator is told to return memory at once (``ALLOCATOR``); otherwise its leftovers count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studies.throughput.commit import commit

ROOT = Path(__file__).parents[2]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Settings of glibc with which blocks of 64 kB and more return to the system when they are freed."""
SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
MODELS = {"33M": 8_000, "90M, large vocabulary": 64_000}
"""Vocabularies; all else is the same, 25 million parameters in layers."""
MIXTRAL = "46M, 8 experts"
EXPERTS = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 896,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
"""A Mixtral, whose experts are one tensor a layer. In float32: in bfloat16 the products of experts' few tokens fill the
caches of oneDNN, and twice as much is measured as with ``ONEDNN_MAX_CPU_ISA=AVX2``."""
VARIANTS = ("lora", "dora", "lora_pro")
"""Plain, with a forward pass of its own, and with a preconditioned optimizer."""
RANK, STEPS = 16, 2
HEAD = (
    "| model | variant | rows x tokens | base | checkpointing | planned MB | measured MB | ratio |",
    "| --- | --- | --- | --- | --- | ---: | ---: | ---: |",
)


@dataclass(frozen=True)
class Case:
    """A setting that is planned and measured.

    Attributes:
        model: a key of ``MODELS``, or ``MIXTRAL``.
        variant, rows, length, dtype, checkpointing: see :class:`autolora.bases.planning.Setting`.
    """

    model: str
    variant: str
    rows: int
    length: int
    dtype: str = "float32"
    checkpointing: bool = False


def cases() -> Iterator[Case]:
    for model in MODELS:
        for variant in VARIANTS:
            for checkpointing in (False, True):
                yield Case(model, variant, 4, 256, checkpointing=checkpointing)
    for checkpointing in (False, True):
        yield Case("33M", "lora", 4, 256, "bfloat16", checkpointing)
        yield Case(MIXTRAL, "lora", 1, 256, checkpointing=checkpointing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="these variants")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    parser.add_argument("--measure", metavar="CASE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(train(Case(**json.loads(arguments.measure))))
        return
    chosen = [case for case in cases() if arguments.only is None or case.variant in arguments.only]
    lines = [f"Commit {commit()}. Explained in [README.md](README.md).", "", *HEAD]
    for case in chosen:
        planned, measured = plan(case), measure(case)
        lines.append(row(case, planned, measured))
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")


def row(case: Case, planned: int, measured: int) -> str:
    checkpointing = "yes" if case.checkpointing else "no"
    numbers = f"{planned / 1e6:.0f} | {measured / 1e6:.0f} | {planned / measured:.2f}"
    setting = f"{case.model} | {case.variant} | {case.rows} x {case.length} | {case.dtype} | {checkpointing}"
    return f"| {setting} | {numbers} |"


def configuration(case: Case) -> Any:
    from transformers import LlamaConfig, MixtralConfig

    if case.model == MIXTRAL:
        return MixtralConfig(dtype=case.dtype, **EXPERTS)
    return LlamaConfig(vocab_size=MODELS[case.model], dtype=case.dtype, **SHAPE)


def plan(case: Case) -> int:
    """Bytes by the plan."""
    import torch

    from autolora import variants
    from autolora.bases.footprint import Footprint
    from autolora.bases.outline import outline
    from autolora.bases.planning import Setting, plan_memory

    footprint = Footprint(outline(configuration(case)), variants.get(case.variant))
    setting = Setting(RANK, case.rows, case.length, checkpointing=case.checkpointing)
    found = plan_memory(footprint, setting, torch.device("cpu"))
    assert found is not None
    assert found.planned_bytes is not None
    return found.planned_bytes


def measure(case: Case) -> int:
    """Bytes of real steps, in a process of their own."""
    command = [sys.executable, "-W", "ignore", "-m", "studies.throughput.memory", "--measure", json.dumps(asdict(case))]
    own = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=own, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def train(case: Case) -> int:
    """Train a few steps in this process; the most bytes that it held beside what it held before."""
    import torch
    from transformers import LlamaConfig, MixtralConfig

    torch.set_num_threads(1)
    warm = (MixtralConfig if case.model == MIXTRAL else LlamaConfig)(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        dtype=case.dtype,
    )
    _train(warm, case, rows=1, length=8)  # imports, kernels and their scratch memory
    before = _held("VmRSS")
    CLEAR.write_text("5")  # VmHWM begins again at VmRSS
    _train(configuration(case), case, case.rows, case.length)
    return _held("VmHWM") - before


def _train(config: Any, case: Case, rows: int, length: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from autolora import variants
    from autolora.adapters.attachment import attachment
    from autolora.adapters.kernels.branch import take_half
    from autolora.head import summed_loss

    dtype, variant = getattr(torch, case.dtype), variants.get(case.variant)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False)
    adapted = variant.attach(model, rank=RANK, alpha=float(RANK), horizon=100)
    if case.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if case.dtype == "bfloat16":
        take_half(attachment(adapted).layers.values())  # as a workbench does
    adapted.train()
    optimizer = variant.optimizer(adapted, 1e-4)
    tokens = torch.randint(0, config.vocab_size, (rows, length))
    for _ in range(STEPS):
        for _ in range(2):  # micro-batches: the second runs with the gradients of the first
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = summed_loss(adapted, {"input_ids": tokens, "labels": tokens}, apart=True)
            loss.backward()
            del loss
        variant.clip_gradients(adapted, optimizer, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _held(key: str) -> int:
    """Bytes in a line of the process's status."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
