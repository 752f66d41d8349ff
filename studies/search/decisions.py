"""How long a decision takes: asks and tells of a search whose table holds hundreds of trials, on a simulated surface.

    python -m studies.search.decisions --trials 500

Prints median and 95th percentile in milliseconds: of the decisions after so many trials, and of all before.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from autolora import Search, laws
from autolora.search import Job
from autolora.space import Config, Space

VARIANTS = ("lora", "dora", "pissa", "milora", "init_ab")
WIDTH, EXAMPLES = 2048, 50_000
NOISE = 0.01
TIMED = 100
"""Decisions that are timed at the end."""

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--decisions", type=int, default=TIMED, help="timed at the end")
    arguments = parser.parse_args()
    asks, tells, scores = timed(arguments.trials, arguments.decisions)
    print(f"{arguments.trials} trials, {scores} scores, {len(VARIANTS)} variants")
    last = arguments.decisions
    for name, seconds in (("ask", asks), ("tell", tells)):
        print(f"{name}: {_milliseconds(seconds[-last:])}; up to there {_milliseconds(seconds[:-last])}")


def timed(trials: int, decisions: int = TIMED) -> tuple[list[float], list[float], int]:
    """Seconds of every ask and of every tell, until so many decisions after so many trials; and the scores told."""
    space = Space(rank=[4, 8, 16, 32, 64], batch_size=[16, 32, 64, 128], hidden_size=WIDTH)
    search = Search(VARIANTS, space, budget=float(trials), confirm=0, examples=EXAMPLES)
    rng = np.random.default_rng(0)
    asks: list[float] = []
    tells: list[float] = []
    scores = left = 0
    while left < decisions:
        job = _clocked(asks, search.ask)
        assert isinstance(job, Job)
        left += len(search.table.trials) >= trials
        loss = _loss(job.variant, job.config, job.stop) * (1 + NOISE * float(rng.standard_normal()))
        diverged = math.isinf(loss)
        _clocked(tells, lambda: search.tell(job, None if diverged else loss, diverged=diverged))  # noqa: B023
        scores += not diverged
    return asks, tells, scores


def _clocked(seconds: list[float], call: Callable[[], Result]) -> Result:
    began = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - began)
    return result


def _loss(variant: str, config: Config, fraction: float) -> float:
    """A valley in the learning rate that moves with the setting; a cliff to its right."""
    z = math.log10(config.learning_rate) - laws.log_centre(WIDTH, EXAMPLES) - 0.1 * VARIANTS.index(variant)
    z += 0.4 * math.log10(config.alpha) - 0.3 * math.log10(config.batch_size) - 0.1 * math.log10(fraction)
    better = 0.02 * math.log2(config.rank) - 0.01 * math.log2(config.batch_size)
    return math.inf if z > 1 else 2 - better + 0.3 * (fraction**-0.4 - 1) + (0.2 if z < 0 else 2.0) * z**2


def _milliseconds(seconds: Sequence[float]) -> str:
    median, high = 1000 * np.percentile(seconds, [50, 95]) if seconds else (math.nan, math.nan)
    return f"median {median:.1f} ms, 95th percentile {high:.1f} ms"


if __name__ == "__main__":
    main()
