"""A training in two processes over gloo, by hand: deterministic, resumed exactly; it can be told to fail."""

from __future__ import annotations

import argparse
import os
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import autolora

FAULTS = {
    "none": lambda: None,
    "killed": lambda: os.kill(os.getpid(), 9),
    "error": lambda: [][1],
    "memory": lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
    "launcher": lambda: os.kill(os.getppid(), 9),
    "launcher asked": lambda: os.kill(os.getppid(), 15),
}
"""What happens to rank 1 at the second step of the first run; the other hangs in a collective meanwhile."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--pause", type=float, default=0)
    parser.add_argument("--leave-session", action="store_true")
    parser.add_argument("--starts", type=Path)
    asked = parser.parse_args()
    if asked.leave_session and os.getpid() != os.getsid(0):
        os.setsid()
    dist.init_process_group("gloo", timeout=timedelta(minutes=10))
    rank, trial = dist.get_rank(), autolora.current_trial()
    assert dist.get_world_size() == trial.processes
    saved, began = trial.folder / "state.pt", trial.folder / f"began-{rank}"
    again = began.exists()
    began.touch()
    generator = torch.Generator().manual_seed(trial.seed)
    targets = torch.randn(512, 8, generator=generator) * 0.1 + 1.0
    weights, step = torch.zeros(8), 0
    if saved.exists():
        weights, step = torch.load(saved)
    seeds = [torch.zeros(1, dtype=torch.long) for _ in range(trial.processes)]
    dist.all_gather(seeds, torch.tensor([trial.seed]))
    assert len({int(each) for each in seeds}) == 1
    batch, share = trial.config.batch_size, trial.local_batch_size
    while step * batch < trial.stop_examples:
        if step == 1 and rank == 1 and not again:
            FAULTS[asked.fault]()
        first = (step * batch + rank * share) % len(targets)
        gradient = (weights - targets[first : first + share]).mean(0) / trial.processes
        dist.all_reduce(gradient)
        weights = weights - trial.config.learning_rate * 2 * gradient
        step += 1
        trial.report(step=step, loss=float((weights - targets).square().mean()))
        if rank == 0:
            torch.save((weights, step), trial.folder / "new.pt")
            os.replace(trial.folder / "new.pt", saved)
            if asked.starts is not None:
                with asked.starts.open("a") as file:
                    file.write(f"step {trial.number} {step}\n")
        dist.barrier()
        time.sleep(asked.pause)
    trial.report(eval_loss=float((weights - targets).square().mean()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
