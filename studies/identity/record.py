"""Records what a change of structure must leave as it is: decisions, trials, adapters, texts, old run directories.

    python -m studies.identity.record before      # at the commit before the change
    python -m studies.identity.record after --continue before/run
    python -m studies.identity.compare before after

Only public interfaces are used, so that the same script runs at both commits. Each recording is of the checkout that
the command is run in, its subprocesses included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROBLEMS = ("curves/quickstart-variants", "curves/stories260k", "hartmann/3-good", "edge/laws-10x-too-low")
SEEDS = (0, 1)
BUDGET = 4.0
SPEC: dict[str, Any] = {
    "model": "builtin:quickstart",
    "data": {
        "train": "builtin:quickstart/train.jsonl",
        "eval": "builtin:quickstart/test.jsonl",
        "eval_size": 40,
        "test": "builtin:quickstart/test.jsonl",
        "test_size": 40,
    },
    "variants": ["lora", "pissa", "lora_ga", "moslora", "dora"],
    "space": {
        "learning_rate": [1.0e-4, 3.0e-2],
        "batch_size": [4, 8],
        "rank": [2, 4],
        "alpha": {"low": 2, "high": 64},
        "options": {"lora_ga.gamma": [4, 16, 64]},
    },
    "training": {"examples": 144, "max_length": 64, "device": "cpu"},
    "baseline": {"learning_rate": 2.0e-4, "rank": 4, "alpha": 8},
    "budget": 4,
}
LARGER_BUDGET = 5
VARYING = re.compile(r"\d+(\.\d+)? (s|min|ms|h|kB|MB|GB)\b|\d+ h \d+ min|\(\d+\.\d%\)")
"""What differs between two runs of the same code: times, and memory."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--continue", dest="earlier", type=Path, help="a run directory that another commit made")
    parser.add_argument(
        "--problems", nargs="+", default=PROBLEMS, help="of studies/search; their searches are recorded"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of those searches")
    parser.add_argument("--variants", nargs="+", default=SPEC["variants"], choices=SPEC["variants"], help="to tune")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True)
    os.environ["AUTOLORA_CACHE"] = str(out / "cache")
    os.environ["OMP_NUM_THREADS"] = "1"
    _write(
        out / "decisions.json",
        {
            f"{name} seed {seed} prior {prior}": decisions(name, seed, prior)
            for name in arguments.problems
            for seed in arguments.seeds
            for prior in ("laws", "none")
        },
    )
    spec = out / "spec.yaml"
    spec.write_text(json.dumps(specification(arguments.variants)))
    folder = Path("run")
    texts = {"dry-run": command(out, "tune", "spec.yaml", "--dir", "run", "--dry-run")}
    texts["prior"] = command(out, "prior", "spec.yaml")
    command(out, "tune", "spec.yaml", "--dir", "run")
    texts["status"] = command(out, "status", "run")
    texts["best"] = command(out, "best", "run")
    texts["variants"] = command(out, "variants")
    _write(out / "texts.json", texts)
    _write(out / "study.json", recorded(out / folder))
    earlier = arguments.earlier.absolute() if arguments.earlier else out / folder
    shutil.copytree(earlier, out / "continued")
    command(out, "tune", "spec.yaml", "--dir", "continued", "--set", f"budget={LARGER_BUDGET}")
    _write(out / "continued.json", recorded(out / "continued"))


def specification(variants: Sequence[str]) -> dict[str, Any]:
    """SPEC with these variants, and no others' options."""
    options = {key: choices for key, choices in SPEC["space"]["options"].items() if key.partition(".")[0] in variants}
    return {**SPEC, "variants": list(variants), "space": {**SPEC["space"], "options": options}}


def decisions(name: str, seed: int, prior: str) -> list[Any]:
    """Every job of a search on a problem of the benchmark, with what it was told."""
    from autolora import Search
    from studies.search import problems

    problem = problems.get(name, None)
    given = {} if prior == "laws" else {"prior": None}
    search = Search(
        list(problem.variants),
        space=problem.space,
        budget=BUDGET,
        rungs=problem.rungs[-3:],
        direction=problem.direction,
        seed=seed,
        examples=problem.examples,
        **given,
    )
    made = []
    while (job := search.ask()) is not None:
        trial = search.table.trials[job.trial]
        reason = trial.promotions[-1] if trial.promotions else trial.origin
        made.append(
            [job.trial, job.variant, job.config.as_dict(), job.seed, job.start, job.stop, trial.purpose, reason]
        )
        score = problem.evaluate(job.variant, job.config, job.stop, job.seed)
        if score is None:
            search.tell(job, diverged=True, at=min(job.stop, problem.diverges_at(job.variant, job.config)))
        else:
            search.tell(job, score)
    best = {variant: [found.config.as_dict(), found.value] for variant, found in search.best().items()}
    return [made, search.spent, best, [[t.number, t.outcome, t.reason] for t in search.table.trials]]


def recorded(folder: Path) -> dict[str, Any]:
    """The study's trials and what was exported, without times."""
    import optuna

    study = optuna.load_study(study_name="autolora", storage=f"sqlite:///{folder / 'study.db'}")
    trials = []
    for trial in study.get_trials(deepcopy=False):
        attributes = {key: value for key, value in trial.user_attrs.items() if key not in ("seconds", "rows")}
        if "ending" in attributes:
            attributes["ending"] = {key: value for key, value in attributes["ending"].items() if key != "seconds"}
        scores = {str(step): value for step, value in trial.intermediate_values.items()}
        distributions = {name: repr(found) for name, found in sorted(trial.distributions.items())}
        trials.append(
            [
                trial.number,
                trial.state.name,
                dict(sorted(trial.params.items())),
                distributions,
                scores,
                dict(sorted(attributes.items())),
            ]
        )
    best = json.loads((folder / "best.json").read_text())
    for tuned in best["variants"].values():
        del tuned["seconds"], tuned["run_seconds"], tuned["cheapest"], tuned["adapter_dir"]
        tuned["smallest"] = tuned["smallest"] and {k: v for k, v in tuned["smallest"].items() if k != "seconds"}
    del best["seconds"]
    adapters = {}
    for path in sorted((folder / "best").rglob("*")):
        if path.suffix == ".safetensors":
            adapters[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "adapter_config.json":
            adapters[str(path.relative_to(folder))] = json.loads(path.read_text())
    return {
        "trials": trials,
        "best": best,
        "adapters": adapters,
        "spec": (folder / "spec.yaml").read_text(),
        "terms": study.user_attrs["autolora:terms"],
    }


def command(cwd: Path, *words: str) -> str:
    """What the command prints, without times."""
    program = [sys.executable, "-c", "from autolora.cli import main; main()", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # not an installed autolora of another checkout
    run = subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"autolora {' '.join(words)} failed:\n{run.stdout}{run.stderr}")
    lines = [VARYING.sub("#", line) for line in run.stdout.splitlines()]
    return "\n".join(re.sub(r" +", " ", line).rstrip() for line in lines)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
