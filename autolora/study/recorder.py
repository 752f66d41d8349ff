"""A search's recorder over an Optuna storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autolora.search.trials import Direction, Event
from autolora.study import integrity
from autolora.study.storage import Storage
from autolora.study.study import Study


class StudyRecorder:
    """Records a search in the study of that name, as its one writer; see :class:`autolora.search.Recorder`.

    Args:
        storage: Optuna storage URL, or the path of an SQLite file.
        name: of the study; one on the same terms is continued.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self._study: Study | None = None

    def begin(self, direction: Direction, terms: Mapping[str, object]) -> Sequence[Event]:
        """Open the study; see :meth:`Study.open` for the errors."""
        self._study = Study.open(self._storage, self._name, direction, terms)
        events = self._study.events(repair=True)
        if events:
            integrity.back_up(self._storage)
        return events

    def write(self, event: Event) -> None:
        """Record an event; see :meth:`Study.write` for the errors."""
        assert self._study is not None, "begin() comes first"
        self._study.write(event)

    def close(self) -> None:
        """Let another process write the study."""
        if self._study is not None:
            self._study.close()
