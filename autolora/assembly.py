"""A specification turned into a search: the one place that translates between the two."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora import options
from autolora import spec as specs
from autolora.errors import AutoloraError
from autolora.priors import Prior
from autolora.search import Search
from autolora.search.policy import Plan, seeds_kept
from autolora.search.trials import TrialTable
from autolora.space import Config, Options, Space
from autolora.spec import Spec
from autolora.training import model

if TYPE_CHECKING:
    from autolora.study import Study

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


def check_variants(spec: Spec, space: Space, base: Any) -> None:
    """Say before anything is measured or trained what a variant cannot be trained with.

    Raises:
        VariantError: naming the variant, the layer or the setting.
    """
    from autolora.variants.targets import linear_layers

    layers = linear_layers(base)
    for name in spec.variants:
        for rank, values in _attached(spec, space, name):
            options.configured(name, values).check(base, layers, rank, spec.training.dropout)


def _attached(spec: Spec, space: Space, name: str) -> list[tuple[int, Options]]:
    """Every rank of a variant with every setting of its options, the baseline's included."""
    settings = set(product(space.rank, space.combinations(name)))
    baseline = baseline_of(spec).get(name)
    if baseline is not None:
        own = options.completed(space, name, baseline)
        settings.add((own.rank, own.options))
    return sorted(settings)


def open_search(
    spec: Spec,
    space: Space,
    examples: int,
    prior: Prior | None,
    storage: str | None,
    context: Mapping[str, str] | None = None,
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
        prior=prior,
        confirm=spec.confirm,
        storage=storage,
        baseline=baseline_of(spec),
        name=STUDY_NAME,
        examples=examples,
        context=context,
    )


def storage_url(storage: str | None, folder: Path) -> str:
    """The storage named, or SQLite in the run directory."""
    return storage or f"sqlite:///{folder / STUDY_FILE}"


def begun_study(spec: Spec, folder: Path) -> Study | None:
    """The study of a run directory, or None where it has not begun; looking creates nothing in the directory."""
    from autolora.study import Study

    if spec.storage is None and not (folder / STUDY_FILE).is_file():
        return None
    return Study.find(storage_url(spec.storage, folder), STUDY_NAME)


def read_study(folder: Path) -> tuple[TrialTable, Plan]:
    """Trial table and plan of a run directory, running or not, without its lock.

    Raises:
        NoStudyError: nothing was started there.
    """
    spec, study = _study_of(folder)
    rungs, names = tuple(study.terms["rungs"]), tuple(study.terms["variants"])
    budget = float(spec["budget"])
    prior = study.prior
    table = TrialTable(rungs, study.direction, study.events(), prior.share(len(names)) if prior else 0.0)
    return table, Plan(names, rungs, budget, seeds_kept(spec["confirm"], budget))


def read_terms(folder: Path) -> Mapping[str, Any]:
    """The terms that the study of a run directory was started on; see :class:`autolora.study.Study`.

    Raises:
        NoStudyError: nothing was started there.
    """
    return _study_of(folder)[1].terms


def _study_of(folder: Path) -> tuple[dict[str, Any], Study]:
    """The recorded specification of a run directory, and its study."""
    from autolora.study import Study

    if not (folder / SPEC_FILE).is_file():
        raise NoStudyError(f"{folder} is not a run directory: it holds no {SPEC_FILE}")
    spec = specs.read_recorded(folder / SPEC_FILE)
    if spec["storage"] is None and not (folder / STUDY_FILE).is_file():
        raise NoStudyError(f"{folder} holds no study yet: {STUDY_FILE} is not there")
    return spec, Study.read(storage_url(spec["storage"], folder), STUDY_NAME)
