"""What workers of one machine take of its main memory, against one worker.

    python -m studies.workers.memory                                   # memory.md beside this file; some ten minutes
    python -m studies.workers.memory --checkout ../earlier --out earlier.md    # with the package of another checkout

A small study of a random Llama runs with ``--executor ray``. Meanwhile the proportional set sizes of the driver and of
its workers are read (of Linux alone): a page that several processes share counts once, divided among them. The
allocator is told to return memory at once, as in studies/throughput/memory.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import yaml

from autolora import quickstart
from studies.throughput.commit import commit
from studies.throughput.memory import ALLOCATOR
from studies.throughput.model import Shape, make

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SHAPE = Shape(hidden=1024, layers=8, intermediate=2752, vocabulary=4096)
"""Of 101 million parameters, 405 MB in float32."""
WORKER = "ray::Segment"
"""How Ray names the processes of workers."""
WORKER_BYTES = 200 << 20
"""Of a worker that has begun to load, libraries included."""
LOOK_SECONDS = 0.2
FILES = ("float32", "bfloat16")
"""Dtypes of the checkpoint; training is in float32, so that weights in bfloat16 are converted and not shared."""
HEAD = (
    "| checkpoint | workers | most at once, MB | of it the driver, MB | driver while workers train, MB | seconds |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="repository whose package is measured")
    parser.add_argument("--out", type=Path, default=HERE / "memory.md")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--files", nargs="+", choices=FILES, default=FILES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = list(_rows(Path(temporary), options.checkout, options.files, options.workers))
    lines = [
        f"# Main memory of a driver and its workers, at commit {commit(options.checkout)}",
        "",
        f"A random Llama of {SHAPE.hidden} x {SHAPE.layers}, trained in float32; see [README.md](README.md).",
        "",
        *HEAD,
        *rows,
    ]
    options.out.write_text("\n".join(lines) + "\n")


def _rows(folder: Path, checkout: Path, files: Sequence[str], counts: Sequence[int]) -> Iterator[str]:
    texts = Path(str(quickstart.resolve("builtin:quickstart/train.jsonl")))
    whole = make(folder / "float32", texts, SHAPE)
    for dtype in files:
        model = whole if dtype == "float32" else _narrowed(whole, folder / dtype)
        for workers in counts:
            peak, driver, meanwhile, seconds = _measured(folder / f"{dtype}-{workers}", checkout, model, workers)
            row = f"| {dtype} | {workers} | {peak:.0f} | {driver:.0f} | {meanwhile:.0f} | {seconds:.0f} |"
            print(row, flush=True)
            yield row


def _narrowed(model: Path, folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def _measured(folder: Path, checkout: Path, model: Path, workers: int) -> tuple[float, float, float, float]:
    """Run a study.

    Returns:
        In MB the most of driver and workers together, what the driver had of it, and the most that the driver has had
        once a worker trained; and seconds.
    """
    folder.mkdir()
    spec = {
        "model": str(model),
        "data": {"train": "builtin:quickstart/train.jsonl", "eval_size": 8},
        "variants": ["lora"],
        "space": {"learning_rate": [1e-4, 1e-2], "batch_size": [4], "rank": [8]},
        "training": {"examples": 32, "max_length": 64, "device": "cpu", "dtype": "float32"},
        "prior": {"curvature": False},
        "resources": {"cpu": 1, "gpu": 0, "workers": workers},
        "budget": 3,
        "confirm": 0,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-c", "from autolora.cli import main; main()", "tune", str(folder / "study.yaml")]
    own = {"PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"}
    environment = {**os.environ, **ALLOCATOR, **own}
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        study = subprocess.Popen(
            [*command, "--executor", "ray", "--dir", str(folder / "run")],
            env=environment,
            cwd=folder,  # of which Python imports first
            stdout=log,
            stderr=log,
        )
        peak, meanwhile = Counter[str](), 0
        while study.poll() is None:
            now = _sizes(study.pid)
            if now.total() > peak.total():
                peak = now
            if now["workers"] > WORKER_BYTES:
                meanwhile = max(meanwhile, now["driver"])
            time.sleep(LOOK_SECONDS)
    if study.returncode:
        raise SystemExit((folder / "log").read_text(errors="replace"))
    return peak.total() / 1e6, peak["driver"] / 1e6, meanwhile / 1e6, time.monotonic() - began


def _sizes(driver: int) -> Counter[str]:
    """Bytes of the driver and of its workers."""
    found = Counter[str]()
    try:
        processes = [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]
    except psutil.NoSuchProcess:
        return found
    for process in processes:
        try:
            name = " ".join(process.cmdline()[:1])
            if process.pid == driver or name.startswith(WORKER):
                found["driver" if process.pid == driver else "workers"] += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
            continue
    return found


if __name__ == "__main__":
    main()
