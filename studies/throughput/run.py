"""Real tokens a second of our loop beside others, in one process, turn and turn about.

    export AUTOLORA_GSM8K=path/to/folder      # with train.jsonl and test.jsonl
    python -m studies.throughput.run

Times are those of the processor, over all its cores, so that ratios hold on a busy machine. Writes results.json and
results.md beside this file, or to another folder with ``--dir``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

from autolora import spec as specs
from autolora.trainers.builtin.workbench import Workbench
from studies.throughput.commit import commit
from studies.throughput.loops import LOOPS, Measured
from studies.throughput.model import Shape, make

HERE = Path(__file__).parent
VARIABLE = "AUTOLORA_GSM8K"
BATCHES = (8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=HERE, help="where the results go")
    parser.add_argument("--rows", type=int, default=64, help="that each loop trains on in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=Shape.hidden)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    arguments = parser.parse_args()
    data = os.environ.get(VARIABLE)
    if not data:
        raise SystemExit(f"set {VARIABLE} to a folder with GSM8K's train.jsonl and test.jsonl")
    torch.set_num_threads(arguments.threads)
    shape = Shape(arguments.hidden, arguments.layers, round(arguments.hidden * 2.6875))
    with tempfile.TemporaryDirectory() as scratch:
        folder = make(Path(scratch) / "model", Path(data) / "train.jsonl", shape)
        bench = Workbench.open(_spec(folder, Path(data)), Path(scratch))
        found = {
            str(batch): measure(bench, batch, max(2, arguments.rows // batch), arguments.rounds)
            for batch in arguments.batches
        }
    facts = {
        "commit": commit(),
        "parameters": sum(parameter.numel() for parameter in bench.base.model.parameters()),
        "threads": arguments.threads,
        "rows": arguments.rows,
        "rounds": arguments.rounds,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    arguments.dir.mkdir(parents=True, exist_ok=True)
    (arguments.dir / "results.json").write_text(json.dumps({**facts, "batches": found}, indent=1) + "\n")
    (arguments.dir / "results.md").write_text(table(facts, found))


def measure(bench: Workbench, batch: int, steps: int, rounds: int) -> dict[str, list[dict[str, object]]]:
    """Every loop in every round; the first steps of each, which also allocate, are a warm-up that is not counted."""
    found: dict[str, list[dict[str, object]]] = {name: [] for name in LOOPS}
    for loop in LOOPS.values():
        loop(bench, batch, 2)
    for number in range(rounds):
        for name, loop in LOOPS.items():
            measured = loop(bench, batch, steps)
            found[name].append(asdict(measured))
            rate = measured.tokens / measured.seconds
            print(f"batch {batch}, round {number + 1} of {rounds}: {name} {rate:.0f} tokens/s", flush=True)
    return found


def table(facts: Mapping[str, object], found: Mapping[str, Mapping[str, list[dict[str, object]]]]) -> str:
    lines = [
        f"Commit {facts['commit']}, torch {facts['torch']}, {facts['threads']} thread(s), a Llama of "
        f"{int(str(facts['parameters'])) / 1e6:.1f}M random parameters, {facts['rows']} rows of GSM8K a round, medians "
        f"over {facts['rounds']} rounds. Explained in [README.md](README.md).",
        "",
        "| batch | loop | real tokens a second | autolora is faster by | share of the floor | padding |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    overheads = []
    for batch, loops in found.items():
        rounds = {name: [Measured(**each) for each in runs] for name, runs in loops.items()}  # type: ignore[arg-type]
        rates = {name: [each.tokens / each.seconds for each in runs] for name, runs in rounds.items()}
        for name, runs in rounds.items():
            faster = median(a / b for a, b in zip(rates["autolora"], rates[name], strict=True))
            share = median(a / b for a, b in zip(rates[name], rates["floor"], strict=True))
            padding = 1 - sum(each.tokens for each in runs) / sum(each.padded for each in runs)
            cells = [batch, name, f"{median(rates[name]):.0f}", f"{faster:.2f}x", f"{share:.0%}", f"{padding:.0%}"]
            lines.append(f"| {' | '.join(cells)} |")
        own = median(1 - each.inside / each.seconds for each in rounds["autolora"])
        overheads.append(f"{own:.1%} at batch {batch}")
    lines += [
        "",
        f"Of our loop's time, {' and '.join(overheads)} is spent outside of forward, backward, clipping and AdamW.",
    ]
    return "\n".join(lines) + "\n"


def _spec(model: Path, data: Path) -> specs.Spec:
    return specs.load(
        model=str(model),
        data={
            "train": str(data / "train.jsonl"),
            "eval": str(data / "test.jsonl"),
            "prompt": "question",
            "completion": "answer",
            "eval_size": 8,
        },
        training={"max_length": 512, "device": "cpu", "warmup_ratio": 0.0},
    )


if __name__ == "__main__":
    main()
