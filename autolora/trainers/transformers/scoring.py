"""The score of a trial among what its trainer reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autolora.errors import AutoloraError, closest

if TYPE_CHECKING:
    import transformers

PREFIX = "eval_"


def evaluated(trainer: transformers.Trainer, metric: str, data: Any = None) -> float:
    """Evaluate a trainer's model; the value that is reported under a name, or under it with "eval_" in front.

    Args:
        trainer, metric, data: as for :func:`evaluation`.

    Raises:
        AutoloraError: as for :func:`evaluation`, or the trainer reports no such number.
    """
    return reported(evaluation(trainer, metric, data), metric)


def evaluation(trainer: transformers.Trainer, metric: str, data: Any = None) -> Mapping[str, object]:
    """Evaluate a trainer's model; all that it reports.

    Args:
        trainer: with its model as it was trained.
        metric: name of what is looked for, for errors.
        data: in place of the trainer's own evaluation data.

    Raises:
        AutoloraError: the trainer has no evaluation data, or reports no metrics by name.
    """
    if data is None and trainer.eval_dataset is None:
        raise AutoloraError(
            f"the trainer has no eval_dataset, so it cannot report {metric!r}: pass eval_dataset=... to it"
        )
    found: object = trainer.evaluate() if data is None else trainer.evaluate(data)
    if not isinstance(found, Mapping):
        raise AutoloraError(
            f"the trainer's evaluate() returned {found!r:.80}, a {type(found).__name__}: have it return its metrics by "
            "name, as that of transformers.Trainer does"
        )
    return found


def reported(metrics: Mapping[str, object], metric: str) -> float:
    """The value of a metric among those that were reported.

    Raises:
        AutoloraError: there is no such metric, or it is not a number.
    """
    name = next((each for each in (metric, PREFIX + metric) if each in metrics), None)
    if name is None:
        close = closest(metric, metrics) or closest(PREFIX + metric, metrics)
        hint = f"did you mean {close!r}? " if close else ""
        raise AutoloraError(
            f"metric.name: the trainer reports no {metric!r}; {hint}it reports {', '.join(map(str, metrics))}"
        )
    value = metrics[name]
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise AutoloraError(f"metric.name: {name!r} that the trainer reports is {value!r}, not a number") from None
