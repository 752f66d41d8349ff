"""Whether a study is whole: its SQLite file, and what its trials say.

Optuna makes missing tables, and reads what it finds: a file that was damaged, or that a user or another program
changed, would be decided upon. It is refused, with what is wrong and what can be done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from autolora import files
from autolora.documents import LONGEST, shortened
from autolora.priors.prior import Prior
from autolora.search.trials import Outcome, Purpose
from autolora.space import Config, Space, registry
from autolora.study.rows import decode
from autolora.study.storage import Storage, StudyError, resolved, shown, sqlite_file

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)

BACKUP = ".backup"
"""Suffix of the copy that is taken of an SQLite file when a study goes on."""
TABLES = {"alembic_version", "studies", "study_user_attributes", "trials", "trial_params", "trial_user_attributes"}
TABLES |= {"trial_values", "trial_intermediate_values", "version_info"}
"""Tables of Optuna's that a study needs."""
OTHER_TABLES = {"study_directions", "study_system_attributes", "trial_system_attributes", "trial_heartbeats"}
"""Further ones of Optuna's. It makes them one by one, and goes on with that where a process was killed amid it."""


class DamagedStudyError(StudyError):
    """The study cannot be relied on; the message says why, and how to go on."""


class _Terms(BaseModel):
    """What is read of the terms of a search."""

    variants: list[str]
    space: dict[str, Any]
    rungs: list[float]
    examples: int | None
    scored_rows: list[int] = []
    prior: Prior | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True)


class _Ending(BaseModel):
    """The attribute "ending" of a trial."""

    outcome: Outcome
    reason: str
    at: float | None = None
    seconds: float = 0.0
    too_large: bool = False

    model_config = ConfigDict(extra="forbid")


class _Rows(BaseModel):
    """The attribute "rows" of a trial."""

    totals: str
    weights: str


class _Attributes(BaseModel):
    """The attributes of a trial that are read."""

    seed: int
    purpose: Purpose
    origin: str
    revision: int = 1
    seconds: float = 0.0
    lost: int = 0
    ending: _Ending | None = None
    rows: _Rows | None = None
    metrics: dict[str, dict[str, float]] = {}


def _file(storage: Storage) -> Path | None:
    """The SQLite file of a storage, which need not exist; None if it is another database.

    Raises:
        StudyError: see :func:`autolora.study.storage.resolved`.
    """
    return sqlite_file(resolved(storage))


def check_file(storage: Storage) -> bool:
    """Check that an SQLite file is whole and Optuna's, if there is one; it is not written to.

    Returns:
        Whether there may be a study: False if there is no file, or one with nothing in it.

    Raises:
        DamagedStudyError: it is not.
        StudyError: it cannot be made where it is to be.
    """
    path = _file(storage)
    if path is None:
        return True
    if path.is_dir():
        raise DamagedStudyError(f"{files.shown(path)} is a directory, not a database. {_remedy(path)}")
    if not path.exists():
        if not path.parent.is_dir():
            raise StudyError(f"{files.shown(path)} cannot be made: there is no folder {files.shown(path.parent)}")
        return False
    reason = _fault(path)
    if reason:
        raise DamagedStudyError(f"{files.shown(path)} {reason}. {_remedy(path)}")
    return path.stat().st_size > 0


def back_up(storage: Storage) -> None:
    """Keep a copy of an SQLite file beside it, in place of an earlier one; warn if there is no room for it.

    Args:
        storage: of a study that is whole, and that nobody writes at this moment.
    """
    path = _file(storage)
    if path is None or not path.is_file():
        return
    beside = path.with_name(f"{path.name}{BACKUP}.tmp")
    try:
        beside.unlink(missing_ok=True)
        beside.touch(0o600)
        shutil.copymode(path, beside)
        with contextlib.closing(sqlite3.connect(path)) as study, contextlib.closing(sqlite3.connect(beside)) as copy:
            study.execute("BEGIN")
            study.execute("SELECT * FROM sqlite_master").fetchall()  # waits for a lock, as backup() would for ever
            study.backup(copy)
        files.move(beside, path.with_name(path.name + BACKUP))
    except (OSError, sqlite3.Error) as error:
        logger.warning("no copy of %s is kept: %s", files.shown(path), error)


def terms_of(study: optuna.Study, storage: Storage, key: str) -> dict[str, Any] | None:
    """The terms that a search recorded in a study under an attribute; None if it holds none.

    Raises:
        DamagedStudyError: they are not what autolora writes.
    """
    try:
        terms: Any = study.user_attrs.get(key)
    except ValueError as error:
        raise _damaged(storage, f"the terms of the study are not JSON ({error})") from None
    if terms is None:
        return None
    try:
        Space(**_Terms.model_validate(terms).space)
    except (ValidationError, TypeError) as error:
        raise _damaged(storage, f"the terms of the study are not those of autolora ({_first(error)})") from None
    return dict(terms)


def trials_of(
    study: optuna.Study, storage: Storage, terms: Mapping[str, Any], steps: Sequence[int]
) -> list[FrozenTrial]:
    """The trials of a study in order of their numbers.

    Args:
        study: of autolora.
        storage: where it is, for messages.
        terms: of the search.
        steps: at which trials report scores.

    Raises:
        DamagedStudyError: some were not made by autolora, were changed, or are gone; names them by number.
    """
    try:
        found = study.get_trials(deepcopy=False)
    # What Optuna's conversions raise on rows that it has not written.
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise _damaged(storage, f"the trials cannot be read ({type(error).__name__}: {_one_line(error)})") from None
    trials = sorted(found, key=lambda trial: trial.number)
    gone = sorted(set(range(len(trials))) - {trial.number for trial in trials})
    if gone:
        raise _damaged(storage, f"{_numbered(gone)} missing")
    faults = {trial.number: fault for trial in trials for fault in _faults(trial, terms, steps)}
    if faults:
        number, fault = next(iter(faults.items()))
        others = [other for other in faults if other != number]
        more = f"; so {'is' if len(others) == 1 else 'are'} {_listed(others)}" if others else ""
        raise _damaged(storage, f"trial {number} is not as autolora writes it ({fault}){more}")
    return trials


def reasons_of(study: optuna.Study, storage: Storage, key: str, trials: int) -> dict[int, str]:
    """A reason by trial number, from an attribute of a study; empty if it has none.

    Raises:
        DamagedStudyError: the attribute is something else, or names a trial beyond the first ``trials``.
    """
    try:
        reasons = TypeAdapter(dict[int, str]).validate_python(study.user_attrs.get(key, {}))
    except ValidationError as error:
        raise _damaged(
            storage, f"the attribute {key!r} of the study is not that of autolora ({_first(error)})"
        ) from None
    beyond = [number for number in reasons if number not in range(trials)]
    if beyond:
        raise _damaged(storage, f"the attribute {key!r} of the study names trial {beyond[0]}, which is not there")
    return reasons


def _fault(path: Path) -> str | None:
    """What is wrong with an SQLite file; None if nothing is, or if it cannot be looked at now."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as database:
            found = [row[0] for row in database.execute("PRAGMA quick_check(1)")]
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = {table: sum(1 for _ in database.execute(f"SELECT * FROM {table}")) for table in TABLES & tables}
    except sqlite3.OperationalError as error:
        # Other faults, such as a lock, are for whoever opens it to tell.
        return f"is damaged ({_one_line(error)[:LONGEST]})" if "decode" in str(error) else None
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    if found != ["ok"]:
        return f"is damaged ({shortened(' '.join(found))})"
    if tables <= TABLES | OTHER_TABLES and not rows.get("studies") and not rows.get("trials"):
        return None  # nothing has begun
    if tables and "alembic_version" not in tables:
        return f"is a database of another program (its tables: {shortened(', '.join(sorted(tables)))})"
    missing = TABLES - tables
    if tables and missing:
        return f"is damaged (tables are missing: {', '.join(sorted(missing))})"
    if tables and rows["trials"] and not rows["studies"]:
        return "is damaged (it holds trials of no study)"
    return None


def _faults(trial: FrozenTrial, terms: Mapping[str, Any], steps: Sequence[int]) -> Iterator[str]:
    """At most one fault of a trial, in words."""
    from optuna.trial import TrialState

    own = trial.user_attrs.keys() & _Attributes.model_fields.keys()
    if not own:
        yield f"it was added by somebody else, and is {trial.state.name}"
        return
    try:
        attributes = _Attributes.model_validate(trial.user_attrs)
    except ValidationError as error:
        yield _first(error)
        return
    ending = attributes.ending
    expected = {TrialState.RUNNING}
    if ending is not None:  # a crash may have come between it and the state
        expected.add(TrialState.COMPLETE if ending.outcome == "complete" else TrialState.PRUNED)
    unknown = [step for step in trial.intermediate_values if step not in steps]
    if trial.state not in expected:
        yield f"its state is {trial.state.name}"
    elif unknown:
        yield f"it has a score at step {unknown[0]}, and the rungs are at {', '.join(map(str, steps))}"
    elif ending is not None and ending.outcome == "complete" and steps[-1] not in trial.intermediate_values:
        yield "it is complete without a score"
    elif attributes.rows is not None and not _decodes(attributes.rows):
        yield "its row scores cannot be read"
    elif trial.params.get("variant") not in terms["variants"]:
        yield f"its variant is {trial.params.get('variant')!r}"
    else:
        yield from _unreadable(trial)


def _decodes(rows: _Rows) -> bool:
    try:
        decode(0.0, rows.model_dump())
    except ValueError:
        return False
    return True


def _unreadable(trial: FrozenTrial) -> Iterator[str]:
    """What is wrong with the parameters of a trial."""
    names = {name for dimension in registry() for name in dimension.read(trial.params, trial.params["variant"])}
    missing = [each.name for each in dataclasses.fields(Config) if each.default is dataclasses.MISSING]
    missing = [name for name in missing if name not in names]
    if missing:
        yield f"it has no {', '.join(missing)}"


def _damaged(storage: Storage, what: str) -> DamagedStudyError:
    path = _file(storage)
    if path is None:
        return DamagedStudyError(f"the study in {shown(storage)}: {what}. Tune in another storage")
    return DamagedStudyError(f"{files.shown(path)}: {what}. {_remedy(path)}")


def _remedy(path: Path) -> str:
    """How to go on without an SQLite file, as commands."""
    backup = path.with_name(path.name + BACKUP)
    # A log that stays would be played into the next file of that name.
    there = [path, *(path.with_name(path.name + log) for log in ("-wal", "-shm", "-journal"))]
    moves = [_move(each, each.with_name(each.name + ".damaged")) for each in there if each.exists()]
    lines = ["Move it away:", *(f"  {move}" for move in moves)]
    if (path.parent / "trials").is_dir():
        lines.append(
            "and run the same `autolora tune` again: the study is decided again, with every score that it finds in "
            f"{files.shown(path.parent / 'trials')}; only trials whose checkpoints were removed are trained again."
        )
    else:
        lines.append("and run the same command again, which begins a new study.")
    if backup.is_file() and _fault(backup) is None:
        lines.append(f"Or go back to the copy of when the study was last started, after that:\n  {_copy(backup, path)}")
    return "\n".join(lines)


def _move(source: Path, target: Path) -> str:
    return f"{'move' if os.name == 'nt' else 'mv'} {files.argument(source)} {files.argument(target)}"


def _copy(source: Path, target: Path) -> str:
    return f"{'copy' if os.name == 'nt' else 'cp'} {files.argument(source)} {files.argument(target)}"


def _numbered(numbers: Sequence[int]) -> str:
    return f"trial {numbers[0]} is" if len(numbers) == 1 else f"trials {_listed(numbers)} are"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _first(error: ValidationError | TypeError) -> str:
    """The first fault that a validation found."""
    if not isinstance(error, ValidationError):
        return _one_line(error)
    first = error.errors()[0]
    at = ".".join(map(str, first["loc"])) or "all"
    return f"{at} is missing" if first["type"] == "missing" else f"{at} is {shortened(first['input'])}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
