"""Whether a searched field that matters is found: real studies on a task that punishes memorizing, three seeds each.

    python -m studies.fields.make_task --out runs/fields/task
    python -m studies.fields.matters --dir runs/fields/matters

Each study tunes the learning rate with the same budget: with all else as by default; with dropout; with dropout, the
layers that carry an adapter, and fields that hardly matter. Resumable: a study that has ended is not run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import autolora
from autolora.driver.result import TunedVariant

STUDY = Path(__file__).parent / "study.yaml"
DROPOUT: Mapping[str, object] = {"space.dropout": [0, 0.2, 0.4, 0.6]}
LAYERS: Mapping[str, object] = {
    "space.fields.target_modules": ["all-linear", ["q_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"]]
}
OTHERS: Mapping[str, object] = {"space.fields.adam_beta2": [0.95, 0.999], "space.fields.optimizer": ["adamw", "nadam"]}
SEARCHED: Mapping[str, Mapping[str, object]] = {
    "learning rate alone": {},
    "dropout": DROPOUT,
    "dropout, layers, beta 2, optimizer": {**DROPOUT, **LAYERS, **OTHERS},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    lines = [
        "| searched | seed | evaluation loss, tuned | test loss | runs | tuned to |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for seed in range(arguments.seeds):
        for name, keys in SEARCHED.items():
            folder = arguments.dir / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
            result = autolora.tune(spec=STUDY, dir=folder, seed=seed, **keys)
            tuned = result["lora"]
            scores = f"{tuned.value:.4f} | {tuned.test:.4f} | {result.spent['lora']:.2f}"
            lines.append(f"| {name} | {seed} | {scores} | {_found(tuned)} |")
            print(lines[-1], flush=True)
    print("\n".join(lines))


def _found(tuned: TunedVariant) -> str:
    config = tuned.config.as_dict()
    fields = config.pop("fields", {})
    shown = {**{key: config[key] for key in ("learning_rate", "dropout") if key in config}, **dict(fields)}  # type: ignore[call-overload]
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )


if __name__ == "__main__":
    main()
