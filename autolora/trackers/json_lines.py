"""All events of a study as lines of JSON, for programs that follow it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from autolora import files
from autolora.analysis.pareto import pareto_as_dict
from autolora.driver.callbacks import Callback

if TYPE_CHECKING:
    from autolora.driver.result import TuneResult
    from autolora.driver.scouting import Scouted
    from autolora.execution import LostWorker
    from autolora.search import Job, Search
    from autolora.spec import Spec
    from autolora.trainers import Outcome, Progress, Trainer


class JsonLines(Callback):
    """Appends a JSON object for each event to a file: "event", "time" (seconds since 1970), and what the event tells.

        autolora.tune("study.yaml", callbacks=[JsonLines("events.jsonl")])

    A line is written whole and at once, so that a reader can follow the file. A study that is continued goes on in the
    same file. Numbers that are not finite are written as NaN and Infinity, as Python's json reads them.

    Args:
        path: of the file; made, with its folder, at the first event.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = files.expanded(path)
        self._begun = False

    def on_setup(self, spec: Spec, trainer: Trainer) -> None:
        from autolora.spec import dump

        self._write("setup", spec=dump(spec), examples=trainer.examples, about=dict(trainer.about()))

    def on_prior(self, scouted: Scouted) -> None:
        self._write("prior", notes=scouted.notes, prior=scouted.prior and scouted.prior.as_dict())

    def on_search_start(self, search: Search) -> None:
        self._write("search_start", trials=len(search.table.trials), spent=search.spent)

    def on_segment_start(self, search: Search, job: Job) -> None:
        trial = search.table.trials[job.trial]
        self._write("segment_start", **_job(job), purpose=trial.purpose, origin=trial.origin)

    def on_step(self, progress: Progress) -> None:
        self._write("step", **asdict(progress))

    def on_segment_end(self, search: Search, job: Job, outcome: Outcome | LostWorker) -> None:
        trial = search.table.trials[job.trial]
        self._write(
            "segment_end",
            **_job(job),
            result=getattr(outcome, "kind", "lost"),
            value=getattr(outcome, "value", None),
            reason=outcome.reason or trial.reason,
            seconds=getattr(outcome, "seconds", None),
            metrics=dict(getattr(outcome, "metrics", {})),
            spent=search.spent[job.variant],
        )

    def on_export_start(self, variant: str) -> None:
        self._write("export_start", variant=variant)

    def on_finish(self, result: TuneResult) -> None:
        self._write(
            "finish",
            variants={name: tuned.as_dict() for name, tuned in result.items()},
            spent=dict(result.spent),
            verdict=result.verdict and result.verdict.text,
            pareto=pareto_as_dict(result.pareto),
        )

    def stop(self) -> None:
        if self._begun:  # else the study did not get as far as its model and data
            self._write("stop")

    def _write(self, event: str, **content: object) -> None:
        self._begun = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "time": time.time(), **content}, ensure_ascii=False) + "\n")


def _job(job: Job) -> dict[str, object]:
    return {
        "trial": job.trial,
        "variant": job.variant,
        "config": job.config.as_dict(),
        "seed": job.seed,
        "start": job.start,
        "stop": job.stop,
        "rung": job.rung,
    }
