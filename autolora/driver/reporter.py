"""What is told of a study while it runs and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from autolora.driver.result import TuneResult
    from autolora.driver.scouting import Scouted
    from autolora.execution import LostWorker
    from autolora.search import Job, Search
    from autolora.spec import Spec
    from autolora.training.segment import Outcome, Progress
    from autolora.training.workbench import Workbench


class Reporter(Protocol):
    """Is told what happens; shows it or not."""

    def prepared(self, spec: Spec, bench: Workbench) -> None:
        """Model and data are loaded."""

    def scouted(self, scouted: Scouted) -> None:
        """A new study's prior has been made."""

    def resumed(self, search: Search) -> None:
        """The study is open, with the trials of earlier starts in it."""

    def started(self, search: Search, job: Job) -> None:
        """A job goes to a worker."""

    def progress(self, progress: Progress) -> None:
        """An optimizer step of a running trial."""

    def told(self, search: Search, job: Job, outcome: Outcome | LostWorker) -> None:
        """A job came back and has been recorded."""

    def concluding(self, variant: str) -> None:
        """The search is over; the variant is tested and exported."""

    def finished(self, result: TuneResult) -> None:
        """All is written."""


class Silent:
    """Shows nothing."""

    def prepared(self, spec: Spec, bench: Workbench) -> None: ...
    def scouted(self, scouted: Scouted) -> None: ...
    def resumed(self, search: Search) -> None: ...
    def started(self, search: Search, job: Job) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def told(self, search: Search, job: Job, outcome: Outcome | LostWorker) -> None: ...
    def concluding(self, variant: str) -> None: ...
    def finished(self, result: TuneResult) -> None: ...
