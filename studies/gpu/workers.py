"""Two processes that train on one device at once, against one: what ``resources.gpu: 0.5`` gains.

A process is started with a JSON object of ``shape``, ``length``, ``device``, ``dtype`` and ``folder``, and answers
orders on its standard input: "BATCH STEPS" warms up and says "ready"; the next line begins what is timed, by the clock
on the wall.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

import torch

from autolora.bases.device import dtype_name
from studies.gpu.models import EXAMPLES, SHAPES, Place
from studies.gpu.report import NOTHING, Case, Result, Skip
from studies.gpu.speed import WARM_UP
from studies.throughput import loops

ROOT = Path(__file__).parents[2]
NUMBER = 2
LONGEST = 240.0
"""Seconds after which processes are ended, come what may."""


@dataclass(frozen=True)
class Sharing:
    """What is trained: a key of ``SHAPES``, micro-batches, tokens of a row, and timed steps."""

    shape: str
    batches: tuple[int, ...]
    length: int
    steps: int


def cases(place: Place, asked: Sharing) -> Iterator[Case]:
    """For each micro-batch one process, then both."""
    pool = _Pool(place, asked)
    try:
        for batch in asked.batches:
            for number in (1, NUMBER):
                names = (f"{SHAPES[asked.shape].name}, micro-batch {batch}", str(number))
                yield Case("workers", names, partial(pool.measure, batch, number))
    finally:
        pool.close()


@dataclass
class _Pool:
    """The processes, which are started once."""

    place: Place
    asked: Sharing
    _workers: list[subprocess.Popen[str]] = field(default_factory=list)
    _alone: dict[int, float] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def measure(self, batch: int, number: int) -> Result:
        """Tokens a second of a number of processes together, until the last has ended."""
        self._start()
        chosen = self._workers[:number]
        if any(worker.poll() is not None for worker in chosen):
            raise Skip("a process has ended, see above")
        _say(chosen, f"{batch} {self.asked.steps}")
        for worker in chosen:
            _heard(worker)
        _say(chosen, "go")
        found = [json.loads(_heard(worker)) for worker in chosen]
        rate = sum(each["tokens"] for each in found) / max(each["seconds"] for each in found)
        alone = self._alone.setdefault(batch, rate) if number == 1 else self._alone.get(batch)
        return Result((f"{rate:.0f}", NOTHING if alone is None else f"{rate / alone:.2f}x"))

    def close(self) -> None:
        self._stack.close()

    def _start(self) -> None:
        if self._workers:
            return
        for number in range(NUMBER):
            folder = self.place.folder / f"worker-{number}"
            folder.mkdir()
            asked = {
                "shape": self.asked.shape,
                "length": self.asked.length,
                "device": str(self.place.device),
                "dtype": dtype_name(self.place.dtype),
                "folder": str(folder),
            }
            command = [sys.executable, "-W", "ignore", "-m", "studies.gpu.workers", json.dumps(asked)]
            worker = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._workers.append(worker)
            self._stack.callback(_end, worker)
            timer = threading.Timer(LONGEST, worker.kill)
            timer.daemon = True
            timer.start()
            self._stack.callback(timer.cancel)


def _say(workers: Sequence[subprocess.Popen[str]], line: str) -> None:
    for worker in workers:
        stdin = _there(worker.stdin)
        stdin.write(f"{line}\n")
        stdin.flush()


def _heard(worker: subprocess.Popen[str]) -> str:
    line = _there(worker.stdout).readline()
    if not line:
        raise RuntimeError(f"a process has ended with status {worker.wait()}; its error is above")
    return line


def _there(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.communicate()


def main() -> None:
    """A process of the pool."""
    asked = json.loads(sys.argv[1])
    place = Place(torch.device(asked["device"]), getattr(torch, asked["dtype"]), Path(asked["folder"]))
    if place.device.type == "cpu":
        torch.set_num_threads(1)  # each is to have a core
    data = place.timed(asked["shape"], asked["length"])
    bench = place.bench(place.model(asked["shape"]), data, examples=EXAMPLES)
    for line in sys.stdin:
        batch, steps = map(int, line.split())
        loops.autolora(bench, batch, WARM_UP)
        print("ready", flush=True)
        sys.stdin.readline()
        measured = loops.autolora(bench, batch, steps, clock=lambda: loops.wall(place.device))
        print(json.dumps({"tokens": measured.tokens, "seconds": measured.seconds}), flush=True)


if __name__ == "__main__":
    main()
