"""What all trials of a process share: the resident base, the rows, the evaluation, the settings of a full run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from autolora import bases, variants
from autolora.adapters import factors
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.store import Store
from autolora.bases import Base
from autolora.bases.capacity import bound
from autolora.bases.compiling import check_compiling
from autolora.metrics import ReportedSpec
from autolora.metrics.own import find as find_metric
from autolora.search import Job
from autolora.search.rungs import examples_seen, horizon, own_examples
from autolora.space import FIELDS, Config, Named, Space
from autolora.space.dimension import UNSET
from autolora.space.field import shown
from autolora.spec import Spec, TrainingSpec
from autolora.tasks.causal_lm.limits import Limits
from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.split import PreparedData, Split
from autolora.trainers import checkpoint
from autolora.trainers.builtin import subsets
from autolora.trainers.builtin.batches import Batches
from autolora.trainers.builtin.evaluation import Evaluator
from autolora.trainers.builtin.room import Room
from autolora.trainers.places import Location, place
from autolora.trainers.randomness import EVALUATION, INITIALIZATION, generator, torch_seed
from autolora.trainers.trials import Trials

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from autolora.adapters.targets import Coverage
    from autolora.variants import Variant

ROOM = "room.json"
"""What the device was found to have room for, in the run directory."""
FACTORS = "factors"
"""Folder of factorizations in the run directory, which all workers that see it share."""


@dataclass
class Workbench:
    """The parts of a trainer; holds nothing of any one trial between calls.

    Attributes:
        base: the resident model and tokenizer; they may be set aside until an adapter is attached.
        data: tokenized splits.
        batches: of the training split.
        evaluator: scores adapters.
        reporters: evaluators of further metrics that are reported and do not steer, by name.
        reported: what is reported beside the score.
        adapter: which layers carry an adapter, but for trials that say otherwise; see :meth:`adapter_of`.
        training: settings of a full run, those resolved that the specification leaves to the data.
        examples: training examples of a full run.
        space: what is searched, as the specification has it.
        seed: of the study.
        rungs: fractions of a full run at which trials are scored.
        scored_rows: evaluation rows that each rung is scored on.
        checkpoints: path or URL beneath which trial ``n`` keeps its checkpoints in ``trials/n``.
        room: what the device has room for.
        store: factorizations of the base's weights, in the run directory.
        most: bytes that a trial may take, by ``max_memory``; None means as many as there are.
    """

    base: Base
    data: PreparedData
    batches: Batches
    evaluator: Evaluator
    reporters: Mapping[str, Evaluator]
    reported: tuple[ReportedSpec, ...]
    adapter: AdapterSpec
    training: TrainingSpec
    examples: int
    space: Space
    seed: int
    rungs: tuple[float, ...]
    scored_rows: tuple[int, ...]
    checkpoints: Location
    room: Room
    store: Store
    most: int | None = None
    _coverages: dict[AdapterSpec, Coverage] = field(default_factory=dict)

    @classmethod
    def open(cls, spec: Spec, folder: Path) -> Workbench:
        """Load the model and the data of a specification; see :func:`autolora.trainers.open_trainer`."""
        for reference in spec.variants:
            variants.resolve(reference)  # on a worker, those of other packages are not registered yet
        # What is wrong with these is said before the model is loaded.
        place(checkpoint.root_of(spec.checkpoints, folder))
        for metric in (spec.metric, *_scored(spec)):
            find_metric(metric)
        base = bases.load(spec)
        return cls.of(spec, folder, base, prepare_data(spec, base.tokenizer, folder / "data", base.limits))

    @classmethod
    def of(cls, spec: Spec, folder: Path, base: Base, data: PreparedData) -> Workbench:
        """The workbench of a specification whose model and data have been loaded.

        Raises:
            MetricError: the metric is not there, or the data lack what it needs.
            ModelError: memory runs out while the metric is tried, or the model cannot be compiled as it is asked for.
        """
        bound(base.device, spec.memory_limit)
        if spec.training.compile:
            check_compiling(base.model, base.device)
        with base.memory_for(f"trying the metric {spec.metric.name}"):
            evaluator = Evaluator.of(base, spec.metric, data)
            reporters = {each.name: Evaluator.of(base, each, data) for each in _scored(spec)}
        examples = spec.full_run(len(data.train)) or len(data.train)
        share = subsets.share_of_run(
            evaluated=int(data.eval.lengths.sum()),
            generated=evaluator.generated_tokens(data.eval),
            trained=examples * float(data.train.lengths.mean()),
        )
        return cls(
            base=base,
            data=data,
            batches=Batches(data.train, base, spec.seed, spec.training.micro_batch),
            evaluator=evaluator,
            reporters=reporters,
            reported=spec.metrics,
            adapter=_expected(spec),
            training=spec.training.model_copy(update={"max_length": data.report.max_length}),
            examples=examples,
            space=spec.space,
            seed=spec.seed,
            rungs=spec.rungs,
            scored_rows=subsets.rows_of_rungs(spec.evaluation.subset, spec.rungs, len(data.eval), share),
            checkpoints=checkpoint.root_of(spec.checkpoints, folder),
            room=Room(
                base,
                int(data.train.lengths.max()),
                spec.training.gradient_checkpointing,
                folder / ROOM,
                most=spec.memory_limit,
            ),
            store=Store(folder / FACTORS),
            most=spec.memory_limit,
        )

    @cached_property
    def accelerator(self) -> Accelerator:
        from accelerate import Accelerator

        # Its own mixed precision is fixed once a process; ours goes with the base, see Base.autocast.
        return Accelerator(cpu=self.base.device.type == "cpu")

    def fingerprints(self) -> dict[str, str]:
        """What scores depend on: model, data, metric, rows and layers; the same on every device and in every dtype.

        Rows are left out where each rung is scored on all of them, and layers where they are all linear ones but the
        output head, as in all studies of earlier versions.
        """
        from autolora.adapters.targets import every_linear_layer

        layers = list(self.coverage.layers)
        usual = layers == every_linear_layer(self.base.model)
        return {
            "model": self.base.fingerprint(),
            "data": self.data.fingerprint,
            "metric": self.evaluator.spec.name,
            **({"rows": ", ".join(map(str, self.scored_rows))} if len(set(self.scored_rows)) > 1 else {}),
            **({} if usual else {"layers": hashlib.sha256(" ".join(layers).encode()).hexdigest()[:16]}),
        }

    @cached_property
    def coverage(self) -> Coverage:
        """Which layers carry an adapter, and why the others carry none."""
        return self.coverage_of(self.adapter)

    def coverage_of(self, adapter: AdapterSpec) -> Coverage:
        """As :attr:`coverage`, of another section; raises ``VariantError`` if it names what is not there."""
        from autolora.adapters.targets import survey

        if adapter not in self._coverages:
            self._coverages[adapter] = survey(self.base.model, adapter)
        return self._coverages[adapter]

    def adapter_of(self, config: Config) -> AdapterSpec:
        """Which layers carry an adapter in a trial."""
        return self.adapter.of_trial(config)

    def layers_in_words(self, config: Config) -> str:
        """Which layers carry an adapter in a trial, where that is searched: ", target_modules q_proj+v_proj"."""
        named = [(name, value) for name, value in config.value(FIELDS.name) or () if name in AdapterSpec.model_fields]
        return "".join(f", {name} {shown(value)}" for name, value in named)

    @cached_property
    def identity(self) -> str:
        """What a trial's training depends on beside the trial, as a digest."""
        facts = {**self.fingerprints(), "training": self.training.identity(), "seed": self.seed}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def evaluated(self, job: Job) -> Split:
        """The evaluation rows that a segment is scored on: all at full length. Before, they are the same for all trials
        of a rung, and among those of the next rung.
        """
        rows = len(self.data.eval)
        count = rows if job.stop == 1.0 else self.scored_rows[job.rung]
        if count == rows:
            return self.data.eval
        return self.data.eval.of(subsets.chosen(generator(self.seed, 0, EVALUATION), count, rows))

    def examples_of(self, config: Config) -> int:
        """Training examples of a trial that is trained to its end."""
        return own_examples(self.examples, self.space.length(config))

    def steps(self, config: Config) -> int:
        """Optimizer steps of a trial that is trained to its end: its horizon."""
        return horizon(self.examples_of(config), config.batch_size)

    def seen(self, steps: int, config: Config) -> int:
        """Training examples of the first optimizer steps of a trial."""
        return examples_seen(steps, self.examples_of(config), config.batch_size)

    @cached_property
    def trials(self) -> Trials:
        """Their checkpoints."""
        return Trials(self.checkpoints, lambda: self.identity)

    def trial_folder(self, trial: int) -> Location:
        return self.trials.folder(trial)

    @staticmethod
    def variant(name: str, config: Config) -> Variant:
        """The variant with its own hyperparameters as the configuration has them."""
        return variants.get(name).configured(**dict(config.options))

    @contextmanager
    def attached(
        self, variant_name: str, config: Config, seed: int, state: Mapping[str, torch.Tensor] | None = None
    ) -> Iterator[PeftModel]:
        """The base with a fresh adapter of the variant, or with one in this state; it is itself again afterwards.

        Its forward passes are taken under :meth:`autolora.bases.Base.autocast`.
        """
        from autolora.adapters.attachment import attachment
        from autolora.adapters.kernels.branch import take_half
        from autolora.adapters.state import allotment, load_adapter_state

        self.base.recall()
        variant = self.variant(variant_name, config)
        with factors.kept_in(self.base.model, self.store):
            adapted = variant.attach(
                self.base.model,
                rank=config.rank,
                alpha=config.alpha,
                batches=self.batches.calibration if variant.needs_batches else None,
                horizon=self.steps(config),
                seed=torch_seed(self.seed, seed, INITIALIZATION),
                dropout=self.training.of_trial(config).dropout,
                allotted=None if state is None else allotment(state),
                adapter=self.adapter_of(config),
            )
        try:
            if state is not None:
                load_adapter_state(adapted, state)
            if self.base.in_half:
                take_half(attachment(adapted).layers.values())
            yield adapted
        finally:
            variants.detach(adapted)

    def optimizer(self, variant: Variant, adapted: PeftModel, config: Config) -> torch.optim.Optimizer:
        """The optimizer of a trial."""
        training = self.training.of_trial(config)
        return variant.trained_by(adapted, config.learning_rate, training.weight_decay, training.optimized)

    @contextmanager
    def trained(self, trial: int) -> Iterator[tuple[Variant, PeftModel]]:
        """The variant of a completed trial, and the base with the adapter that it has trained.

        Raises:
            LostCheckpointError: see :meth:`finished`.
        """
        manifest, state = self.finished(trial)
        config = Config.of(**manifest.config)
        with self.attached(manifest.variant, config, manifest.seed, state["adapter"]) as adapted:
            yield self.variant(manifest.variant, config), adapted

    def finished(self, trial: int) -> tuple[checkpoint.Manifest, checkpoint.State]:
        """The last checkpoint of a completed trial.

        Raises:
            LostCheckpointError, CheckpointError: see :meth:`autolora.trainers.trials.Trials.finished`.
        """
        return self.trials.finished(trial, checkpoint.newest, lambda manifest: self.steps(Config.of(**manifest.config)))


def _expected(spec: Spec) -> AdapterSpec:
    """The section of a specification with what is expected to be best, where that is searched."""
    fields = FIELDS.informed(spec.space, spec.trainer.fields_of(dict(spec))) or {}
    return spec.adapter.of_trial(
        UNSET.replaced(fields=Named.of({name: each.mode for name, each in fields.items() if not each.when}))
    )


def _scored(spec: Spec) -> list[ReportedSpec]:
    """Further metrics that adapters are scored by."""
    return [each for each in spec.metrics if each.scores]


def prepare_data(
    spec: Spec,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> PreparedData:
    """The tokenized splits of a specification, kept in the folder ``cache``, for a model with these limits."""
    assert spec.data is not None
    return prepare(
        spec.data,
        tokenizer,
        max_length=spec.training.max_length,
        examples=spec.full_run(),
        seed=spec.seed,
        cache_dir=cache,
        whole_rows=any(metric.needs_columns for metric in (spec.metric, *_scored(spec))),
        limits=limits,
    )
