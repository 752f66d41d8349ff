"""A specification turned into a search: the one place that translates between the two."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autolora import variants
from autolora.bases.pretrained import hidden_size, load_config
from autolora.driver.scouting import Scouted, scout
from autolora.priors import Prior
from autolora.search import Recorder, Search
from autolora.space import Config, Space
from autolora.spec import Spec, SpecError
from autolora.study.directory import STUDY_NAME, begun_study, storage_of
from autolora.trainers import Trainer, open_trainer


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
    def of(cls, spec: Spec, folder: Path) -> Opening:
        """Load model and data into a run directory, and check that what is searched can be trained.

        Raises:
            AutoloraError: see :func:`autolora.trainers.open_trainer` and :meth:`autolora.trainers.Trainer.check`.
        """
        trainer = open_trainer(spec, folder)
        space = fitting_space(resolved_space(spec), trainer.examples)
        baselines = baseline_of(spec, space)
        for name, config in baselines.items():
            if config.batch_size > trainer.examples:
                raise SpecError(f"baseline.batch_size of {name}: {_too_large([config.batch_size], trainer.examples)}")
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


def _too_large(batches: Sequence[int], examples: int) -> str:
    return (
        f"{_listed(batches)} is more than the {examples} training examples of a full run. Give at most {examples}, or "
        "raise training.examples"
    )


def _listed(batches: Sequence[int]) -> str:
    return ", ".join(map(str, batches))


def baseline_of(spec: Spec, space: Space) -> dict[str, Config]:
    """The user's baseline for every variant, in the resolved space; empty where there is none."""
    given = spec.baseline
    if given is None:
        return {}
    batch = given.batch_size or space.batch_size[0]
    config = spec.training.baseline(Config(given.learning_rate, batch, given.rank, given.alpha), space)
    return dict.fromkeys(spec.names, config)
