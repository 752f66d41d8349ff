"""The events of a study: what a callback is told while it runs and when it ends.

    class Stopwatch(autolora.Callback):
        def on_segment_end(self, search, job, outcome):
            print(job.variant, job.config, outcome)

    autolora.tune("spec.yaml", callbacks=[Stopwatch()])

The console of the command line is one; those in :mod:`autolora.trackers` are others. All run in the driver's process,
one after the other, between its decisions: what they do takes the study's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autolora.driver.result import TuneResult
    from autolora.driver.scouting import Scouted
    from autolora.execution import Executor, LostWorker
    from autolora.search import Job, Search
    from autolora.spec import Spec
    from autolora.trainers import Outcome, Progress, Trainer


class Callback:
    """Base class of callbacks: override the events of interest. What a method returns is ignored.

    An exception that a method raises ends the study as one in the user's metric does: completed work is saved, and the
    same call continues. :meth:`stop` of every callback is called however the study ends.

    The order of events is: ``on_executor``, ``on_setup``, ``on_prior`` if the study is new, ``on_search_start``; then
    for each segment ``on_segment_start``, ``on_step`` and ``on_segment_end``, those of several workers interleaved;
    ``on_export_start`` for each variant, ``on_finish``; and ``stop``. ``on_weights_lost`` comes between segments.
    """

    def on_executor(self, executor: Executor) -> None:
        """What will run the trials is ready; nothing is loaded yet.

        Args:
            executor: ``about()`` says in lines where trials run, such as the address of a cluster and its workers.
        """

    def on_setup(self, spec: Spec, trainer: Trainer) -> None:
        """Model and data are loaded.

        Args:
            spec: what is tuned.
            trainer: ``about()`` says in lines what it has loaded, ``examples`` how long a full run is.
        """

    def on_prior(self, scouted: Scouted) -> None:
        """The prior of a new study has been made; not called when a study is continued.

        Args:
            scouted: the prior, what it was measured from, and a line on each measurement.
        """

    def on_search_start(self, search: Search) -> None:
        """The study is open; a continued one has trials in it.

        Args:
            search: live from now on: ``table`` holds all trials, ``plan`` the terms, ``spent`` full runs by variant.
                It is only to be read.
        """

    def on_segment_start(self, search: Search, job: Job) -> None:
        """A segment of a trial goes to a worker.

        Args:
            search: as above.
            job: trial, variant, configuration, seed, and from where to where it is trained.
        """

    def on_step(self, progress: Progress) -> None:
        """An optimizer step of a running trial; on a cluster, some steps are not reported.

        Args:
            progress: trial, step, steps of the trial at its full length, and loss.
        """

    def on_segment_end(self, search: Search, job: Job, outcome: Outcome | LostWorker) -> None:
        """A segment came back and has been recorded in the study.

        Args:
            search: as above; ``table.trials[job.trial]`` has the trial's scores, state and reason.
            job: as in :meth:`on_segment_start`.
            outcome: a score, a divergence, or a worker that was lost, whose trial is handed out again.
        """

    def on_weights_lost(self, search: Search, trial: int) -> None:
        """What a completed trial has trained is gone or damaged, and its configuration is the best of its variant.

        Args:
            search: as above; ``table.trials[trial].weights_lost`` says why. It is trained again as far as the budget
                goes.
            trial: number.
        """

    def on_export_start(self, variant: str) -> None:
        """The search is over; the best of this variant is tested and exported."""

    def on_finish(self, result: TuneResult) -> None:
        """The study has finished, and everything is written.

        Args:
            result: as :func:`autolora.tune` returns it.
        """

    def stop(self) -> None:
        """The study has ended, finished or not: give back what is held, such as files, threads or the terminal.

        Called once, and last.
        """


class Callbacks(Callback):
    """Several callbacks as one; each is told in the order given."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._all = tuple(callbacks)
        for place, each in enumerate(self._all):
            if not isinstance(each, Callback):
                raise TypeError(f"callbacks[{place}] is {each!r:.80}. Give instances of autolora.Callback")

    def on_executor(self, executor: Executor) -> None:
        for each in self._all:
            each.on_executor(executor)

    def on_setup(self, spec: Spec, trainer: Trainer) -> None:
        for each in self._all:
            each.on_setup(spec, trainer)

    def on_prior(self, scouted: Scouted) -> None:
        for each in self._all:
            each.on_prior(scouted)

    def on_search_start(self, search: Search) -> None:
        for each in self._all:
            each.on_search_start(search)

    def on_segment_start(self, search: Search, job: Job) -> None:
        for each in self._all:
            each.on_segment_start(search, job)

    def on_step(self, progress: Progress) -> None:
        for each in self._all:
            each.on_step(progress)

    def on_segment_end(self, search: Search, job: Job, outcome: Outcome | LostWorker) -> None:
        for each in self._all:
            each.on_segment_end(search, job, outcome)

    def on_weights_lost(self, search: Search, trial: int) -> None:
        for each in self._all:
            each.on_weights_lost(search, trial)

    def on_export_start(self, variant: str) -> None:
        for each in self._all:
            each.on_export_start(variant)

    def on_finish(self, result: TuneResult) -> None:
        for each in self._all:
            each.on_finish(result)

    def stop(self) -> None:
        with self.stopping():
            pass

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Context at whose end every callback is stopped, whatever another raises.

        What ``stop`` raises is chained to an error of the body, so that this is not lost.
        """
        with ExitStack() as stack:
            for each in reversed(self._all):
                stack.callback(each.stop)
            yield
