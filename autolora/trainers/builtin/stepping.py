"""One optimizer step's gradients: a global batch in as many micro-batches as memory asks for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from autolora.losses import target_count, token_losses
from autolora.space import Config
from autolora.trainers.builtin.randomness import STEP, torch_seed
from autolora.trainers.builtin.workbench import Workbench
from autolora.trainers.memory import halved, out_of_memory

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from autolora.variants import Variant


class Stepper:
    """Computes gradients of a trial, step by step.

    Args:
        bench: the worker's shared state.
        variant, config, seed: of the trial.
        adapted: the attached model.
        optimizer: over its trainable parameters.
    """

    def __init__(
        self,
        bench: Workbench,
        variant: Variant,
        config: Config,
        seed: int,
        adapted: PeftModel,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.bench, self.variant, self.config, self.seed = bench, variant, config, seed
        self.adapted, self.optimizer = adapted, optimizer

    def gradients(self, step: int, end: int | None = None) -> tuple[float, float]:
        """Gradients of the global batch of this step (0-based), clipped; the rest of the step is the caller's.

        Args:
            step: optimizer steps before.
            end: training examples of the run, at which its last batch is cut; None: it goes on.

        Returns:
            Its token-averaged loss, and the gradient norm before clipping.
        """
        import torch

        config, bench = self.config, self.bench
        begin = step * config.batch_size
        until = begin + config.batch_size if end is None else min(begin + config.batch_size, end)
        rows = bench.batches.rows(self.seed, begin, until)
        while True:
            micro = self._micro_batch()
            torch.manual_seed(torch_seed(bench.seed, self.seed, STEP, step))
            try:
                loss = self._accumulate([rows[i : i + micro] for i in range(0, len(rows), micro)])
                break
            except (RuntimeError, MemoryError) as error:
                self.optimizer.zero_grad(set_to_none=True)
                if micro == 1 or not out_of_memory(error):
                    raise
            bench.micro_batch_limit = halved(micro)
        clip = bench.training.of_trial(config).max_grad_norm or math.inf
        return loss, self.variant.clip_gradients(self.adapted, self.optimizer, clip)

    def _micro_batch(self) -> int:
        limits = (self.bench.training.micro_batch, self.bench.micro_batch_limit, self.config.batch_size)
        return min(limit for limit in limits if limit is not None)

    def _accumulate(self, micro_batches: list[np.ndarray]) -> float:
        """Backward over micro-batches so that the sum is the gradient of the token average over the global batch.

        A variant's penalty is averaged over micro-batches by their tokens, and no part of the loss that is returned.
        """
        bench = self.bench
        batches = [bench.batches.batch(rows) for rows in micro_batches]
        targets = sum(map(target_count, batches))
        total = 0.0
        for batch in batches:
            with bench.base.autocast():
                losses, _, _ = token_losses(self.adapted, bench.base.placed(batch))
            loss = losses.sum() / targets
            total += float(loss.detach())
            penalty = self.variant.penalty(self.adapted)
            if penalty is not None:
                loss = loss + penalty * (target_count(batch) / targets)
            bench.accelerator.backward(loss)
        return total
