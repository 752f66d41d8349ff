"""Progress of a study: a live table on a terminal, quiet plain lines anywhere else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from autolora.driver.callbacks import Callback
from autolora.execution import LostWorker
from autolora.report.summary import duration, incumbent, seconds_left, setting, summarize
from autolora.report.tables import clock, result_table, status_table

if TYPE_CHECKING:
    from autolora.driver.result import TuneResult
    from autolora.driver.scouting import Scouted
    from autolora.execution import Executor
    from autolora.search import Job, Search
    from autolora.spec import Spec
    from autolora.trainers import Outcome, Progress, Trainer

REFRESH_SECONDS = 0.25


class PlainConsole(Callback):
    """One line where something was learned: a full-length score, a new incumbent, a divergence."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def on_executor(self, executor: Executor) -> None:
        for line in executor.about():
            self.say(line)

    def on_setup(self, spec: Spec, trainer: Trainer) -> None:
        for subject, lines in trainer.about().items():
            for line in lines:
                self.say(f"{subject}: {line}")
        self.say(
            f"budget: {spec.budget:g} full runs of {trainer.examples} examples for each of {', '.join(spec.names)}"
        )

    def on_prior(self, scouted: Scouted) -> None:
        for note in scouted.notes:
            self.say(note)

    def on_search_start(self, search: Search) -> None:
        known = len(search.table.trials)
        if known:
            spent = ", ".join(f"{variant} {spent:.2f}" for variant, spent in search.spent.items())
            self.say(f"continuing: {known} trials in the study, spent so far: {spent}")

    def on_segment_end(self, search: Search, job: Job, outcome: Outcome | LostWorker) -> None:
        line = self.news(search, job, outcome)
        if line:
            self.say(line)

    def news(self, search: Search, job: Job, outcome: Outcome | LostWorker) -> str | None:
        """What is worth a line, or None."""
        trial = search.table.trials[job.trial]
        head = f"[{job.variant} {search.spent[job.variant]:.2f}/{search.plan.budget:g}] trial {job.trial}"
        if not trial.healthy:
            return f"{head} {trial.outcome}: {setting(job.config)}: {trial.reason}"
        if isinstance(outcome, LostWorker):
            return f"{head}: worker lost{outcome.where}: {outcome.reason}; trial rescheduled"
        best = trial.first and incumbent(search.table, job.variant) is trial
        if not best and job.rung < search.plan.last:
            return None
        left = seconds_left(search.table, search.plan)
        return (
            f"{head} {trial.purpose}: {trial.scores[job.rung]:.4f} at {job.stop:.2g} of a run  {setting(job.config)}"
            f"{'  * best so far' if best else ''}{f'  ({duration(left)} left)' if left else ''}"
        )

    def on_weights_lost(self, search: Search, trial: int) -> None:
        lost = search.table.trials[trial]
        self.say(f"[{lost.variant}] trial {trial} is the best, and lost: {lost.weights_lost}")

    def on_export_start(self, variant: str) -> None:
        self.say(f"exporting {variant}")

    def on_finish(self, result: TuneResult) -> None:
        if result:
            self.console.print()
            self.console.print(result_table(result))
        if result.ended:
            self.say(f"{result.ended}.")
        self.say(clock(result.seconds))


class LiveConsole(PlainConsole):
    """A table that redraws itself, with the news scrolling above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._running: dict[int, tuple[Job, Progress | None]] = {}
        self._search: Search | None = None
        self._drawn = 0.0

    def on_search_start(self, search: Search) -> None:
        super().on_search_start(search)
        self._search = search
        self._live.start()

    def on_segment_start(self, search: Search, job: Job) -> None:
        self._running[job.trial] = (job, None)
        self._draw()

    def on_step(self, progress: Progress) -> None:
        if progress.trial not in self._running:  # an executor may tell of steps late
            return
        job, _ = self._running[progress.trial]
        self._running[progress.trial] = (job, progress)
        if time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._draw()

    def on_segment_end(self, search: Search, job: Job, outcome: Outcome | LostWorker) -> None:
        del self._running[job.trial]
        super().on_segment_end(search, job, outcome)
        self._draw()

    def on_export_start(self, variant: str) -> None:
        self._live.stop()
        super().on_export_start(variant)

    def on_finish(self, result: TuneResult) -> None:
        self._live.stop()
        super().on_finish(result)

    def stop(self) -> None:
        self._live.stop()

    def _draw(self) -> None:
        assert self._search is not None
        table, plan = self._search.table, self._search.plan
        lines = [Text(self._running_line(job, progress)) for job, progress in self._running.values()]
        left = seconds_left(table, plan)
        if left is not None:
            lines.append(Text(f"about {duration(left)} left"))
        rows = [summarize(table, plan, variant) for variant in plan.variants]
        self._live.update(Group(Text(), status_table(rows, plan.rungs), *lines), refresh=True)
        self._drawn = time.monotonic()

    @staticmethod
    def _running_line(job: Job, progress: Progress | None) -> str:
        at = f"step {progress.step}/{progress.steps}  loss {progress.loss:.3f}" if progress else "starting"
        return f"running trial {job.trial} ({job.variant}, to {job.stop:.2g} of a run)  {setting(job.config)}  {at}"


def console_callback(console: Console) -> PlainConsole:
    """The live view on a terminal, plain lines elsewhere."""
    return LiveConsole(console) if console.is_terminal else PlainConsole(console)
