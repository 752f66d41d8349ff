"""Any ``transformers.Trainer`` behind the protocol."""

from __future__ import annotations

import hashlib
import json
import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from autolora import variants as registered
from autolora.bases.capacity import bound
from autolora.errors import first_line
from autolora.search import Job
from autolora.search.rungs import own_examples
from autolora.space import FIELDS, Config, Space, searchable
from autolora.spec import Spec
from autolora.trainers import checkpoint, memory
from autolora.trainers.checkpoint import Manifest
from autolora.trainers.places import place
from autolora.trainers.randomness import LOADING, torch_seed
from autolora.trainers.trainer import OnStep, Outcome, Trainer
from autolora.trainers.transformers.checks import check_configs, check_variant
from autolora.trainers.transformers.exporting import export_trained
from autolora.trainers.transformers.facts import Facts, is_plain
from autolora.trainers.transformers.making import Made, Maker
from autolora.trainers.transformers.resident import Resident
from autolora.trainers.transformers.scoring import evaluated
from autolora.trainers.transformers.segment import Doing, Segment, adapter_of
from autolora.trainers.trial import Trial
from autolora.trainers.trials import Trials, scored
from autolora.trainers.watching import AnyLossWatch, ReportWatch
from autolora.variants import Variant, registry

if TYPE_CHECKING:
    import transformers

OPENING_RATE = 1e-4
"""Learning rate of the trainer that is made to look at it, and never trained."""


class TransformersTrainer(Trainer):
    """Trains segments with ``transformers.Trainer`` objects, one made for each.

    A subclass says in :meth:`make` how one is made. A callback stops it at the rung, on the full run's schedule, and
    autolora keeps the checkpoints that it writes. On a CPU a run that was cut anywhere equals an uncut one bit for bit,
    unless what it trains has a state that no checkpoint of its own holds: a data collator that draws random numbers,
    as for masked language models, since batches are collated ahead; a reference model that follows the trained one.

    Args:
        spec: of the study.
        folder: run directory.
    """

    def __init__(self, spec: Spec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.resident = Resident(torch_seed(spec.seed, 0, LOADING))
        self.trials = Trials(checkpoint.root_of(spec.checkpoints, folder), lambda: self.identity)
        self._maker = Maker(spec, self.make, self.resident)
        self._micro_batch: int | None = None
        self._doing = Doing()
        for reference in spec.variants:
            registered.resolve(reference)  # on a worker, those of other packages are not registered yet
        place(self.trials.root)  # what is wrong with it is said before the model is loaded

    @classmethod
    def open(cls, spec: Spec, folder: Path) -> TransformersTrainer:
        """Make a trainer once, to see what it trains; see :func:`autolora.trainers.open_trainer`."""
        opened = cls(spec, folder)
        bound(opened.facts.device, spec.memory_limit)
        return opened

    @abstractmethod
    def make(self, trial: Trial) -> transformers.Trainer:
        """The trainer of a trial, not trained yet. Python, NumPy and torch are seeded with ``trial.seed``.

        Raises:
            AutoloraError: it cannot be made.
        """

    def is_cross_entropy(self, trainer: transformers.Trainer) -> bool:
        """Whether the training loss is a mean cross-entropy, which starts above zero and falls where a model learns.

        Otherwise it tells of divergence only where it is not finite, or has grown a hundredfold. True for the loss of
        the model itself, unless that is a regression; not for trainers that compute one of their own.
        """
        from transformers import Trainer as Base

        config = getattr(trainer.model, "config", None)
        regression = getattr(config, "problem_type", None) == "regression" or getattr(config, "num_labels", 2) == 1
        own = type(trainer).compute_loss is not Base.compute_loss or trainer.compute_loss_func is not None
        return not own and not regression

    def cycle(self, trainer: transformers.Trainer) -> int:
        """Optimizer steps that belong together: a run can be cut after a multiple of them alone.

        They are counted from the begin of each epoch, at whose end a run can be cut, too. Segments then end at the next
        such step, and checkpoints are written and interruptions followed there. 1, unless the trainer's arguments have
        ``steps_per_generation``, as those of TRL's GRPO and RLOO: completions are generated for several steps, and
        trained on several times, and no checkpoint has them.
        """
        generated = getattr(trainer.args, "steps_per_generation", None)
        if generated is None:
            return 1
        accumulated = trainer.args.gradient_accumulation_steps
        cycle: int = math.lcm(generated * getattr(trainer.args, "num_iterations", 1), accumulated) // accumulated
        return cycle

    @cached_property
    def facts(self) -> Facts:
        """What a trainer tells that was made for the first variant, at the smallest batch size and rank."""
        variant = registry.get(self.spec.names[0])
        job = self._whole(0, variant.name, searchable.completed(self.spec.space, variant, self._opening(variant)))
        examples = self.spec.full_run()
        with (
            TemporaryDirectory(prefix="autolora-") as folder,
            self._maker.making(job, Path(folder), examples=examples) as made,
        ):
            return Facts.of(made, self.spec.full_run, self.resident.taken > 0)

    def _opening(self, variant: Variant) -> Config:
        """A configuration at the smallest batch size and rank."""
        space = self.spec.space
        corner = min(searchable.corners(space, variant), key=lambda config: config.rank)
        return Config(OPENING_RATE, min(space.batch_size), corner.rank, corner.alpha, corner.options)

    def _whole(self, trial: int, variant: str, config: Config, seed: int = 0) -> Job:
        """A full run."""
        last = len(self.spec.rungs) - 1
        length = self.spec.space.length(config)
        return Job(trial, variant, config, seed=seed, start=0.0, stop=1.0, rung=last, length=length)

    @property
    def examples(self) -> int:
        return self.facts.own_examples

    def examples_of(self, config: Config) -> int:
        """Training examples of a trial that is trained to its end."""
        return own_examples(self.examples, self.spec.space.length(config))

    def fingerprints(self) -> Mapping[str, str]:
        return {**self.facts.digests, "metric": self.spec.metric.name, "trainer": self.facts.kind}

    @cached_property
    def identity(self) -> str:
        """What a trial's training depends on beside the trial, as a digest."""
        facts = {
            **self.fingerprints(),
            "training": {**self.spec.training.identity(), "examples": self.examples},
            "seed": self.spec.seed,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def run(self, segment: Job, on_step: OnStep | None = None) -> Outcome:
        began = time.monotonic()
        while True:
            manifest, contents = self.trials.begun(segment, checkpoint.newest_files)
            if segment.rung in manifest.scores:  # committed before a crash, never reported
                return scored(segment, manifest)
            self._doing = Doing()
            try:
                return self._attempt(segment, manifest, contents, began, on_step)
            except (RuntimeError, MemoryError) as error:
                if not memory.out_of_memory(error):
                    raise
                reason = f"out of memory while {self._doing.what}: {first_line(error)}"
            memory.collected()
            smaller = self._smaller(segment)
            if smaller is None:
                seconds = manifest.seconds + time.monotonic() - began
                at = manifest.examples / self.examples_of(segment.config)
                return Outcome(segment.trial, "infeasible", None, at, reason, seconds, too_large=True)
            self._micro_batch = smaller

    def _smaller(self, segment: Job) -> int | None:
        """The micro-batch to try after memory ran out; None if there is none, or nobody would hear of it."""
        size = self._micro_batch or self.spec.training.micro_batch or segment.config.batch_size
        size = min(size, segment.config.batch_size)
        # How many rows are evaluated at once is the trainer's own: scores of batches averaged depend on it.
        return size // 2 if self._doing.heard and size > 1 else None

    def _attempt(
        self,
        job: Job,
        manifest: Manifest,
        contents: Mapping[str, bytes] | None,
        began: float,
        on_step: OnStep | None,
    ) -> Outcome:
        with self._made(job, contents) as made:
            watch = ReportWatch(job.config.batch_size) if self.is_cross_entropy(made.trainer) else AnyLossWatch()
            segment = Segment(
                spec=self.spec,
                job=job,
                made=made,
                manifest=manifest,
                contents=contents,
                location=self.trials.folder(job.trial),
                examples=self.examples_of(job.config),
                cycle=self.cycle(made.trainer),
                watch=watch,
                began=began,
                on_step=on_step,
            )
            return segment.run(self._doing)

    @contextmanager
    def _made(self, job: Job, contents: Mapping[str, bytes] | None) -> Iterator[Made]:
        folder = self.folder / checkpoint.TRIALS / str(job.trial)
        folder.mkdir(parents=True, exist_ok=True)
        with self._maker.making(
            job,
            folder.absolute(),
            examples=self.examples_of(job.config),
            epoch=self.facts.epoch,
            micro_batch=self._micro_batch,
            state=None if contents is None else adapter_of(contents),
        ) as made:
            self._doing.heard = made.asked
            yield made

    @contextmanager
    def _trained(self, trial: int) -> Iterator[Made]:
        """The trainer of a completed trial, with the model as it was trained."""
        manifest, contents = self._finished(trial)
        config = Config.of(**manifest.config)
        with self._made(self._whole(trial, manifest.variant, config, manifest.seed), contents) as made:
            made.load(adapter_of(contents))
            yield made

    def _finished(self, trial: int) -> tuple[Manifest, dict[str, bytes]]:
        last = len(self.spec.rungs) - 1

        def steps(manifest: Manifest) -> int:
            config = Config.of(**manifest.config)
            whole = self.facts.epoch.with_batch(config.batch_size).steps_of(self.examples_of(config))
            return manifest.step if last in manifest.scores else max(whole, manifest.step + 1)

        return self.trials.finished(trial, checkpoint.newest_files, steps)

    def verify(self, trial: int) -> None:
        self._finished(trial)

    def test(self, trial: int) -> float | None:
        """The score on the ``test_dataset`` of the trainer that was made, if it has an attribute of this name."""
        self._finished(trial)
        with self._trained(trial) as made:
            data = getattr(made.trainer, "test_dataset", None)
            return None if data is None else evaluated(made.trainer, self.spec.metric.name, data)

    def export(self, trial: int, folder: Path) -> None:
        with self._trained(trial) as made:
            export_trained(made, folder)

    def check(self, variants: Sequence[str], space: Space, baselines: Mapping[str, Config]) -> None:
        generating = [model for model in self.resident.models() if getattr(model, "can_generate", bool)()]
        base = generating[0] if self.facts.from_base and len(generating) == 1 else None
        for name in variants:
            variant = registry.get(name)
            check_variant(variant)
            configs = searchable.corners(space, variant)
            if name in baselines:
                configs.append(searchable.completed(space, variant, baselines[name]))
            check_configs(self.facts, variant, configs, self.spec, base)
        self._check_fields(space, variants[0])

    def _check_fields(self, space: Space, variant: str) -> None:
        """Make trainers with all values of fields that are searched, each of which is refused if it has another."""
        if not FIELDS.searched(space):
            return
        scope = searchable.scope(space, registry.get(variant))
        opening = searchable.completed(space, registry.get(variant), self._opening(registry.get(variant)))
        for values in FIELDS.covering(scope):
            job = self._whole(0, variant, opening.replaced(**{FIELDS.name: values}))
            with (
                TemporaryDirectory(prefix="autolora-") as folder,
                self._maker.making(job, Path(folder), examples=self.examples, epoch=self.facts.epoch),
            ):
                pass

    def standards(self, space: Space) -> Mapping[str, object]:
        """Defaults of ``transformers.TrainingArguments``."""
        from transformers import TrainingArguments

        found = {field.name: field.default for field in fields(TrainingArguments) if field.name in FIELDS.of(space)}
        return {name: getattr(value, "value", value) for name, value in found.items() if is_plain(value)}

    def about(self) -> Mapping[str, Sequence[str]]:
        off = self.facts.switched_off
        verb = "are" if len(off) > 1 else "is"
        line = (
            f"the trainer's {', '.join(off)} {verb} switched off: autolora evaluates and checkpoints at the rungs, and "
            "stops trials itself"
        )
        return {**self.facts.lines(), "warning": [*([line] if off else []), *self.resident.notes]}

    def hidden_size(self) -> int | None:
        return self.facts.hidden_size if self.spec.model is None else None

    def peak_memory(self) -> int | None:
        return memory.peak(self.facts.device)

    def set_aside(self) -> None:
        _ = self.identity
        self.resident.drop()
        memory.collected()
