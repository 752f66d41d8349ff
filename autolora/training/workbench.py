"""What all trials of a process share: the resident base, the tokenized data, the settings of a full run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autolora import variants
from autolora.scores import Scores
from autolora.space import Config
from autolora.spec import MetricSpec, Spec, TrainingSpec, mutable_in
from autolora.training import checkpoint, evaluate, model
from autolora.training.data import PreparedData, Split, prepare
from autolora.training.memory import halved, out_of_memory
from autolora.training.places import CheckpointError, Location, place

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from autolora.variants import Variant

ORDER, INITIALIZATION, STEP = 1, 2, 3
"""Purposes of randomness within a training."""

ORDERS_KEPT = 4
"""Epochs whose order is kept in memory; any other is drawn again when it is needed."""

CALIBRATION_EXAMPLES, CALIBRATION_BATCH = 32, 8
"""Training examples given to variants that look at gradients or activations before they start."""


@dataclass
class Workbench:
    """Trains, evaluates and exports trials; holds nothing of any one trial between calls.

    Attributes:
        base: the resident model and tokenizer.
        data: tokenized splits.
        training: settings of a full run.
        metric: what is scored.
        seed: of the study.
        folder: run directory.
        checkpoints: path or URL beneath which trial ``n`` keeps its checkpoints in ``trials/n``; by default ``folder``.
        micro_batch_limit: most examples that were found to fit in one forward pass, once memory has run out.
    """

    base: model.Base
    data: PreparedData
    training: TrainingSpec
    metric: MetricSpec
    seed: int
    folder: Path
    checkpoints: Location = None  # type: ignore[assignment]  # never None once it is made
    micro_batch_limit: int | None = field(default=None)

    @classmethod
    def open(cls, spec: Spec, folder: Path) -> Workbench:
        """Load the model and the data of a specification.

        Raises:
            CheckpointError: nothing serves the URL of its checkpoints.
        """
        assert spec.names  # registers, on a worker, the variants of other packages
        checkpoints = checkpoint.root_of(spec.checkpoints, folder)
        place(checkpoints)  # one that nothing serves is an error before anything is loaded
        base = model.load(spec)
        data = prepare_data(spec, base.tokenizer, folder)
        return cls(
            base=base,
            data=data,
            training=spec.training,
            metric=spec.metric,
            seed=spec.seed,
            folder=folder,
            checkpoints=checkpoints,
        )

    def __post_init__(self) -> None:
        self.checkpoints = self.checkpoints or self.folder
        self._measure = evaluate.load_metric(self.metric)  # a metric that is not there is an error before training
        self._permutations: dict[tuple[int, int], np.ndarray] = {}

    @cached_property
    def accelerator(self) -> Any:
        from accelerate import Accelerator

        # Its own mixed precision is fixed once a process; ours goes with the base, see autocast.
        return Accelerator(cpu=self.base.device.type == "cpu")

    def autocast(self) -> Any:
        """Context of a forward pass: bfloat16 where the base is, so that adapters in float32 cost no more."""
        import torch

        return torch.autocast(self.base.device.type, torch.bfloat16, enabled=self.base.dtype == torch.bfloat16)

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """The base on the CPU for a while, so that a worker on the same machine has all of its device."""
        import torch

        if self.base.device.type == "cpu":
            yield
            return
        self.base.model.to("cpu")
        if self.base.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            yield
        finally:
            self.base.model.to(self.base.device)

    def fingerprints(self) -> dict[str, str]:
        """Model, data and metric, as far as scores depend on them; the same on every device and in every dtype."""
        import torch

        digest = hashlib.sha256()
        for name, parameter in sorted(self.base.model.named_parameters()):
            sample = parameter.detach().flatten()[:16].to(torch.bfloat16).float().cpu()
            digest.update(f"{name} {tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
        return {"model": digest.hexdigest()[:16], "data": self.data.fingerprint, "metric": self.metric.name}

    @cached_property
    def identity(self) -> str:
        """What a trial's training depends on beside the trial, as a digest."""
        training = self.training.model_dump(exclude=mutable_in("training"))
        facts = {**self.fingerprints(), "training": training, "seed": self.seed}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def examples(self) -> int:
        """Training examples of a full run."""
        return self.training.examples or len(self.data.train)

    def steps(self, batch_size: int) -> int:
        """Optimizer steps of a full run: its horizon."""
        return max(1, math.ceil(self.examples / batch_size))

    def trial_folder(self, trial: int) -> Location:
        return checkpoint.trial_folder(self.checkpoints, trial)

    def rng(self, seed: int, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, seed, *purpose])

    def batch_rows(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """Rows of the training split in optimizer step ``step`` (0-based): the same order for every configuration.

        The order is an endless sequence of permutations, a function of the seed alone, so a resumed run needs no
        stored position and trials of equal seed see the same examples in the same order.
        """
        rows = len(self.data.train)
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        chosen = np.empty(batch_size, dtype=np.int64)
        for epoch in np.unique(places // rows):
            inside = places // rows == epoch
            chosen[inside] = self._permutation(seed, int(epoch))[places[inside] % rows]
        return chosen

    def _permutation(self, seed: int, epoch: int) -> np.ndarray:
        if (seed, epoch) not in self._permutations:
            if len(self._permutations) >= ORDERS_KEPT:
                self._permutations.clear()
            self._permutations[seed, epoch] = self.rng(seed, ORDER, epoch).permutation(len(self.data.train))
        return self._permutations[seed, epoch]

    @cached_property
    def calibration_batches(self) -> list[dict[str, torch.Tensor]]:
        """A fixed sample of training examples, the same for every trial of the study, in micro-batches."""
        count = min(CALIBRATION_EXAMPLES, len(self.data.train))
        rows = self.rng(0, ORDER, 0).permutation(len(self.data.train))[:count]
        size = min(CALIBRATION_BATCH, self.training.micro_batch or CALIBRATION_BATCH)
        batches = (self.data.train.batch(rows[i : i + size], self.base.pad_token_id) for i in range(0, count, size))
        return [{name: tensor.to(self.base.device) for name, tensor in batch.items()} for batch in batches]

    @staticmethod
    def variant(name: str, config: Config) -> Variant:
        """The variant with its own hyperparameters as the configuration has them."""
        return variants.get(name).configured(**dict(config.options))

    @contextmanager
    def attached(
        self, variant_name: str, config: Config, seed: int, state: Mapping[str, torch.Tensor] | None = None
    ) -> Iterator[PeftModel]:
        """The base with a fresh adapter of the variant, or with one in this state; it is itself again afterwards."""
        from autolora.adapters.state import allotment, load_adapter_state

        variant = self.variant(variant_name, config)
        adapted = variant.attach(
            self.base.model,
            rank=config.rank,
            alpha=config.alpha,
            batches=self.calibration_batches if variant.needs_batches else None,
            horizon=self.steps(config.batch_size),
            seed=int(self.rng(seed, INITIALIZATION).integers(2**31)),
            dropout=self.training.of_trial(config).dropout,
            allotted=None if state is None else allotment(state),
        )
        try:
            if state is not None:
                load_adapter_state(adapted, state)
            yield adapted
        finally:
            variants.detach(adapted)

    @contextmanager
    def trained(self, trial: int) -> Iterator[PeftModel]:
        """The base with the adapter of a trial's newest checkpoint.

        Raises:
            CheckpointError: the trial has no checkpoint that is whole, or its weights have been shed.
        """
        folder = self.trial_folder(trial)
        found = checkpoint.newest(folder)
        if found is None:
            known = checkpoint.read_manifest(folder)
            if known is not None and not known.files:
                raise CheckpointError(
                    f"the weights of trial {trial} were removed from {folder}, since others of its variant are better: "
                    "`keep` says of how many completed trials they stay"
                )
            raise CheckpointError(f"no intact checkpoint in {folder}")
        manifest, state = found
        with self.attached(manifest.variant, Config.of(**manifest.config), manifest.seed, state["adapter"]) as adapted:
            yield adapted

    def evaluate(self, adapted: PeftModel, split: Split) -> float:
        """The metric of the study on a split."""
        return self.scores(adapted, split).value

    def scores(self, adapted: PeftModel, split: Split) -> Scores:
        """The metric with what each row contributes to it; the batch halves when memory runs out."""
        import torch

        training, batch_size = adapted.training, evaluate.EVAL_BATCH
        adapted.eval()
        try:
            while True:
                view = evaluate.Evaluation(adapted, self.base, split, self.metric, self.autocast, batch_size)
                try:
                    with torch.no_grad():
                        return self._measure(view)
                except (RuntimeError, MemoryError) as error:
                    if batch_size == 1 or not out_of_memory(error):
                        raise
                batch_size = halved(batch_size)
        finally:
            adapted.train(training)


def prepare_data(spec: Spec, tokenizer: Any, folder: Path) -> PreparedData:
    """The tokenized splits of a specification, cached in the run directory."""
    return prepare(
        spec.data,
        tokenizer,
        max_length=spec.training.max_length,
        examples=spec.training.examples,
        seed=spec.seed,
        cache_dir=folder / "data",
    )
