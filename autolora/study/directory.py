"""A run directory as it is read: the recorded specification, and the study.

Nothing here validates the specification, so a directory can be read where its model and data are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from autolora import files
from autolora.documents import read_yaml, shaped
from autolora.errors import AutoloraError
from autolora.files import Document
from autolora.search.policy import Plan, seeds_kept
from autolora.search.sampler import Sampler
from autolora.search.trials import TrialTable
from autolora.space import Searchable
from autolora.study.storage import Storage

if TYPE_CHECKING:
    from autolora.study.study import Study

SPEC_FILE, STUDY_FILE, STUDY_NAME = "spec.yaml", "study.db", "autolora"


class _RecordedData(BaseModel):
    train: str | list[str]
    eval: str | list[str] | None = None
    test: str | list[str] | None = None
    prompt: str | None = None
    completion: str | None = None

    model_config = ConfigDict(strict=True)


class _Recorded(BaseModel):
    """What is read of a recorded specification without validating the rest; earlier versions lack some keys."""

    model: str | None = ""
    data: _RecordedData | None = None
    variants: list[str] = []
    space: dict[str, Any] = {}
    training: dict[str, Any] = {}
    metric: dict[str, Any] = {}
    trainer: str | dict[str, Any] = "builtin"
    budget: float = 0.0
    confirm: int | Literal["auto"] = "auto"
    seed: int = 0
    storage: str | None = None
    checkpoints: str | None = None
    adapter: dict[str, Any] | None = None
    imported_from: list[str] = []

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _RecordedStudy(_Recorded):
    """What must be there to read the study of a recorded specification."""

    budget: float
    confirm: int | Literal["auto"]
    storage: str | None


class NoStudyError(AutoloraError, FileNotFoundError):
    """The folder is not a run directory, or holds no study yet."""


def read_recorded(path: Path) -> Document:
    """A specification that :func:`autolora.spec.save` wrote, as plain data with every key present.

    Raises:
        DocumentError: it is damaged, or is not one.
    """
    recorded = read_yaml(path)
    shaped(recorded, _Recorded.model_validate, path, _remedy(path))
    return dict(recorded)


def _remedy(path: Path) -> str:
    return (
        f"Restore it from a copy, or move it away and run `autolora tune` with your own specification and --dir "
        f"{files.shown(path.parent)} again, which writes it and goes on with the study."
    )


def recorded_spec(folder: Path) -> Document:
    """The recorded specification of a run directory.

    Raises:
        NoStudyError: it holds none.
        DocumentError: it is damaged.
    """
    if not (folder / SPEC_FILE).exists():
        raise NoStudyError(f"{files.shown(folder)} is not a run directory: it holds no {SPEC_FILE}")
    return read_recorded(folder / SPEC_FILE)


def storage_of(storage: str | None, folder: Path) -> Storage:
    """The storage named, or an SQLite file in the run directory, whatever that is called."""
    return storage or folder / STUDY_FILE


def begun_study(storage: str | None, folder: Path) -> Study | None:
    """The study of a run directory, or None where it has not begun; looking creates nothing in the directory.

    Args:
        storage: as in the specification.
        folder: run directory.
    """
    from autolora.study.study import Study

    if storage is None and not (folder / STUDY_FILE).exists():
        return None
    return Study.find(storage_of(storage, folder), STUDY_NAME)


def read_study(folder: Path) -> tuple[TrialTable, Plan]:
    """Trial table and plan of a run directory, running or not, without its lock.

    Raises:
        NoStudyError: nothing was started there.
    """
    spec, study = _study_of(folder)
    rungs, names = tuple(study.terms["rungs"]), tuple(study.terms["variants"])
    budget = float(spec["budget"])
    prior = study.prior
    upfront = prior.share(len(names)) if prior else 0.0
    rows = tuple(study.terms.get("scored_rows", ()))
    space = study.space
    table = TrialTable(
        rungs,
        study.direction,
        study.events(),
        upfront,
        study.terms["examples"],
        rows,
        length=space.length,
        cheapest=space.shortest,
    )
    return table, Plan(names, rungs, budget, seeds_kept(spec["confirm"], budget))


def read_sampler(folder: Path, variants: Mapping[str, Searchable]) -> Sampler:
    """What judges and proposes configurations in the study of a run directory; it knows no configurations that do not
    fit into memory.

    Args:
        folder: run directory.
        variants: all that the study tunes, by name.

    Raises:
        NoStudyError: nothing was started there.
    """
    spec, study = _study_of(folder)
    return Sampler.of(variants, study.space, study.prior, tuple(study.terms["rungs"]), spec["seed"])


def read_terms(folder: Path) -> Document:
    """The terms that the study of a run directory was started on; see :class:`autolora.study.Study`.

    Raises:
        NoStudyError: nothing was started there.
    """
    return _study_of(folder)[1].terms


def _study_of(folder: Path) -> tuple[Document, Study]:
    """The recorded specification of a run directory, and its study."""
    from autolora.study.study import Study

    spec = recorded_spec(folder)
    shaped(spec, _RecordedStudy.model_validate, folder / SPEC_FILE, _remedy(folder / SPEC_FILE))
    if spec["storage"] is None and not (folder / STUDY_FILE).exists():
        raise NoStudyError(f"{files.shown(folder)} holds no study yet: {STUDY_FILE} is not there")
    return spec, Study.read(storage_of(spec["storage"], folder), STUDY_NAME)
