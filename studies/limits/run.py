"""Does a study end within its time budget, and what does it find?

    python -m studies.limits.run                     # results.md beside this file; a quarter of an hour on two cores
    python -m studies.limits.run --limit 30 --without 0

The same study of the shipped task runs as a command of its own with ``--time-budget``, in this process and on one and
two workers of Ray, and once without. Wall time is that of the whole process, from its start to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from studies.throughput.commit import commit

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
STUDY: dict[str, Any] = {
    "model": "builtin:quickstart",
    "data": {
        "train": "builtin:quickstart/train.jsonl",
        "eval": "builtin:quickstart/test.jsonl",
        "test": "builtin:quickstart/test.jsonl",
        "eval_size": 128,
    },
    "variants": ["lora", "pissa"],
    "space": {"batch_size": [8, 16], "rank": [4, 8, 16]},
    "training": {"examples": 640, "max_length": 64},
    "metrics": ["tokens_per_second", "peak_memory"],
    "budget": 12,
}
WAYS = (("inline", 1), ("ray", 1), ("ray", 2))
HEAD = (
    "| executor | workers | time budget, s | wall time, s | load | full runs of lora, pissa | complete trials | "
    "eval_loss of lora, pissa | test loss of lora, pissa |",
    "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- | --- |",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds")
    parser.add_argument(
        "--ways", nargs="*", default=[f"{name}:{count}" for name, count in WAYS], help="executor:workers"
    )
    parser.add_argument("--without", type=int, default=1, help="1: also the study without a limit")
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        ways = [(name, int(count)) for name, _, count in (way.partition(":") for way in options.ways)]
        rows = list(_rows(Path(temporary), ways, options.limit, bool(options.without)))
    lines = [
        f"# Time budgets, at commit {commit(ROOT)}",
        "",
        f"`OMP_NUM_THREADS=1 python -m studies.limits.run --limit {options.limit:g}`; see [README.md](README.md).",
        "",
        *HEAD,
        *rows,
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _rows(folder: Path, ways: Sequence[tuple[str, int]], limit: float, without: bool) -> Iterator[str]:
    for executor, workers in ways:
        yield _row(folder / f"{executor}{workers}", executor, workers, limit)
    if without:
        yield _row(folder / "without", "inline", 1, None)


def _row(folder: Path, executor: str, workers: int, limit: float | None) -> str:
    folder.mkdir()
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "resources": {"cpu": 1, "workers": workers}}), encoding="utf-8")
    command = [sys.executable, "-c", "from autolora.cli import main; main()", "tune", str(file), "--executor", executor]
    command += ["--dir", str(folder / "run"), *([] if limit is None else ["--time-budget", f"{limit:g}"])]
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, env={**os.environ, "RAY_ADDRESS": "local"}, check=False)  # 3: nothing was tuned
    took = time.monotonic() - began
    best = json.loads((folder / "run" / "best.json").read_text(encoding="utf-8"))
    found = [best["variants"].get(name) for name in STUDY["variants"]]
    complete = _complete(folder / "run")
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg()[:1])
    cells = [
        executor,
        str(workers),
        "none" if limit is None else f"{limit:g}",
        f"{took:.1f}",
        load,
        ", ".join(f"{best['spent'][name]:.2f}" for name in STUDY["variants"]),
        str(complete),
        ", ".join("-" if each is None else f"{each['value']:.4f}" + _share(each) for each in found),
        ", ".join("-" if each is None or each["test"] is None else f"{each['test']:.4f}" for each in found),
    ]
    return f"| {' | '.join(cells)} |"


def _share(found: dict[str, Any]) -> str:
    return "" if found["fraction"] == 1 else f" at {found['fraction']:.2g} of a run"


def _complete(folder: Path) -> int:
    from autolora.study.directory import read_study

    table, plan = read_study(folder)
    return sum(len(table.complete(name)) for name in plan.variants)


if __name__ == "__main__":
    main()
