"""One optimizer step's gradients: a global batch in as many passes as are cheapest and as memory asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autolora.space import Config
from autolora.trainers.builtin.passes import Passes
from autolora.trainers.builtin.scaling import scaler_for
from autolora.trainers.builtin.workbench import Workbench
from autolora.trainers.memory import Peak, collected, out_of_memory
from autolora.trainers.randomness import STEP, torch_seed

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from autolora.variants import Variant


@dataclass
class Doing:
    """What a segment is doing, for the reason if memory runs out in it."""

    what: str = "attaching the adapter"


class Stepper:
    """Computes gradients of a trial, step by step.

    Args:
        bench: the worker's shared state.
        variant, config, seed: of the trial.
        adapted: the attached model.
        optimizer: over its trainable parameters.
        passes: what the trial was begun with; None: it begins here.
        peak: what is taken, which must not exceed what may be.
        doing: is told what is done.

    Attributes:
        passes: what one forward pass may hold, as it is now.
        scaler: of the loss.
        tokens: of the latest global batch, padding left out.
        overflowed: whether gradients of the latest step were beyond float16, so that it is skipped.
    """

    def __init__(
        self,
        bench: Workbench,
        variant: Variant,
        config: Config,
        seed: int,
        adapted: PeftModel,
        optimizer: torch.optim.Optimizer,
        passes: Passes | None = None,
        doing: Doing | None = None,
        peak: Peak | None = None,
    ) -> None:
        self.bench, self.variant, self.config, self.seed = bench, variant, config, seed
        self.adapted, self.optimizer = adapted, optimizer
        self.scaler, self.overflowed = scaler_for(bench.base), False
        self.doing, self._peak = doing or Doing(), peak
        self.tokens = 0
        self.passes = passes or self._begin()
        self._latest: np.ndarray = np.empty(0, dtype=np.int64)

    def gradients(self, step: int, end: int | None = None) -> tuple[float, float]:
        """Gradients of the global batch of this step (0-based), clipped; the rest of the step is the caller's.

        Whatever the number of passes, an accelerator is waited for once, when loss and norm are read together; in
        float16 once more, for whether gradients have overflowed.

        Args:
            step: optimizer steps before.
            end: training examples of the run, at which its last batch is cut; None: it goes on.

        Returns:
            Its token-averaged loss, and the gradient norm before clipping; infinite if gradients have overflowed.
        """
        import torch

        config, bench = self.config, self.bench
        begin = step * config.batch_size
        until = begin + config.batch_size if end is None else min(begin + config.batch_size, end)
        rows = bench.batches.rows(self.seed, begin, until)
        self.tokens = int(bench.data.train.lengths[rows].sum())
        self.doing.what = "training on as little as one example at a time"
        while True:
            passes = self.passes.cut(bench.data.train.lengths[rows], bench.training.micro_batch)
            torch.manual_seed(torch_seed(bench.seed, self.seed, STEP, step))
            try:
                with bench.base.checkpointing(self.passes.checkpointing):
                    loss = self._accumulate([rows[each] for each in passes])
                if self._peak is not None:
                    self._peak.check()
                break
            except (RuntimeError, MemoryError) as error:
                self.optimizer.zero_grad(set_to_none=True)
                less = self._less() if out_of_memory(error) else None
                if less is None:
                    raise
            collected()  # once the error is no longer held, whose frames hold the attempt
            self.passes = less
            if self._peak is not None:
                self._peak.begin()
        self.overflowed = not self.scaler.unscale(self.optimizer)
        if self.overflowed:  # no clipping either, which may be an optimizer's own and change its state
            return float(loss), math.inf
        self.doing.what = "clipping gradients"
        clip = bench.training.of_trial(config).max_grad_norm or math.inf
        return _read(loss, self.variant.clip_gradients(self.adapted, self.optimizer, clip))

    def step(self) -> None:
        """Take the optimizer's step with the gradients, unless they have overflowed; they are gone afterwards."""
        self.doing.what = "taking the optimizer's step"
        if not self.overflowed:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _begin(self) -> Passes:
        """What a new trial starts with, after a probe where that is not known yet."""
        longest = int(self.bench.data.train.lengths.argmax())
        trained = sum(p.numel() * p.element_size() for p in self.adapted.parameters() if p.requires_grad)
        self.adapted.train()  # activations are computed again in training alone

        def run(rows: int) -> None:
            try:
                self._accumulate([np.full(rows, longest)])
            finally:
                self.optimizer.zero_grad(set_to_none=True)  # also what a pass has left that memory ran out in

        return self.bench.room.start(self._subject, run, trained)

    @property
    def _subject(self) -> str:
        """What room is found for."""
        return f"{self.variant.name}, rank {self.config.rank}{self.bench.layers_in_words(self.config)}"

    def _less(self) -> Passes | None:
        tokens = int(self.bench.data.train.lengths[self._latest].max(initial=0)) * len(self._latest)
        return self.bench.room.less(self._subject, self.passes, len(self._latest), tokens)

    def _accumulate(self, passes: Sequence[np.ndarray]) -> torch.Tensor:
        """Backward over passes so that the sum is the gradient of the token average over all their rows.

        A variant's penalty is averaged over passes by their tokens, and no part of the loss that is returned, a scalar
        on the device.
        """
        import torch

        from autolora.head import summed_loss

        bench = self.bench
        counts = bench.data.train.target_counts
        targets = sum(int(counts[rows].sum()) for rows in passes)
        total: torch.Tensor | float = 0.0
        precise = torch.float32 if bench.base.device.type == "mps" else torch.float64
        for rows in passes:
            self._latest = rows
            batch = bench.base.placed(bench.batches.read(rows))
            with bench.base.autocast():
                early = self.scaler.early(1 / targets)
                loss = summed_loss(self.adapted, batch, bench.base.reading.apart, early) / targets
            total = loss.detach().to(precise) + total
            penalty = self.variant.penalty(self.adapted)
            if penalty is not None:
                loss = loss + penalty * (int(counts[rows].sum()) / targets)
            bench.accelerator.backward(self.scaler.scaled(loss))
        return torch.as_tensor(total)


def _read(loss: torch.Tensor, norm: torch.Tensor | float) -> tuple[float, float]:
    """Both as numbers, in one transfer from the device; a norm that is a number already stays as it is."""
    import torch

    if not isinstance(norm, torch.Tensor):
        return float(loss), norm
    first, second = torch.stack([loss, norm.detach().to(loss)]).tolist()
    return first, second
