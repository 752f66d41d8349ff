"""The training loop: one segment of one trial, from its newest checkpoint to the next rung.

A segment finds its work by looking. Promotion, retry after a crash and a first start are one path, and on a CPU a run
cut anywhere equals the uncut one bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from autolora.scores import Scores
from autolora.space import Config
from autolora.training import checkpoint
from autolora.training.checkpoint import Manifest
from autolora.training.divergence import DivergenceWatch
from autolora.training.memory import out_of_memory
from autolora.training.stepping import Stepper
from autolora.training.workbench import Workbench


@dataclass(frozen=True)
class Segment:
    """Train ``trial`` until it has seen the share ``stop`` of a full run, and score it as rung ``rung``."""

    trial: int
    variant: str
    config: Config
    seed: int
    stop: float
    rung: int


@dataclass(frozen=True)
class Outcome:
    """What became of a segment.

    Attributes:
        trial: number.
        kind: "scored", "diverged" or "infeasible".
        value: the score, where there is one.
        at: fraction of a full run trained.
        reason: in words, unless scored.
        seconds: wall time of the trial so far, over all its segments.
    """

    trial: int
    kind: Literal["scored", "diverged", "infeasible"]
    value: float | None
    at: float
    reason: str
    seconds: float


@dataclass(frozen=True)
class Progress:
    """One optimiser step of a running trial."""

    trial: int
    step: int
    steps: int
    loss: float


class Interrupted(Exception):
    """Raised by ``on_step`` to stop: the trial is checkpointed where it is and can go on later."""


def run(bench: Workbench, segment: Segment, on_step: Callable[[Progress], None] | None = None) -> Outcome:
    """Run a segment to its end.

    Args:
        bench: the worker's shared state.
        segment: what to train.
        on_step: called after every optimiser step; may raise :class:`Interrupted`.

    Returns:
        The outcome, after its checkpoint has been committed.

    Raises:
        CheckpointError: a checkpoint cannot be written.
        Interrupted: ``on_step`` asked to stop; a checkpoint has been committed.
        Exception: whatever the user's metric or data raise; the checkpoints so far stay.
    """
    began = time.monotonic()
    found = checkpoint.newest(bench.trial_folder(segment.trial))
    manifest, state = found if found else (_fresh(bench, segment), None)
    _check_owner(bench, segment, manifest)
    if segment.rung in manifest.scores:  # committed before a crash, never reported
        return Outcome(segment.trial, "scored", manifest.scores[segment.rung], segment.stop, "", manifest.seconds)
    try:
        return _advance(bench, segment, manifest, state, began, on_step)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        at = manifest.step / bench.steps(segment.config.batch_size)
        reason = f"out of memory, with as little as one example at a time: {str(error).splitlines()[0]}"
        seconds = manifest.seconds + time.monotonic() - began
        return Outcome(segment.trial, "infeasible", None, at, reason, seconds)


def _advance(
    bench: Workbench,
    segment: Segment,
    manifest: Manifest,
    state: dict[str, Any] | None,
    began: float,
    on_step: Callable[[Progress], None] | None,
) -> Outcome:
    """Attach, train to the rung, evaluate, commit."""
    import torch

    steps = bench.steps(segment.config.batch_size)
    devices = [bench.base.device] if bench.base.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        bench.attached(segment.variant, segment.config, segment.seed, state and state["adapter"]) as adapted,
    ):
        run = _Run(bench, segment, manifest, adapted, steps, began)
        if state is not None:
            run.restore(state)
        try:
            reason = run.train(min(steps, math.ceil(segment.stop * steps - 1e-9)), on_step)
        except Interrupted:
            run.commit()
            raise
        scores = Scores(math.nan) if reason else bench.scores(adapted, bench.data.eval)
        if reason is None and not math.isfinite(scores.value):
            reason = f"the evaluation metric became {scores.value}"
        if reason is not None:
            return Outcome(segment.trial, "diverged", None, manifest.step / steps, reason, run.seconds())
        manifest.scores[segment.rung] = scores.value
        if segment.stop == 1.0:  # shorter runs are never compared row by row
            manifest.totals, manifest.weights = scores.totals.tolist(), scores.weights.tolist()
        run.commit()
        return Outcome(segment.trial, "scored", scores.value, segment.stop, "", manifest.seconds)


def _fresh(bench: Workbench, segment: Segment) -> Manifest:
    return Manifest(segment.trial, segment.variant, segment.config.as_dict(), segment.seed, bench.identity)


def _check_owner(bench: Workbench, segment: Segment, manifest: Manifest) -> None:
    fresh = _fresh(bench, segment)
    if manifest.study and manifest.study != fresh.study:
        raise checkpoint.CheckpointError(
            f"{bench.trial_folder(segment.trial)} holds a checkpoint of another model, dataset or training: "
            "studies cannot share a place for checkpoints; give each a folder of its own, with --dir or `checkpoints`"
        )
    if (manifest.variant, manifest.config, manifest.seed) != (fresh.variant, fresh.config, fresh.seed):
        raise checkpoint.CheckpointError(
            f"{bench.trial_folder(segment.trial)} holds a checkpoint of another configuration "
            f"({manifest.variant} {manifest.config}, seed {manifest.seed}) than trial {segment.trial} of the study: "
            "the study was replaced; remove the folder, or use another run directory"
        )


class _Run:
    """The live parts of one segment: adapter, optimiser, schedule, watch."""

    def __init__(
        self, bench: Workbench, segment: Segment, manifest: Manifest, adapted: Any, steps: int, began: float
    ) -> None:
        from transformers import get_scheduler

        training = bench.training.of_trial(segment.config)
        self.bench, self.segment, self.manifest, self.adapted, self.steps = bench, segment, manifest, adapted, steps
        variant = bench.variant(segment.variant, segment.config)
        self.optimizer = variant.optimizer(adapted, segment.config.learning_rate, weight_decay=training.weight_decay)
        self.schedule = get_scheduler(
            training.schedule,
            self.optimizer,
            num_warmup_steps=math.ceil(training.warmup_ratio * steps),
            num_training_steps=steps,
        )
        self.watch = DivergenceWatch(segment.config.batch_size, manifest.losses, manifest.gradient_norms)
        self.stepper = Stepper(bench, variant, segment.config, segment.seed, adapted, self.optimizer)
        self._mark, self._before = began, manifest.seconds

    def restore(self, state: dict[str, Any]) -> None:
        """The optimiser and the schedule; the adapter is attached in its state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._mark

    def commit(self) -> None:
        """Write a checkpoint of this moment."""
        from autolora.variants.attachment import adapter_state

        self.manifest.seconds = self.seconds()
        self.manifest.examples = self.manifest.step * self.segment.config.batch_size
        state: dict[str, Any] = {"adapter": adapter_state(self.adapted)}
        finished = self.segment.stop == 1.0 and self.segment.rung in self.manifest.scores
        if not finished:  # a finished run is only ever evaluated and exported
            state |= {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        checkpoint.save(self.bench.trial_folder(self.segment.trial), self.manifest, state)

    def train(self, until: int, on_step: Callable[[Progress], None] | None) -> str | None:
        """Take optimiser steps up to ``until``; returns why the run diverged, or None."""
        self.adapted.train()
        committed = time.monotonic()
        while self.manifest.step < until:
            loss, norm = self.stepper.gradients(self.manifest.step)
            self.manifest.losses.append(loss)
            self.manifest.gradient_norms.append(norm)
            reason = self.watch.update(loss, norm)
            if reason is not None:
                self.manifest.step += 1
                return reason
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.manifest.step += 1
            if on_step is not None:
                on_step(Progress(self.segment.trial, self.manifest.step, self.steps, loss))
            if time.monotonic() - committed >= self.bench.training.checkpoint_seconds and self.manifest.step < until:
                self.commit()
                committed = time.monotonic()
        return None
