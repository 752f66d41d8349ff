"""The grid that the search is measured against: nine learning rates per variant, full runs, on the same pipeline.

    python -m studies.gsm8k.grid studies/gsm8k/study.yaml --dir runs/gsm8k-grid --seeds 2

Resumable: a run whose score is in the output is not repeated. Writes ``grid.json`` into the run directory.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

from autolora import spec as specs
from autolora.search import Job
from autolora.space import Config
from autolora.trainers import checkpoint
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.workbench import Workbench

LEARNING_RATES = [6.3246e-4, 1.1247e-3, 2e-3, 3.5566e-3, 6.3246e-3, 1.1247e-2, 2e-2, 3.5566e-2, 6.3246e-2]
"""Four a decade over the good region."""
RANK, ALPHA, BATCH = 8, 8.0, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rates", type=float, nargs="+", default=LEARNING_RATES, help="learning rates")
    arguments = parser.parse_args()
    spec = specs.load(arguments.spec)
    arguments.dir.mkdir(parents=True, exist_ok=True)
    bench = Workbench.open(spec, arguments.dir)
    output = arguments.dir / "grid.json"
    rows = json.loads(output.read_text()) if output.is_file() else []
    done = {(row["variant"], row["learning_rate"], row["seed"]) for row in rows}
    cells = product(range(arguments.seeds), arguments.rates, spec.names)
    for number, (seed, rate, variant) in enumerate(cells):
        if (variant, rate, seed) in done:
            continue
        config = Config(rate, BATCH, RANK, ALPHA)
        outcome = segment.run(bench, Job(number, variant, config, seed, start=0.0, stop=1.0, rung=0))
        checkpoint.discard(bench.trial_folder(number))
        rows.append(
            {
                "variant": variant,
                "learning_rate": rate,
                "seed": seed,
                "value": outcome.value,
                "at": outcome.at,
                "reason": outcome.reason,
                "seconds": round(outcome.seconds, 2),
            }
        )
        output.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{variant} {rate:.2e} seed {seed}: {outcome.value} {outcome.reason}", flush=True)


if __name__ == "__main__":
    main()
