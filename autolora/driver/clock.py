"""The wall time that a study has taken, over all its starts.

It is kept in the run directory and written every few seconds, so that a start that was killed counts, too. Starts
without a time budget are not counted.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from autolora import files
from autolora.documents import DocumentError, read_json
from autolora.errors import first_line

LOGGER = logging.getLogger(__name__)
TIME_FILE = "time.json"
TICK_SECONDS = 2.0
"""How often the time is written. As much may be lost of a start that was killed."""


class _Kept(BaseModel):
    """The file."""

    seconds: float = Field(ge=0, allow_inf_nan=False)
    concluding: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Clock:
    """The time of a study against its limit.

    Args:
        folder: run directory.
        limit: seconds in all; None means that nothing is counted or written.
        now: the time in seconds, from any beginning.
        began: when this start began, by ``now``; None means now.

    Attributes:
        now: as given.
        concluding: what concluding took when the study was concluded last; 0 if it was not.
    """

    def __init__(
        self,
        folder: Path,
        limit: float | None,
        now: Callable[[], float] = time.monotonic,
        began: float | None = None,
    ) -> None:
        self.limit, self.concluding = limit, 0.0
        self._file, self.now = folder / TIME_FILE, now
        self._began = now() if began is None else began
        self._before = 0.0
        if limit is not None and self._file.exists():
            self._recall()

    def elapsed(self) -> float:
        """Seconds of this start and those before."""
        return self._before + self.now() - self._began

    def left(self) -> float:
        """Seconds to the limit; infinite without one."""
        return math.inf if self.limit is None else self.limit - self.elapsed()

    def keep(self) -> None:
        """Write the time. Where nothing can be written, this start is lost to later ones, which is said."""
        kept = _Kept(seconds=self.elapsed(), concluding=self.concluding)
        try:
            files.write(self._file, json.dumps(kept.model_dump()) + "\n")
        except OSError as error:
            LOGGER.warning("the time that the study has taken is not kept: %s", error)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the time every few seconds, and at the end."""
        if self.limit is None:
            yield
            return
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(TICK_SECONDS):
                self.keep()

        thread = threading.Thread(target=tick, name="clock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.keep()

    def _recall(self) -> None:
        try:
            kept = _Kept.model_validate(read_json(self._file))
        except (DocumentError, ValidationError, OSError) as error:
            LOGGER.warning(
                "%s cannot be used (%s); time_budget counts from this start", files.shown(self._file), first_line(error)
            )
            return
        self._before, self.concluding = kept.seconds, kept.concluding
