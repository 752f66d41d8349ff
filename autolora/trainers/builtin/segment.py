"""The training loop: one segment of one trial, from its newest checkpoint to the next rung.

A segment finds its work by looking. Promotion, retry after a crash and a first start are one path, and on a CPU a run
cut anywhere equals the uncut one bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from autolora.errors import first_line
from autolora.scores import Scores
from autolora.search import Job
from autolora.search.rungs import steps_until
from autolora.trainers import checkpoint
from autolora.trainers.builtin.compiling import compiling
from autolora.trainers.builtin.evaluation import Evaluator
from autolora.trainers.builtin.passes import Passes
from autolora.trainers.builtin.stepping import Doing, Stepper
from autolora.trainers.builtin.workbench import Workbench
from autolora.trainers.checkpoint import Manifest, State
from autolora.trainers.divergence import DivergenceWatch
from autolora.trainers.memory import Peak, collected, out_of_memory
from autolora.trainers.timing import Timing, facts, reported
from autolora.trainers.trainer import Interrupted, OnStep, Outcome, Progress
from autolora.trainers.trials import scored

if TYPE_CHECKING:
    from peft import PeftModel

    from autolora.tasks.causal_lm.split import Split

logger = logging.getLogger(__name__)


def run(bench: Workbench, job: Job, on_step: OnStep | None = None) -> Outcome:
    """Run a segment to its end; see :meth:`autolora.trainers.trainer.Trainer.run`."""
    began = time.monotonic()
    manifest, state = bench.trials.begun(job, checkpoint.newest)
    if job.rung in manifest.scores:  # committed before a crash, never reported
        return _scored(job, manifest)
    doing = Doing()
    try:
        return _advance(bench, job, manifest, state, began, on_step, doing=doing)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        at = _share(bench, manifest, job)
        reason = f"out of memory while {doing.what}: {first_line(error)}"
        seconds = manifest.seconds + time.monotonic() - began
        return Outcome(job.trial, "infeasible", None, at, reason, seconds, too_large=True)


def _advance(
    bench: Workbench,
    job: Job,
    manifest: Manifest,
    state: State | None,
    began: float,
    on_step: OnStep | None,
    *,
    doing: Doing,
) -> Outcome:
    """Attach, train to the rung, evaluate, commit."""
    import torch

    with (
        torch.random.fork_rng(bench.base.seeded_devices),
        bench.attached(job.variant, job.config, job.seed, state and state["adapter"]) as adapted,
    ):
        run = _Run(bench, job, manifest, adapted, began, doing=doing)
        if state is not None:
            run.restore(state)
        try:
            with bench.base.fast_matmuls(), compiling(bench, adapted, job.variant, job.config):
                until = steps_until(job.stop, bench.examples_of(job.config), job.config.batch_size)
                reason = run.train(until, on_step)
        except Interrupted:
            run.commit()
            raise
        doing.what = "evaluating"
        evaluating = time.monotonic()
        scores = Scores(math.nan) if reason else bench.evaluator.scores(adapted, bench.evaluated(job))
        run.peak.check()
        if reason is None and not math.isfinite(scores.value):
            reason = f"the evaluation metric became {scores.value}"
        if reason is not None:
            return Outcome(job.trial, "diverged", None, _share(bench, manifest, job), reason, run.seconds())
        manifest.scores[job.rung] = scores.value
        if job.stop == 1.0:  # shorter runs are never compared row by row
            manifest.totals, manifest.weights = scores.totals.tolist(), scores.weights.tolist()
        evaluation = time.monotonic() - evaluating
        run.report()
        run.commit()
        return replace(_scored(job, manifest), evaluation=evaluation)


def _share(bench: Workbench, manifest: Manifest, job: Job) -> float:
    """Share of the trial's run that has been trained, by examples."""
    return bench.seen(manifest.step, job.config) / bench.examples_of(job.config)


def _scored(job: Job, manifest: Manifest) -> Outcome:
    """What the committed manifest says of the rung, so that a score reported again says the same."""
    outcome = scored(job, manifest)
    if job.stop < 1.0:
        return outcome
    rows = Scores.of(manifest.totals, manifest.weights) if manifest.totals else Scores(manifest.scores[job.rung])
    return replace(outcome, rows=rows)


def _scored_by(reporter: Evaluator, adapted: PeftModel, rows: Split) -> float | None:
    """A further metric; None if memory runs out, which must not cost the trial."""
    try:
        return reporter.scores(adapted, rows).value
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        logger.warning("%s is not reported, as memory ran out: %s", reporter.spec.name, first_line(error))
    collected()  # the error is no longer held, whose frames hold the attempt
    return None


class _Run:
    """The live parts of one segment: adapter, optimizer, schedule, watch."""

    def __init__(
        self, bench: Workbench, job: Job, manifest: Manifest, adapted: PeftModel, began: float, *, doing: Doing
    ) -> None:
        from transformers import get_scheduler

        training, steps = bench.training.of_trial(job.config), bench.steps(job.config)
        self.bench, self.job, self.manifest, self.adapted, self.steps = bench, job, manifest, adapted, steps
        variant = bench.variant(job.variant, job.config)
        self.optimizer = bench.optimizer(variant, adapted, job.config)
        self.schedule = get_scheduler(
            training.schedule,
            self.optimizer,
            num_warmup_steps=math.ceil(training.warmup_ratio * steps),
            num_training_steps=steps,
        )
        self.watch = DivergenceWatch(job.config.batch_size, manifest.losses, manifest.gradient_norms)
        self._timing = Timing(manifest.timing)
        self.peak = Peak(bench.base.device, manifest.peak_memory, bench.most)
        self.stepper = Stepper(
            bench=bench,
            variant=variant,
            config=job.config,
            seed=job.seed,
            adapted=adapted,
            optimizer=self.optimizer,
            doing=doing,
            peak=self.peak,
            passes=bench.room.resumed(Passes.of(manifest.passes)) if manifest.passes else None,
        )
        self._mark, self._before = began, manifest.seconds

    def restore(self, state: State) -> None:
        """The optimizer, the schedule and the scale of the loss; the adapter is attached in its state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.stepper.scaler.restore(state.get("scaler", {}))

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._mark

    def commit(self) -> None:
        """Write a checkpoint of this moment."""
        from autolora.adapters.state import adapter_state

        self.manifest.seconds = self.seconds()
        self.manifest.peak_memory = self.peak.bytes()
        self.manifest.passes = self.stepper.passes.record()
        self.manifest.examples = self.bench.seen(self.manifest.step, self.job.config)
        state: State = {"adapter": adapter_state(self.adapted)}
        finished = self.job.stop == 1.0 and self.job.rung in self.manifest.scores
        if not finished:  # a finished run is only ever evaluated and exported
            state |= {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
            scaler = self.stepper.scaler.state()
            state |= {"scaler": scaler} if scaler else {}
        checkpoint.save(self.bench.trial_folder(self.job.trial), self.manifest, state)

    def report(self) -> None:
        """Put into the manifest what is reported beside the score.

        A trial that is trained to the end is scored by further metrics, too, on all rows.
        """
        from autolora.adapters.state import adapter_state

        bench, asked = self.bench, self.bench.reported
        if not asked:
            return
        said: dict[str, object] = {}
        if self.job.stop == 1.0:
            rows = bench.evaluated(self.job)
            said = {name: _scored_by(each, self.adapted, rows) for name, each in bench.reporters.items()}
        self.manifest.seconds, self.manifest.peak_memory = self.seconds(), self.peak.bytes()
        trained = sum(each.numel() for each in self.adapted.parameters() if each.requires_grad)
        size = sum(each.numel() * each.element_size() for each in adapter_state(self.adapted).values())
        self.manifest.metrics[self.job.rung] = reported(asked, facts(self.manifest, trained, size), said)

    def _step_schedule(self) -> None:
        """Also after a step that was skipped, which PyTorch warns of if it is the first: rates go with the examples."""
        if not self.stepper.overflowed:
            self.schedule.step()
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.schedule.step()

    def _examples(self, step: int) -> int:
        """Examples of the batch of an optimizer step (0-based)."""
        return self.bench.seen(step + 1, self.job.config) - self.bench.seen(step, self.job.config)

    def train(self, until: int, on_step: OnStep | None) -> str | None:
        """Take optimizer steps up to ``until``; returns why the run diverged, or None."""
        self.adapted.train()
        committed, end = time.monotonic(), self.bench.examples_of(self.job.config)
        while self.manifest.step < until:
            began = time.monotonic()
            loss, norm = self.stepper.gradients(self.manifest.step, end)
            self.manifest.losses.append(loss)
            self.manifest.gradient_norms.append(norm)
            reason = self.watch.update(loss, norm, self._examples(self.manifest.step))
            if self.stepper.overflowed and math.isfinite(loss):  # skipped, which the watch takes for a divergence
                reason = self.stepper.scaler.exhausted
            if reason is not None:
                self.manifest.step += 1
                return reason
            self.stepper.step()
            self._step_schedule()
            self._timing.step(time.monotonic() - began, self._examples(self.manifest.step), self.stepper.tokens)
            self.manifest.step += 1
            if on_step is not None:
                on_step(Progress(self.job.trial, self.manifest.step, self.steps, loss))
            if time.monotonic() - committed >= self.bench.training.checkpoint_seconds and self.manifest.step < until:
                self.commit()
                committed = time.monotonic()
        return None
