"""One segment of one trial, trained by a ``transformers.Trainer`` from its newest checkpoint to the next rung."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora.errors import AutoloraError
from autolora.search import Job
from autolora.search.rungs import share_of
from autolora.spec import Spec
from autolora.trainers import checkpoint, timing
from autolora.trainers.checkpoint import ADAPTER, Manifest
from autolora.trainers.memory import Peak
from autolora.trainers.places import Location
from autolora.trainers.randomness import EVALUATION, TRAINING, torch_seed
from autolora.trainers.timing import Timing, facts
from autolora.trainers.trainer import OnStep, Outcome, Progress
from autolora.trainers.transformers.callback import Conductor, can_be_cut
from autolora.trainers.transformers.folders import RNG_STATE, packed, unpack
from autolora.trainers.transformers.length import Epoch
from autolora.trainers.transformers.making import Made
from autolora.trainers.transformers.randomness import seed_all
from autolora.trainers.transformers.scoring import evaluation, reported
from autolora.trainers.transformers.state import trained_state
from autolora.trainers.trials import scored
from autolora.trainers.watching import AnyLossWatch, ReportWatch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import TrainerState


@dataclass
class Doing:
    """What a segment was at when memory ran out.

    Attributes:
        what: in words.
        heard: whether smaller passes would be heard of.
    """

    what: str = "making the trainer"
    heard: bool = False


@dataclass
class Segment:
    """A segment with the trainer that was made for it.

    Args:
        spec: of the study.
        job: the segment.
        made: its trainer.
        manifest: of the trial's newest checkpoint.
        contents: the files of that one; None at the trial's start.
        location: where the trial keeps its checkpoints.
        examples: of a full run.
        cycle: optimizer steps amid which the run cannot be cut, see
            :meth:`autolora.trainers.transformers.trainer.TransformersTrainer.cycle`.
        watch: takes the losses.
        began: ``time.monotonic()`` when work on the segment began.
        on_step: as for :meth:`autolora.trainers.trainer.Trainer.run`.
    """

    spec: Spec
    job: Job
    made: Made
    manifest: Manifest
    contents: Mapping[str, bytes] | None
    location: Location
    examples: int
    cycle: int
    watch: ReportWatch | AnyLossWatch
    began: float
    on_step: OnStep | None

    def __post_init__(self) -> None:
        self._before = self.manifest.seconds
        self._peak = Peak(self.made.trainer.args.device, self.manifest.peak_memory, self.spec.memory_limit)
        self.epoch = Epoch.of(self.made.trainer)
        self.steps = self.epoch.steps_of(self.examples)
        self._epoch_steps = 0 if self.epoch.rows is None else self.epoch.steps
        self.until = self._cut_after(share_of(self.job.stop, self.steps))
        self.made.trainer.args.max_steps = self.steps

    def _cut_after(self, step: int) -> int:
        """The first step from this one on that the run can be cut after; at most its last one."""
        while step < self.steps and not can_be_cut(step, self.cycle, self._epoch_steps):
            step += 1
        return step

    def run(self, doing: Doing) -> Outcome:
        """Train, evaluate, commit.

        Args:
            doing: told what is done.
        """
        doing.what = "training"
        conductor = self._conductor()
        self.made.trainer.add_callback(conductor)
        if self.manifest.step < self.until:
            self._train()
            if conductor.interrupted is not None:
                raise conductor.interrupted
        elif self.contents is not None:
            self.made.load(adapter_of(self.contents))
        step = self.made.trainer.state.global_step
        reason = conductor.reason
        if reason is None and self.manifest.step < self.until:
            raise AutoloraError(
                f"the training of trial {self.job.trial} ended by itself at step {step}, before step {self.until} of "
                f"{self.steps}: give the trainer no callback that stops it, autolora does"
            )
        value, evaluated_in = math.nan, 0.0
        if reason is None:
            doing.what, doing.heard = "evaluating, with the trainer's own per_device_eval_batch_size", False
            seed_all(torch_seed(self.spec.seed, self.job.seed, EVALUATION))
            evaluating = time.monotonic()
            said = evaluation(self.made.trainer, self.spec.metric.name)
            value = reported(said, self.spec.metric.name)
            evaluated_in = time.monotonic() - evaluating
            self._peak.check()
            if not math.isfinite(value):
                reason, step = f"{self.spec.metric.name} became {value}", self.manifest.step
        if reason is not None:
            return Outcome(self.job.trial, "diverged", None, self._share(step), reason, self._seconds())
        self.manifest.scores[self.job.rung] = value
        assert self.contents is not None
        self._report(said)
        finished = self.job.stop == 1.0  # and from now on it is only evaluated and exported
        self._commit({ADAPTER: self.contents[ADAPTER]} if finished else self.contents, finished=finished)
        return replace(scored(self.job, self.manifest), evaluation=evaluated_in)

    def _report(self, said: Mapping[str, object]) -> None:
        """Put into the manifest what is reported beside the score: by the trainer, by its logs, or as measured."""
        if not self.spec.metrics:
            return
        assert self.contents is not None
        trainer = self.made.trainer
        logged = {name: value for logs in trainer.state.log_history for name, value in logs.items()}
        self.manifest.seconds, self.manifest.peak_memory = self._seconds(), self._peak.bytes()
        trained = sum(each.numel() for each in self.made.model.parameters() if each.requires_grad)
        known = facts(self.manifest, trained, len(self.contents[ADAPTER]))
        self.manifest.metrics[self.job.rung] = timing.reported(self.spec.metrics, known, {**logged, **said})

    def _conductor(self) -> Conductor:
        losses, step = self.manifest.losses, self.manifest.step
        return Conductor(
            last=Progress(self.job.trial, step, self.steps, losses[-1]) if losses else None,
            trial=self.job.trial,
            until=self.until,
            steps=self.steps,
            epoch_steps=self._epoch_steps,
            cycle=self.cycle,
            seed=lambda epoch: torch_seed(self.spec.seed, self.job.seed, TRAINING, epoch),
            watch=self.watch,
            checkpoint_seconds=self.spec.training.checkpoint_seconds,
            save=self._save,
            on_step=self.on_step,
            timing=Timing(self.manifest.timing),
            peak=self._peak,
            examples=self.job.config.batch_size,
        )

    def _train(self) -> None:
        """Have the trainer train, with our own files for what it trains of the model."""
        trainer, resumed = self.made.trainer, None
        if self.contents is not None:
            resumed = self.made.scratch / "resumed"
            unpack(self.contents, resumed)
        # On the object alone. Its own ways know PEFT's adapters and whole models; of ours, and of transformers'
        # add_adapter, they would save too little, and PEFT's start again from an initialization.
        trainer.save_model = self._save_model
        trainer._load_from_checkpoint = self._load_model
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        if resumed is not None:
            shutil.rmtree(resumed)

    def _save_model(self, output_dir: str | None = None, **_: Any) -> None:
        from safetensors.torch import save_file

        folder = Path(output_dir or self.made.scratch)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_state(self.made.model, self.made.attached), folder / ADAPTER)

    def _load_model(self, *_: Any, **__: Any) -> None:
        assert self.contents is not None
        self.made.load(adapter_of(self.contents))

    def _save(self, folder: Path, state: TrainerState) -> None:
        """Commit what the trainer has written to a folder."""
        contents = packed(folder)
        shutil.rmtree(folder)
        if self.epoch.rows is not None and state.global_step % self.epoch.steps == 0:
            contents.pop(RNG_STATE, None)  # the next epoch begins with a seed of its own
        logs = [logs for logs in state.log_history if "loss" in logs]
        self.manifest.step = state.global_step
        self.manifest.losses = [float(each["loss"]) for each in logs]
        self.manifest.gradient_norms = [float(each.get("grad_norm", math.nan)) for each in logs]
        self._commit(contents, finished=False)

    def _commit(self, contents: Mapping[str, bytes], *, finished: bool) -> None:
        self.contents = contents
        self.manifest.seconds, self.manifest.peak_memory = self._seconds(), self._peak.bytes()
        self.manifest.examples = min(self.examples, self.epoch.examples_of(self.manifest.step))
        checkpoint.commit(self.location, self.manifest, contents, finished=finished)

    def _share(self, step: int) -> float:
        return min(1.0, step / self.steps)

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self.began


def adapter_of(contents: Mapping[str, bytes]) -> dict[str, Tensor]:
    """What a checkpoint has of the model, see :func:`~autolora.trainers.transformers.state.trained_state`."""
    from safetensors.torch import load

    tensors: dict[str, Tensor] = load(contents[ADAPTER])
    return tensors
