"""Trainers that run a command in a process of its own for each segment, and the one whose command the user writes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from autolora import files, variants
from autolora.documents import DocumentError, read_json
from autolora.search import Job
from autolora.search.rungs import horizon, own_examples, steps_until
from autolora.space import Config, Space
from autolora.spec import Spec
from autolora.trainer_specs.command import CommandTrainerSpec, ProcessSpec
from autolora.trainers import checkpoint
from autolora.trainers.checkpoint import CheckpointError, LostCheckpointError, Manifest
from autolora.trainers.command import current, placeholders, ports, usage, work
from autolora.trainers.command.attempt import Attempt, Heard, Launch, shortened
from autolora.trainers.command.errors import CommandError
from autolora.trainers.command.parts import Peer
from autolora.trainers.command.place import LOOPBACK, Place, count
from autolora.trainers.command.process import REPORT, end_marked
from autolora.trainers.command.reports import Reports
from autolora.trainers.command.scores import ScoreFile, pattern_reader
from autolora.trainers.places import is_url, shown
from autolora.trainers.timing import Timing, facts, reported
from autolora.trainers.trainer import OnStep, Outcome, Trainer
from autolora.trainers.trial import Trial
from autolora.trainers.trials import Trials, scored

TOLD, REPORTS, LOGS = "trial.json", "reports", "logs"
"""Beside the checkpoints of a trial, the file that tells the command of it, and the folder of what it reports. In the
run directory, the folder of its output."""


class ProcessTrainer(Trainer):
    """Trains segments by running a command for each, which continues from what it finds in the trial's folder.

    Subclasses say what is run, and may read its output and its score.

    Args:
        spec: of the study.
        folder: run directory.

    Attributes:
        host: name or address of this node, for others.
        peers: further nodes on which each command is started, too; none by default.
        place: where the command runs that is being started.

    Raises:
        CommandError: the checkpoints are behind a URL, or the model is a Python object.
    """

    def __init__(self, spec: Spec, folder: Path) -> None:
        assert isinstance(spec.trainer, ProcessSpec)
        self.spec, self.settings, self.folder = spec, spec.trainer, Path(os.path.realpath(folder))
        for reference in spec.variants:
            variants.resolve(reference)  # on a worker, those of other packages are not registered yet
        root = checkpoint.root_of(spec.checkpoints, self.folder)
        if not isinstance(root, Path) or is_url(os.fspath(root)):
            raise CommandError(
                f"checkpoints: {shown(root)} is a URL, and a command continues from a folder: give a folder that all "
                "workers see, or leave the key out"
            )
        if spec.model is not None and not isinstance(spec.model, str):
            raise CommandError(
                "model: a Python object cannot be given to a command, which runs in a process of its own: give its "
                "path or hub id"
            )
        self.root = Path(os.path.realpath(root))
        self.host: str = LOOPBACK
        self.peers: Sequence[Peer] = ()
        self.place = Place()

    @classmethod
    def open(cls, spec: Spec, folder: Path) -> ProcessTrainer:
        """The trainer of a specification; see :func:`autolora.trainers.open_trainer`."""
        return cls(spec, folder)

    # What a subclass says.

    @abstractmethod
    def launch(self, trial: Trial) -> Launch:
        """What runs a segment at :attr:`place`. ``trial.folder`` is there, and holds what the command left when it
        last ran.

        Raises:
            CommandError: it cannot be said.
        """

    def heard(self, trial: Trial) -> Heard | None:
        """What reads the command's output, line by line; None, the default, if nothing does."""
        return None

    def score_file(self, trial: Trial) -> ScoreFile | None:
        """The file with the score, looked for before the command runs; None, the default, if the command reports it."""
        return None

    @property
    def pattern(self) -> str | None:
        """What finds the score in the output, for people; None, the default, if nothing does."""
        return None

    @property
    def examples(self) -> int:
        return self.settings.examples

    def examples_of(self, config: Config) -> int:
        """Training examples of a trial that is trained to its end."""
        return own_examples(self.examples, self.spec.space.length(config))

    def fingerprints(self) -> Mapping[str, str]:
        """Metric and model; subclasses add what they run."""
        named = {} if self.spec.model is None else {"model": str(self.spec.model)}
        return {"metric": self.spec.metric.name, **named}

    @property
    def counts_gpus(self) -> bool:
        """Whether :meth:`launch` makes use of ``place.gpus``."""
        return False

    # The trials.

    @cached_property
    def identity(self) -> str:
        """What a trial's training depends on beside the trial, as a digest."""
        facts = {**self.fingerprints(), "examples": self.examples, "seed": self.spec.seed}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def trials(self) -> Trials:
        """Their checkpoints, which hold scores and what was in the folders then."""
        return Trials(self.root, lambda: self.identity)

    def _beside(self, trial: int, *names: str) -> Path:
        return cast(Path, self.trials.folder(trial)).joinpath(*names)

    def work(self, trial: int) -> Path:
        """The folder that a trial's command works in."""
        return self._beside(trial, work.WORK)

    def log(self, trial: int) -> Path:
        """The file with a trial's output, which stays when the trial's checkpoints go."""
        return self.folder / LOGS / f"{trial}.log"

    def run(self, segment: Job, on_step: OnStep | None = None) -> Outcome:
        began = time.monotonic()
        manifest, _ = self.trials.begun(segment, checkpoint.newest_files)
        if segment.rung in manifest.scores:  # committed before a crash, never reported
            return scored(segment, manifest)
        told = self._beside(segment.trial, TOLD)
        end_marked(told)  # what outlived the driver or worker that had started it
        with ports.reserved() as port:
            self.place = Place(self._gpus(), port, self.host, 1 + len(self.peers))
            attempt, score_file = self._attempt(segment, told)
            ended = attempt.run(on_step)
        seconds = manifest.seconds + time.monotonic() - began
        if ended.kind == "done":
            score = score_file.read() if score_file is not None else attempt.reports.score
            if score is None:
                raise self._without_score(attempt)
            if math.isfinite(score):
                attempt.check_reached()
                said = attempt.reports.said
                if score_file is not None:
                    said = {**said, **score_file.reported([each.name for each in self.spec.metrics])}
                return self._committed(segment, manifest, score, seconds, said, attempt)
            reason = f"{self.spec.metric.name} became {score}"
            return Outcome(segment.trial, "diverged", None, segment.stop, reason, seconds)
        at, too_large = self._at(segment, attempt.reports), ended.kind == "infeasible"
        return Outcome(segment.trial, ended.kind, None, at, ended.reason, seconds, too_large=too_large)

    def _attempt(self, segment: Job, told: Path) -> tuple[Attempt, ScoreFile | None]:
        folder = self.work(segment.trial)
        trial = Trial.of(self.spec, segment, folder, self.examples_of(segment.config))
        self._check_same(told, segment)
        folder.mkdir(parents=True, exist_ok=True)
        document = current.told(trial, self.spec, segment, self.identity)
        files.write(told, json.dumps(document, indent=2))
        launches = [self._launch_at(replace(self.place, node_rank=rank), trial) for rank in range(self.place.nodes)]
        for path, content in launches[0].files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, content)
        reports = Reports(segment.config.batch_size, self.spec.metric.name)
        earlier = self._beside(segment.trial, REPORTS)
        reports.recall(earlier)
        number = 1 + max((int(path.stem) for path in earlier.glob("*.jsonl") if path.stem.isdigit()), default=0)
        attempt = Attempt(
            launches=launches,
            trial=trial,
            cwd=str(self.settings.cwd),
            told=told,
            reported=earlier / f"{number:06d}.jsonl",
            log=self.log(segment.trial),
            reports=reports,
            stops=self.settings.early_stop,
            stall_seconds=60 * self.spec.resources.stall_minutes,
            gpus=self.spec.resources.gpu,
            peers=self.peers,
            heard=self.heard(trial),
            most_memory=self.spec.memory_limit,
        )
        return attempt, self.score_file(trial)

    def _launch_at(self, place: Place, trial: Trial) -> Launch:
        self.place = place
        launch = self.launch(trial)
        return replace(launch, environment={**place.environment(), **launch.environment})

    def _gpus(self) -> int:
        """GPUs of a command on each node; 0 where nobody asks, as torch would have to be imported to count them."""
        return count(self.spec.resources.gpu) if self.counts_gpus else 0

    def _check_same(self, told: Path, segment: Job) -> None:
        """Raise ``CheckpointError`` if the folder holds work of another configuration, which has no score yet."""
        try:
            known = read_json(told) if told.is_file() else None
        except DocumentError:  # damaged by others: it is written whole
            known = None
        if not isinstance(known, dict) or not isinstance(known.get("job"), dict):
            return
        job = known["job"]
        theirs = (known.get("study"), job.get("variant"), job.get("config"), job.get("seed"))
        if theirs != (self.identity, segment.variant, segment.config.as_dict(), segment.seed):
            raise CheckpointError(
                f"{files.shown(told.parent)} holds work of another study or configuration ({job.get('variant')} "
                f"{job.get('config')}, seed {job.get('seed')}) than trial {segment.trial} of the study: the study was "
                "replaced; remove the folder, or use another run directory"
            )

    def _committed(
        self,
        segment: Job,
        manifest: Manifest,
        score: float,
        seconds: float,
        said: Mapping[str, Any],
        attempt: Attempt | None = None,
    ) -> Outcome:
        batch, examples = segment.config.batch_size, self.examples_of(segment.config)
        manifest.scores[segment.rung] = score
        manifest.step = steps_until(segment.stop, examples, batch)
        manifest.examples = min(manifest.step * batch, examples)
        manifest.seconds = seconds
        if attempt is not None:
            manifest.peak_memory = max(manifest.peak_memory, attempt.peak)
        if attempt is not None and attempt.timed is not None:
            Timing(manifest.timing).step(*attempt.timed, first=False)
        if self.spec.metrics:
            manifest.metrics[segment.rung] = reported(self.spec.metrics, facts(manifest), said)
        contents = {work.LISTING: work.listing(self.work(segment.trial))}
        checkpoint.commit(self.trials.folder(segment.trial), manifest, contents, finished=segment.stop == 1.0)
        return scored(segment, manifest)

    def _at(self, segment: Job, reports: Reports) -> float:
        """Share of the trial's full run that was trained, as far as it was reported."""
        if reports.examples is None:
            return segment.stop
        return min(max(reports.examples / self.examples_of(segment.config), segment.start), segment.stop)

    def _without_score(self, attempt: Attempt) -> CommandError:
        name = self.spec.metric.name
        if self.pattern is not None:
            return CommandError(
                f"trial {attempt.trial.number}: `{attempt.launch}` ended with exit code 0, and no line of its output "
                f"matches metric_pattern {self.pattern!r}. Its output is in {files.shown(attempt.log)}. Completed work "
                "is saved."
            )
        keys = ", ".join(attempt.reports.keys) or "nothing"
        line = json.dumps({name: 2.1})
        return CommandError(
            f"trial {attempt.trial.number}: `{attempt.launch}` ended with exit code 0 and without a score: it "
            f"reported {keys}, and metric is {name!r}. At the end of each run append a line such as {line} to the file "
            f"that {REPORT} names, "
            f"or in Python call autolora.current_trial().report(**{line}); or name what holds it by metric_file or "
            f"metric_pattern. Its output is in {files.shown(attempt.log)}. Completed work is saved."
        )

    def verify(self, trial: int) -> None:
        def steps(manifest: Manifest) -> int:
            config = Config.of(**manifest.config)
            return horizon(self.examples_of(config), config.batch_size)

        _, contents = self.trials.finished(trial, checkpoint.newest_files, steps)
        folder = self.work(trial)
        changed = work.missing(folder, contents[work.LISTING])
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise LostCheckpointError(
                f"{files.shown(folder)} is not as the command has left it: {changed[0]}{more} is gone or has changed"
            )

    def test(self, trial: int) -> float | None:
        return None

    def test_cost(self) -> float:
        return 0.0

    def export(self, trial: int, folder: Path) -> None:
        self.verify(trial)
        work.export(self.work(trial), folder)

    def check(self, variants: Sequence[str], space: Space, baselines: Mapping[str, Config]) -> None:
        """Nothing that is common to all commands; subclasses look at their own settings."""

    def can_be_timed(self) -> bool:
        return False

    def about(self) -> Mapping[str, Sequence[str]]:
        lines = [f"output of each trial in {LOGS}/<trial>.log of the run directory"]
        if not self.settings.early_stop:
            lines.append("every trial is trained to the end, as early_stop is false: none is stopped on the way")
        return {"training": lines}


class CommandTrainer(ProcessTrainer):
    """Runs the command line of the specification."""

    settings: CommandTrainerSpec

    @property
    def pattern(self) -> str | None:
        return self.settings.metric_pattern

    def launch(self, trial: Trial) -> Launch:
        return Launch(self._line({**placeholders.values(trial), **self.place.values()}))

    @property
    def counts_gpus(self) -> bool:
        return "gpus" in placeholders.names("trainer.command", self.settings.command)

    def _line(self, values: Mapping[str, Any]) -> str:
        return placeholders.command_line("trainer.command", self.settings.command, values)

    def heard(self, trial: Trial) -> Heard | None:
        return None if self.pattern is None else pattern_reader(self.pattern, self.spec.metric.name, self._whose(trial))

    def score_file(self, trial: Trial) -> ScoreFile | None:
        template = self.settings.metric_file
        if template is None:
            return None
        values = placeholders.values(trial)
        path = placeholders.filled("trainer.metric_file", template, values)
        return ScoreFile(Path(str(self.settings.cwd)) / files.expanded(path), self.spec.metric.name, self._whose(trial))

    def _whose(self, trial: Trial) -> str:
        line = " ".join(self.settings.command.split())
        return f". Trial {trial.number}: `{shortened(line)}`; its output is in {files.shown(self.log(trial.number))}"

    def fingerprints(self) -> Mapping[str, str]:
        return {"command": self.settings.command, **super().fingerprints()}

    def about(self) -> Mapping[str, Sequence[str]]:
        return {"command": [" ".join(self.settings.command.split())], **super().about()}

    def check(self, variants: Sequence[str], space: Space, baselines: Mapping[str, Config]) -> None:
        texts = {"trainer.command": self.settings.command}
        if self.settings.metric_file is not None:
            texts["trainer.metric_file"] = self.settings.metric_file
        usage.check(texts, variants, space, baselines)
        names = placeholders.names("trainer.command", self.settings.command)
        self._line(
            {**dict.fromkeys(names, 0), "folder": self.work(0)}
        )  # may stand inside quotes, in this folder or none
        for warning in usage.doubts(self.settings, variants, space):
            warnings.warn(warning, stacklevel=2)
