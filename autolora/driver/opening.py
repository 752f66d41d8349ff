"""A specification turned into a search: the one place that translates between the two."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora import files, variants
from autolora.bases.pretrained import hidden_size, load_config
from autolora.driver.limits import check_baselines, check_rungs, fitting_space, warn_of_rates
from autolora.driver.scouting import Scouted, recalled, scout
from autolora.priors import Prior
from autolora.search import Recorder, Search
from autolora.space import FIELDS, Config, Space, registry
from autolora.spec import Spec
from autolora.study.directory import STUDY_FILE, STUDY_NAME, begun_study, storage_of
from autolora.study.storage import OtherTermsError
from autolora.trainers import Trainer, open_trainer, warn_of_unused

if TYPE_CHECKING:
    from autolora.study.study import Study


@dataclass(frozen=True)
class Opening:
    """What a study starts from: the specification with everything it names loaded and checked.

    Attributes:
        spec: as validated, with the rows settled that rungs are scored on.
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
        if begun is None:
            warn_of_unused(spec)
        trainer = open_trainer(spec, folder)
        spec = spec.model_copy(update={"evaluation": spec.evaluation.settled(trainer.scored_rows())})
        space = resolved_space(spec, trainer)
        # Earlier versions took batches larger than a run, and what they began goes on as it is.
        if begun is None or begun.terms["space"]["batch_size"] != space.batch_size:
            space = fitting_space(space, trainer.examples)
        baselines = baseline_of(spec, space, trainer)
        if begun is None:
            check_baselines(baselines, trainer.examples)
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
        """The search of the specification; without a recorder, in memory and with no context to be held to.

        Raises:
            OtherTermsError: the recorder's study was made on other terms.
        """
        spec = self.spec
        try:
            return Search(
                variants={name: variants.get(name) for name in spec.names},
                space=self.space,
                budget=spec.budget,
                rungs=spec.rungs,
                direction=spec.metric.resolved_direction,
                seed=spec.seed,
                prior=prior,
                confirm=spec.confirm,
                baseline=baseline_of(spec, self.space, self.trainer),
                examples=self.trainer.examples,
                in_steps=True,
                scored_rows=self.trainer.scored_rows(),
                too_large=self.trainer.too_large(spec.names, self.space),
                context=self.trainer.fingerprints() if recorder else None,
                recorder=recorder,
            )
        except OtherTermsError as error:
            file = spec.trainer.settings_file
            if file is None:
                raise
            raise OtherTermsError(
                f"{error}. trainer: {files.shown(file)} says the baseline and more of these terms: undo what has "
                "changed there, or use another --dir"
            ) from None

    def recorder(self, folder: Path) -> Recorder:
        """The study of a run directory, as a recorder."""
        from autolora.study.recorder import StudyRecorder

        return StudyRecorder(storage_of(self.spec.storage, folder), STUDY_NAME)


def look_ahead(spec: Spec, folder: Path) -> Study | None:
    """Find what would fail later, before the model is loaded: the study, and the one that it starts from.

    Warns if the study is gone and its checkpoints are there.

    Returns:
        The study; None if it has not begun.

    Raises:
        AutoloraError: the storage cannot be used, the study is damaged, or ``prior.study`` cannot be read.
    """
    study = begun_study(spec.storage, folder)
    if study is not None:
        study.events()
        return study
    if spec.prior is not None and spec.prior.study is not None:
        recalled(files.expanded(spec.prior.study))
    trials = folder / "trials"
    warn_of_rates(spec)
    if spec.storage is None and spec.checkpoints is None and trials.is_dir() and any(trials.iterdir()):
        warnings.warn(
            f"{files.shown(folder / STUDY_FILE)} is gone, or was never written, and {files.shown(trials)} holds "
            "checkpoints: the study is decided again, with the scores that they hold. Trials whose checkpoints were "
            "removed are trained again",
            stacklevel=2,
        )
    return None


def resolved_space(spec: Spec, trainer: Trainer | None = None) -> Space:
    """The space with what is known of the model and of the trainer: the width, which makes alpha's law analytic, and
    what is done if nothing is said of a field, which is where its search starts.
    """
    return _with_width(_with_standards(spec, trainer), spec, trainer)


def _with_standards(spec: Spec, trainer: Trainer | None) -> Space:
    space = spec.space
    if not FIELDS.searched(space):
        return space
    found = {**spec.trainer.fields_of(dict(spec)), **({} if trainer is None else trainer.standards(space))}
    return space.model_copy(update={FIELDS.name: FIELDS.informed(space, found)})


def _with_width(space: Space, spec: Spec, trainer: Trainer | None) -> Space:
    if space.hidden_size is not None:
        return space
    own = None if trainer is None else trainer.hidden_size()
    width = hidden_size(load_config(spec)) if own is None and spec.model is not None else own
    return space.model_copy(update={"hidden_size": width})


def baseline_of(spec: Spec, space: Space, trainer: Trainer | None = None) -> dict[str, Config]:
    """The user's baseline for every variant, in the resolved space; empty where there is none.

    Args:
        spec: whose baseline wins.
        space: resolved.
        trainer: whose own settings are a baseline otherwise.
    """
    given, further = spec.baseline, dict[str, Any]()
    if given is not None:
        config = Config(given.learning_rate, given.batch_size or space.batch_size[0], given.rank, given.alpha)
    else:
        found = None if trainer is None else trainer.baseline()
        if found is None:
            return {}
        searched = {dimension.name for dimension in registry() if dimension.searched(space)}
        further = {name: value for name, value in found.further if name in searched}
        config = replace(found, further=())
    if FIELDS.searched(space):
        further = {**further, FIELDS.name: FIELDS.standing(space)}
    config = spec.training.baseline(config, space)
    return dict.fromkeys(spec.names, config.replaced(**further) if further else config)
