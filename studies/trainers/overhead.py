"""What a trainer costs beside itself: one full run by autolora and one without it, in turns, in one process.

    OMP_NUM_THREADS=1 python -m studies.trainers.overhead        # overhead.md beside this file; minutes

Without it means: TRL's and transformers' trainers are made by the same function, then trained and evaluated once; the
command is run by ``subprocess`` with the files that it asks for. Counted is processor time, children included.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from autolora.search import Job
from autolora.space import Config
from autolora.trainers import Trainer, open_trainer
from studies.throughput.commit import commit
from studies.trainers.task import LOOP, ROOT, specification

HERE = Path(__file__).parent
CONFIG = Config(2e-3, 8, 8, 16.0)
Timed = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "overhead.md")
    options = parser.parse_args()
    lines = [
        f"# What trainers cost beside themselves, at commit {commit(ROOT)}",
        "",
        f"`OMP_NUM_THREADS=1 python -m studies.trainers.overhead --examples {options.examples} --repeats "
        f"{options.repeats}`; see [README.md](README.md). Medians of processor seconds for one full run and one "
        "evaluation, and of the ratios of neighboring runs.",
        "",
        "| trainer | alone, s | through autolora, s | ratio | least and largest ratio |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name, make in {"trl": _trl, "command": _command}.items():
        with tempfile.TemporaryDirectory() as folder:
            lines.append(_row(name, *make(Path(folder), options.examples), options.repeats))
            print(lines[-1], flush=True)
    options.out.write_text("\n".join(lines) + "\n")


def _trl(folder: Path, examples: int) -> tuple[Timed, Timed]:
    from autolora.trainers.trl.trainer import TrlTrainer

    trainer = open_trainer(specification("trl", folder, examples), folder)
    assert isinstance(trainer, TrlTrainer)

    def alone(number: int) -> None:
        with trainer._made(_job(1000 + number), None) as made:
            made.trainer.args.max_steps = examples // CONFIG.batch_size
            made.trainer.train()
            made.trainer.evaluate()

    return alone, _through(trainer)


def _command(folder: Path, examples: int) -> tuple[Timed, Timed]:
    trainer = open_trainer(specification("command", folder, examples), folder)

    def alone(number: int) -> None:
        """With what a run through autolora has left, but in a folder of its own."""
        import json

        told = folder / "alone" / str(number)
        (told / "work").mkdir(parents=True)
        known = json.loads((folder / "trials" / "0" / "trial.json").read_text())
        (told / "trial.json").write_text(json.dumps({**known, "folder": str(told / "work")}))
        environment = {
            **os.environ,
            "AUTOLORA_TRIAL": str(told / "trial.json"),
            "AUTOLORA_REPORT": str(told / "report.jsonl"),
        }
        subprocess.run([sys.executable, str(LOOP)], env=environment, cwd=ROOT, check=True)

    return alone, _through(trainer)


def _through(trainer: Trainer) -> Timed:
    return lambda number: _check(trainer.run(_job(number)).kind)


def _check(kind: str) -> None:
    assert kind == "scored", kind


def _job(number: int) -> Job:
    return Job(number, "lora", CONFIG, seed=0, start=0.0, stop=1.0, rung=2)


def _row(name: str, alone: Timed, through: Timed, repeats: int) -> str:
    through(0)  # what a process does once
    alone(0)
    pairs = [(_seconds(alone, number), _seconds(through, number)) for number in range(1, repeats + 1)]
    ratios = [with_it / without for without, with_it in pairs]
    bare, ours = (median(values) for values in zip(*pairs, strict=True))
    return f"| {name} | {bare:.2f} | {ours:.2f} | {median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |"


def _seconds(work: Timed, number: int) -> float:
    began = _processor()
    work(number)
    return _processor() - began


def _processor() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
