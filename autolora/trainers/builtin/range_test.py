"""The learning-rate range test: a short training whose rate grows at every step (Smith, arXiv 1506.01186)."""

from __future__ import annotations

import math

from autolora.priors.probe import RangeTest
from autolora.space import Config
from autolora.trainers.builtin.stepping import Stepper
from autolora.trainers.builtin.workbench import Workbench

SEED = 1000
"""Of the probe's data order and initialization: no trial's."""
BLOWN_UP, MARGIN = 1.5, 1.0
"""The test ends where the loss exceeds the first by this factor plus this margin (nats): what follows says nothing."""


def range_test(bench: Workbench, variant: str, config: Config, steps: int, decades_a_step: float) -> RangeTest:
    """Train with the real optimizer, data and clipping, from ``config``'s learning rate upwards.

    Args:
        bench: the worker's shared state.
        variant: a registered name.
        config: its learning rate is the first step's.
        steps: at most; a loss that has blown up ends the test before.
        decades_a_step: growth of log10 of the learning rate.

    Returns:
        Learning rates, and the loss of each step's batch *before* the step was taken with it.
    """
    import torch

    rates: list[float] = []
    losses: list[float] = []
    with (
        torch.random.fork_rng(bench.base.seeded_devices),
        bench.attached(variant, config, SEED) as adapted,
        bench.base.fast_matmuls(),
    ):
        adapted.train()
        tested = bench.variant(variant, config)
        optimizer = bench.optimizer(tested, adapted, config)
        stepper = Stepper(bench, tested, config, SEED, adapted, optimizer)
        initial = [group["lr"] for group in optimizer.param_groups]
        for step in range(steps):
            growth = 10 ** (step * decades_a_step)
            loss, _ = stepper.gradients(step)
            rates.append(config.learning_rate * growth)
            losses.append(loss)
            if not (math.isfinite(loss) and loss <= BLOWN_UP * losses[0] + MARGIN):
                break
            for group, rate in zip(optimizer.param_groups, initial, strict=True):
                group["lr"] = rate * growth
            stepper.step()
    return RangeTest(rates, losses, config, variant)
