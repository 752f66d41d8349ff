"""A specification turned into a search: the one place that translates between the two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autolora import spec as specs
from autolora.errors import AutoloraError
from autolora.priors import Prior
from autolora.search import Search, brackets
from autolora.search.policy import Plan
from autolora.search.trials import TrialTable
from autolora.space import Config, Space
from autolora.spec import Spec
from autolora.training import model

SPEC_FILE, STUDY_FILE, STUDY_NAME = "spec.yaml", "study.db", "autolora"


class NoStudyError(AutoloraError, FileNotFoundError):
    """The folder is not a run directory."""


def resolved_space(spec: Spec) -> Space:
    """The space with the model's width filled in, which makes alpha's law analytic."""
    if spec.space.hidden_size is not None:
        return spec.space
    return spec.space.model_copy(update={"hidden_size": model.hidden_size(model.load_config(spec))})


def baseline_of(spec: Spec) -> dict[str, Config]:
    """The user's baseline for every variant; empty where there is none."""
    given = spec.baseline
    if given is None:
        return {}
    batch = given.batch_size or spec.space.batch_size[0]
    return {name: Config(given.learning_rate, batch, given.rank, given.alpha) for name in spec.variants}


def open_search(
    spec: Spec, space: Space, examples: int, storage: str | None, context: Mapping[str, str] | None = None
) -> Search:
    """The search of a specification over the study in ``storage`` (None: in memory).

    ``context`` names what scores depend on besides the configuration: model, data, metric.
    """
    return Search(
        variants=spec.variants,
        space=space,
        budget=spec.budget,
        rungs=spec.rungs,
        direction=spec.metric.resolved_direction,
        seed=spec.seed,
        prior=prior_of(spec, space, examples),
        confirm=spec.confirm,
        storage=storage,
        baseline=baseline_of(spec),
        name=STUDY_NAME,
        examples=examples,
        context=context,
    )


def prior_of(spec: Spec, space: Space, examples: int | None) -> Prior | None:
    """The prior of a specification for full runs of this many examples."""
    return Prior.from_laws(space.hidden_size, examples) if spec.prior else None


def storage_url(storage: str | None, folder: Path) -> str:
    """The storage named, or SQLite in the run directory."""
    return storage or f"sqlite:///{folder / STUDY_FILE}"


def read_study(folder: Path) -> tuple[TrialTable, Plan]:
    """Trial table and plan of a run directory, running or not, without its lock.

    Raises:
        NoStudyError: nothing was started there.
    """
    from autolora.study import Study

    if not (folder / SPEC_FILE).is_file():
        raise NoStudyError(f"{folder} is not a run directory: it holds no {SPEC_FILE}")
    spec = specs.read_recorded(folder / SPEC_FILE)
    if spec["storage"] is None and not (folder / STUDY_FILE).is_file():
        raise NoStudyError(f"{folder} holds no study yet: {STUDY_FILE} is not there")
    study = Study.read(storage_url(spec["storage"], folder), STUDY_NAME)
    rungs = tuple(study.terms["rungs"])
    budget = float(spec["budget"])
    confirm = brackets.confirmation_seeds(budget) if spec["confirm"] == "auto" else int(spec["confirm"])
    table = TrialTable(rungs, study.direction, study.events())
    return table, Plan(tuple(study.terms["variants"]), rungs, budget, confirm)
