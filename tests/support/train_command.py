"""A training in numpy that a command trains: deterministic, resumed exactly, in milliseconds."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

OPTIMUM, WIDTH = 3e-2, 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--alpha", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--stop", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0, help="seconds that a step takes")
    parser.add_argument("--starts", type=Path, help="file that gets a line for each start and each step")
    asked = parser.parse_args()

    saved = asked.folder / "state.npz"
    rng = np.random.default_rng(asked.seed)
    targets = rng.standard_normal((512, WIDTH)) * 0.1 + 1.0
    weights, step = np.zeros(WIDTH), 0
    if saved.exists():
        state = np.load(saved)
        weights, step = state["weights"], int(state["step"])
    note(asked.starts, f"start {asked.folder.parent.name} {step} {asked.stop}")
    while step * asked.batch < asked.stop:
        at = (step * asked.batch) % len(targets)
        error = weights - targets[at : at + asked.batch]
        loss = float(np.square(error).mean())
        weights = weights - asked.lr * 2 * error.mean(0)
        step += 1
        save(saved, weights=weights, step=step)
        report({"step": step, "loss": loss})
        note(asked.starts, f"step {asked.folder.parent.name} {step}")
        time.sleep(asked.pause)
    report({"eval_loss": float(np.square(weights - targets).mean())})


def save(path: Path, **arrays: object) -> None:
    beside = path.with_name("beside.npz")
    with beside.open("wb") as file:
        np.savez(file, **arrays)
    beside.replace(path)


def report(line: dict[str, float]) -> None:
    with open(os.environ["AUTOLORA_REPORT"], "a") as file:
        file.write(json.dumps(line) + "\n")


def note(path: Path | None, line: str) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    np.seterr(over="ignore", invalid="ignore")
    main()
