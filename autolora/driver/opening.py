"""A specification turned into a search: the one place that translates between the two."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autolora import files, variants
from autolora.bases.pretrained import hidden_size, load_config
from autolora.driver.scouting import Scouted, recalled, scout
from autolora.priors import Prior
from autolora.search import Recorder, Search
from autolora.search.rungs import RUNGS
from autolora.space import Config, Range, Space
from autolora.spec import Spec, SpecError
from autolora.study.directory import STUDY_FILE, STUDY_NAME, begun_study, storage_of
from autolora.trainers import Trainer, horizon, open_trainer

UNUSUAL_RATE = 1.0
"""Learning rates above it are warned of."""


@dataclass(frozen=True)
class Opening:
    """What a study starts from: the specification with everything it names loaded and checked.

    Attributes:
        spec: as validated.
        space: of the specification, with the model's width.
        trainer: with model and data loaded.
    """

    spec: Spec
    space: Space
    trainer: Trainer

    @classmethod
    def of(cls, spec: Spec, folder: Path, study_in: Path | None = None) -> Opening:
        """Load model and data into a run directory, and check that what is searched can be trained.

        Args:
            spec: as validated.
            folder: run directory, or a temporary one.
            study_in: run directory of the study; None means ``folder``.

        Raises:
            AutoloraError: see :func:`autolora.trainers.open_trainer` and :meth:`autolora.trainers.Trainer.check`.
        """
        begun = look_ahead(spec, study_in or folder)
        trainer = open_trainer(spec, folder)
        space = fitting_space(resolved_space(spec), trainer.examples)
        baselines = baseline_of(spec, space)
        for name, config in baselines.items():
            if config.batch_size > trainer.examples:
                raise SpecError(f"baseline.batch_size of {name}: {_too_large([config.batch_size], trainer.examples)}")
        if not begun:
            check_rungs(spec.rungs, space.batch_size, trainer.examples)
        trainer.check(spec.names, space, baselines)
        return cls(spec, space, trainer)

    def scout(self) -> Scouted:
        """Gather the evidence that a new study's prior rests on; see :func:`autolora.driver.scouting.scout`."""
        return scout(self.spec, self.space, self.trainer)

    def prior(self, folder: Path, on_scouted: Callable[[Scouted], None]) -> Prior | None:
        """The prior that the study of a run directory was started with, or a new one if it has not begun.

        Args:
            folder: run directory; looking creates nothing there.
            on_scouted: told what was measured for a new prior.
        """
        study = begun_study(self.spec.storage, folder)
        if study is not None:
            return study.prior
        scouted = self.scout()
        on_scouted(scouted)
        return scouted.prior

    def search(self, prior: Prior | None, recorder: Recorder | None = None) -> Search:
        """The search of the specification; without a recorder, in memory and with no context to be held to."""
        spec = self.spec
        return Search(
            variants={name: variants.get(name) for name in spec.names},
            space=self.space,
            budget=spec.budget,
            rungs=spec.rungs,
            direction=spec.metric.resolved_direction,
            seed=spec.seed,
            prior=prior,
            confirm=spec.confirm,
            baseline=baseline_of(spec, self.space),
            examples=self.trainer.examples,
            in_steps=True,
            context=self.trainer.fingerprints() if recorder else None,
            recorder=recorder,
        )

    def recorder(self, folder: Path) -> Recorder:
        """The study of a run directory, as a recorder."""
        from autolora.study.recorder import StudyRecorder

        return StudyRecorder(storage_of(self.spec.storage, folder), STUDY_NAME)


def look_ahead(spec: Spec, folder: Path) -> bool:
    """Find what would fail later, before the model is loaded: the study, and the one that it starts from.

    Warns if the study is gone and its checkpoints are there.

    Returns:
        Whether the study has begun.

    Raises:
        AutoloraError: the storage cannot be used, the study is damaged, or ``prior.study`` cannot be read.
    """
    study = begun_study(spec.storage, folder)
    if study is not None:
        study.events()
        return True
    if spec.prior is not None and spec.prior.study is not None:
        recalled(files.expanded(spec.prior.study))
    trials = folder / "trials"
    _warn_of_rates(spec)
    if spec.storage is None and spec.checkpoints is None and trials.is_dir() and any(trials.iterdir()):
        warnings.warn(
            f"{files.shown(folder / STUDY_FILE)} is gone, or was never written, and {files.shown(trials)} holds "
            "checkpoints: the study is decided again, with the scores that they hold. Trials whose checkpoints were "
            "removed are trained again",
            stacklevel=2,
        )
    return False


def _warn_of_rates(spec: Spec) -> None:
    """Warn of learning rates at which no adapter is known to train."""
    rates = spec.space.learning_rates
    high = rates.high if isinstance(rates, Range) else max(rates)
    given = {"space.learning_rate": high, "baseline.learning_rate": spec.baseline.learning_rate if spec.baseline else 0}
    for key, rate in given.items():
        if rate > UNUSUAL_RATE:
            warnings.warn(f"{key}: {rate:g} is far above what adapters train at, usually below 0.1", stacklevel=2)


def resolved_space(spec: Spec) -> Space:
    """The space with the model's width filled in, which makes alpha's law analytic."""
    if spec.space.hidden_size is not None:
        return spec.space
    return spec.space.model_copy(update={"hidden_size": hidden_size(load_config(spec))})


def fitting_space(space: Space, examples: int) -> Space:
    """The space without batch sizes of more than a full run's training examples.

    Of the default ones they are left out, with a warning.

    Raises:
        SpecError: the user gave one.
    """
    large = [batch for batch in space.batch_size if batch > examples]
    if large and space.batch_size != Space().batch_size:
        raise SpecError(f"space.batch_size: {_too_large(large, examples)}")
    if large:
        fitting = [batch for batch in space.batch_size if batch <= examples] or [1 << examples.bit_length() - 1]
        warnings.warn(
            f"space.batch_size: of the default, {_listed(large)} is left out, as a full run has {examples} training "
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
        reached = [math.ceil(rung * steps) for rung in rungs]
        shared = [rung for rung, step, last in zip(rungs[1:], reached[1:], reached, strict=False) if step == last]
        if shared:
            names = _listed([f"{one:g}" for one in shared])
            warnings.warn(
                f"rungs: at batch size {batch}, with {steps} optimizer steps, {names} falls on the same step as the "
                "rung before, and is scored there again",
                stacklevel=2,
            )


def _too_large(batches: Sequence[int], examples: int) -> str:
    return (
        f"{_listed(batches)} is more than the {examples} training examples of a full run. Give at most {examples}, or "
        "raise training.examples"
    )


def _listed(batches: Sequence[object]) -> str:
    return ", ".join(map(str, batches))


def baseline_of(spec: Spec, space: Space) -> dict[str, Config]:
    """The user's baseline for every variant, in the resolved space; empty where there is none."""
    given = spec.baseline
    if given is None:
        return {}
    batch = given.batch_size or space.batch_size[0]
    config = spec.training.baseline(Config(given.learning_rate, batch, given.rank, given.alpha), space)
    return dict.fromkeys(spec.names, config)
