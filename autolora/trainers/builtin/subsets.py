"""How many evaluation rows each rung is scored on: all at the last, fewer before it where evaluating costs too much.

Costs are counted in tokens, never in seconds: the same study is scored on the same rows on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHARE = 0.05
"""Of a full run: what the evaluations of all rungs may cost on all rows."""
FORWARD = 0.4
"""Cost of a token that is evaluated, in tokens of training. By arithmetic 1/2, as a training step has a backward pass
without gradients of the frozen weights. Measured on a CPU: 0.27 on the shipped model, 0.44 on a Llama of 26M."""
GENERATED = 5.0
"""Cost of a token that is generated, likewise. Measured on a CPU: 0.6 to 1.3 on the shipped model, 3.4 on a Llama of
26M. It is higher on a GPU, where each token waits for all weights to be read."""
FEWEST = 64
"""Rows that a rung is scored on at least. Between good trials, their choice moves the difference of two scores by 0.8
to 1.1% of the score (one standard error) on the shipped task, and by 0.5 to 0.7% on GSM8K. The search's unit is 2%."""


def share_of_run(evaluated: int, generated: int, trained: float) -> float:
    """Estimated cost of one evaluation on all rows, as a share of the training of a full run.

    Args:
        evaluated: tokens of the evaluation rows.
        generated: tokens that the metric generates for them.
        trained: tokens of the training rows that a full run sees.
    """
    return (FORWARD * evaluated + GENERATED * generated) / trained


def rows_of_rungs(
    subset: bool | int | Sequence[int] | str, rungs: Sequence[float], rows: int, share: float
) -> tuple[int, ...]:
    """Evaluation rows that each rung is scored on, ascending to all of them.

    Args:
        subset: as in :class:`autolora.metrics.EvaluationSpec`. Where "auto" leaves rows out, those of a rung grow with
            its fraction of a full run, from FEWEST on.
        rungs: fractions of a full run, ascending to 1.
        rows: of the evaluation split.
        share: of a full run that one evaluation on all rows costs, see :func:`share_of_run`.
    """
    before_last = len(rungs) - 1
    match subset:
        case False:
            wanted = [rows] * before_last
        case int(number):
            wanted = [number] * before_last
        case "auto" if len(rungs) * share <= SHARE:
            wanted = [rows] * before_last
        case "auto":
            wanted = [max(FEWEST, round(rung * rows)) for rung in rungs[:-1]]
        case numbers:
            wanted = [int(number) for number in numbers]
    return (*(min(number, rows) for number in wanted), rows)


def chosen(rng: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """(count,) int64, ascending: the first ``count`` rows of an order drawn from ``rng``.

    From equal generators, those of a smaller count are among those of a larger one.
    """
    return np.sort(rng.permutation(rows)[:count])
