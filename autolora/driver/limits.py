"""What a specification asks for that a full run of so many examples cannot give, or that nobody means."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from autolora.search.rungs import RUNGS, horizon, own_examples, steps_until
from autolora.space import Config, Range, Space
from autolora.spec import Spec, SpecError

UNUSUAL_RATE = 1.0
"""Learning rates above it are warned of."""


def warn_of_rates(spec: Spec) -> None:
    """Warn of learning rates at which no adapter is known to train."""
    rates = spec.space.learning_rates
    high = rates.high if isinstance(rates, Range) else max(rates)
    given = {"space.learning_rate": high, "baseline.learning_rate": spec.baseline.learning_rate if spec.baseline else 0}
    for key, rate in given.items():
        if rate > UNUSUAL_RATE:
            warnings.warn(f"{key}: {rate:g} is far above what adapters train at, usually below 0.1", stacklevel=2)


def fitting_space(space: Space, examples: int) -> Space:
    """The space without batch sizes of more than the shortest run's training examples.

    Of the default ones they are left out, with a warning.

    Raises:
        SpecError: the user gave one.
    """
    full = space.shortest == 1
    examples = own_examples(examples, space.shortest)
    large = [batch for batch in space.batch_size if batch > examples]
    if large and space.batch_size != Space().batch_size:
        raise SpecError(f"space.batch_size: {_too_large(large, examples, full)}")
    if large:
        fitting = [batch for batch in space.batch_size if batch <= examples] or [1 << examples.bit_length() - 1]
        warnings.warn(
            f"space.batch_size: of the default, {_listed(large)} is left out, as {_run(full)} has {examples} training "
            f"examples; searched: {_listed(fitting)}",
            stacklevel=2,
        )
        space = space.model_copy(update={"batch_size": fitting})
    return space


def check_rungs(rungs: Sequence[float], batches: Sequence[int], examples: int) -> None:
    """Check that a run can be scored at each rung of the user's: after optimizer steps of its own.

    The default rungs may fall on the same step: then they are scored there.

    Raises:
        SpecError: with the smallest batch size there are fewer optimizer steps than rungs.
    """
    if tuple(rungs) == RUNGS:
        return
    for batch in sorted(batches):
        steps = horizon(examples, batch)
        if len(rungs) > steps and batch == min(batches):
            raise SpecError(
                f"rungs: {len(rungs)} of them, and a full run of {examples} examples has {steps} optimizer steps at "
                f"batch size {batch}. Give at most {steps}, or raise training.examples"
            )
        reached = [steps_until(rung, examples, batch) for rung in rungs]
        shared = [rung for rung, step, last in zip(rungs[1:], reached[1:], reached, strict=False) if step == last]
        if shared:
            names = _listed([f"{one:g}" for one in shared])
            warnings.warn(
                f"rungs: at batch size {batch}, with {steps} optimizer steps, {names} falls on the same step as the "
                "rung before, and is scored there again",
                stacklevel=2,
            )


def check_baselines(baselines: Mapping[str, Config], examples: int) -> None:
    """Check the batch sizes of the user's baselines, which are by variant.

    Raises:
        SpecError: one is larger than a full run.
    """
    for config in baselines.values():
        if config.batch_size > examples:
            raise SpecError(f"baseline.batch_size: {_too_large([config.batch_size], examples)}")


def _too_large(batches: Sequence[int], examples: int, full: bool = True) -> str:
    raised = "training.examples" if full else "the least of space.duration"
    return (
        f"{_listed(batches)} is more than the {examples} training examples of {_run(full)}. Give at most {examples}, "
        f"or raise {raised}"
    )


def _run(full: bool) -> str:
    return "a full run" if full else "the shortest run"


def _listed(batches: Sequence[object]) -> str:
    return ", ".join(map(str, batches))
