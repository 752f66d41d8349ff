"""One run of a command for a segment: started, listened to, and ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from autolora import files
from autolora.adapters.memory import size
from autolora.trainers.command import endings, memory
from autolora.trainers.command.errors import CommandError
from autolora.trainers.command.here import Here
from autolora.trainers.command.lines import Lines
from autolora.trainers.command.parts import Part, Peer, Start, Whole
from autolora.trainers.command.process import REPORT, TRIAL
from autolora.trainers.command.reports import Report, Reports, malformed
from autolora.trainers.trainer import Interrupted, LostSegment, OnStep, Progress, SignOfLife
from autolora.trainers.trial import Trial

POLL_SECONDS = 0.1
"""How often it is looked at what a command has reported."""
GRACE_SECONDS = 60.0
"""Longest that a command that is asked to stop may take for a checkpoint of its own."""
TOLERANCE = 0.1
"""A command may stop this share of what it is told to, and a batch, away from it."""
TAIL_LINES = 20
"""Last lines of output, which an error shows."""

Heard: TypeAlias = Callable[[str], "Mapping[str, object] | None"]
"""What a line of output reports, as a line of the file of reports would; None if nothing."""


@dataclass(frozen=True)
class Launch:
    """What runs a segment.

    Attributes:
        command: a line for the shell, or arguments.
        files: to be written first, by path.
        environment: variables beside those of this process, AUTOLORA_TRIAL and AUTOLORA_REPORT.
    """

    command: str | Sequence[str]
    files: Mapping[Path, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.command if isinstance(self.command, str) else " ".join(map(files.argument, self.command))


@dataclass(frozen=True)
class Ended:
    """How a command has ended.

    Attributes:
        kind: "done", "diverged" or "infeasible", which is for lack of memory.
        reason: in words, unless it is done.
    """

    kind: Literal["done", "diverged", "infeasible"]
    reason: str = ""


@dataclass
class Attempt:
    """One run of a command for a segment of a trial.

    Attributes:
        launches: what runs on each node, this one first.
        trial: the segment.
        cwd: folder that it runs in.
        told: file with the trial.
        reported: file that it reports to, which nothing else has written to.
        log: file that its output is appended to.
        reports: what has been reported of the trial.
        stops: whether it is to stop at the segment's end.
        stall_seconds: a command that neither reports nor prints for so long is lost.
        gpus: ``resources.gpu``.
        peers: the other nodes, one for each further launch.
        heard: reads the output; None if nobody does.
        most_memory: bytes that its processes on one node may take, by ``max_memory``; None means as many as there are.
        peak: most bytes that its processes on one node had resident at once, of the node that had most.
        timed: seconds between the first and the last report of this run that said how far it was, and the examples
            trained between them; None if there were no two.
    """

    launches: Sequence[Launch]
    trial: Trial
    cwd: str
    told: Path
    reported: Path
    log: Path
    reports: Reports
    stops: bool
    stall_seconds: float
    gpus: float | None = None
    peers: Sequence[Peer] = ()
    heard: Heard | None = None
    most_memory: int | None = None
    peak: int = 0
    timed: tuple[float, float] | None = None
    _first: tuple[float, int] | None = None

    @property
    def launch(self) -> Launch:
        """What runs on this node."""
        return self.launches[0]

    def run(self, on_step: OnStep | None) -> Ended:
        """Run it to its end.

        Raises:
            CommandError: it failed, reported what cannot be read, or does not stop where it is told to.
            LostSegment: it was killed, or has stalled.
            Interrupted: ``on_step`` asked to stop; it was asked to end, and has ended.
        """
        self.reported.parent.mkdir(parents=True, exist_ok=True)
        self.reported.touch()
        self._whole = Whole(self._started())
        self._lines = Lines(self.reported)
        self._output = Lines(self.log, self._here.begins)
        self._alive = time.monotonic()
        self._size = -1
        try:
            ended = self._listen(on_step or (lambda progress: None))
        except Interrupted:
            self._whole.terminate(GRACE_SECONDS)
            raise
        finally:
            self._whole.end()
        return ended if isinstance(ended, Ended) else self._judged(ended)

    def _started(self) -> Sequence[Part]:
        """The parts on all nodes; none runs if one cannot be started."""
        for peer in self.peers:
            peer.prepare(self.told)
        title = f"trial {self.trial.number}, {self.trial.variant}, to {self.trial.stop:.3g} of a run"
        self._here = Here(self._start(0), title)
        parts: list[Part] = [self._here]
        try:
            parts += [peer.start(self._start(number)) for number, peer in enumerate(self.peers, start=1)]
        except BaseException:
            Whole(parts).end()
            raise
        return parts

    def _start(self, number: int) -> Start:
        """What is started on a node. The first one's reports count; its log has the trial's name alone."""
        launch = self.launches[number]
        reported = self.reported if number == 0 else os.devnull
        return Start(
            command=launch.command,
            cwd=self.cwd,
            environment={**launch.environment, TRIAL: os.fspath(self.told), REPORT: os.fspath(reported)},
            told=self.told,
            log=self.log if number == 0 else self.log.with_suffix(f".node{number}.log"),
            gpus=self.gpus,
        )

    def _listen(self, on_step: OnStep) -> Sequence[int] | Ended:
        """The exit codes, or that the training has diverged or taken more memory than it may."""
        while True:
            codes = self._whole.wait(POLL_SECONDS)
            self.peak = max(self.peak, self._whole.resident())
            if self._exceeds():
                return Ended("infeasible", self._too_much())
            reason = self._read(on_step, ended=codes is not None)
            if reason is not None:
                return Ended("diverged", reason)
            if codes is not None:
                return codes
            size = self._here.size + self._lines.offset
            now = time.monotonic()
            if size != self._size:
                self._size, self._alive = size, now
            elif now - self._alive > self.stall_seconds:
                raise LostSegment(
                    f"its command has neither reported nor printed anything for {self.stall_seconds / 60:g} minutes "
                    f"(resources.stall_minutes); its output is in {files.shown(self.log)}"
                )
            on_step(SignOfLife(*self._progress(), signs=size))

    def _exceeds(self) -> bool:
        """Whether more memory was taken than may be, as it was seen or is reported in bytes."""
        said = self.reports.said.get("peak_memory")
        if isinstance(said, (int, float)):
            self.peak = max(self.peak, int(said))
        return self.most_memory is not None and self.peak > self.most_memory

    def _too_much(self) -> str:
        return f"its processes took {size(self.peak)}, and max_memory is {size(self.most_memory or 0)}"

    def _progress(self) -> tuple[int, int, int, float]:
        return self.trial.number, self.reports.step, self.trial.steps or 0, self.reports.loss

    def _read(self, on_step: OnStep, ended: bool) -> str | None:
        """Take in what has been reported; returns why the training has diverged, or None."""
        if self.heard is not None:
            self._read_output(self.heard, ended)
        for number, line, whole in self._lines.new(ended):
            try:
                taken = self.reports.take(line)
            except ValueError as error:
                if not whole:  # cut short when it was killed
                    return None
                raise malformed(self.reported, number, error) from None
            if taken is None:
                continue
            report, reason = taken
            if reason is not None:
                return reason
            self._check_stop(report)
            self._time(report)
            if report.loss is not None or report.step is not None or report.examples is not None:
                on_step(Progress(*self._progress()))
        return None

    def _time(self, report: Report) -> None:
        if self.reports.examples is None or (report.step is None and report.examples is None):
            return
        now, examples = time.monotonic(), self.reports.examples
        if self._first is None or examples < self._first[1]:
            self._first = now, examples
        elif examples > self._first[1]:
            self.timed = now - self._first[0], examples - self._first[1]

    def _read_output(self, heard: Heard, ended: bool) -> None:
        """Write what the output says to the file of reports, where later segments find it."""
        found = [report for _, line, _ in self._output.new(ended) if (report := heard(line)) is not None]
        if found:
            with self.reported.open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(each)}\n" for each in found)

    def _check_stop(self, report: Report) -> None:
        until, batch = self.trial.stop_examples, int(self.trial.config["batch_size"])
        if not self.stops or until is None:
            return
        seen = report.examples
        if seen is None and report.step is not None:
            seen = report.step * batch
        if seen is not None and seen > (1 + TOLERANCE) * until + batch:
            said = f"{seen} examples"
            if report.examples is None:
                said = f"step {report.step} with batch_size {batch}, which is {said}"
            whole = f" of {self.trial.examples}" if self.trial.stop < 1.0 else ", a full run (examples)"
            raise CommandError(
                f"trial {self.trial.number}: `{shortened(str(self.launch))}` goes on at {said}, and was to stop at "
                f"{until}{whole}. Let it stop after {{stop_examples}} examples, or {{stop_steps}} optimizer steps, and "
                "go on from its folder when it is run again; or set early_stop: false, which trains every trial to "
                f"the end. Its output is in {files.shown(self.log)}. Completed work is saved."
            )

    def check_reached(self) -> None:
        """Check that a command that has ended well is near where it was to stop, by its reports.

        Raises:
            CommandError: it is not.
        """
        until, batch, seen = self.trial.stop_examples, int(self.trial.config["batch_size"]), self.reports.examples
        if not self.stops or until is None or seen is None:
            return
        # Of a command that reports every 100 steps, the last 99 are not heard of.
        if until - seen > max(TOLERANCE * until + batch, self.reports.gap):
            raise CommandError(
                f"trial {self.trial.number}: `{shortened(str(self.launch))}` ended with exit code 0 and "
                f"reported {seen} examples at last, and was to train to {until} (of {self.trial.examples}, a full "
                "run). Let it train until {stop_examples} examples, or {stop_steps} optimizer steps, since the "
                "beginning of the trial, and report those; or correct trainer.examples. Its output is in "
                f"{files.shown(self.log)}. Completed work "
                "is saved."
            )

    def _judged(self, codes: Sequence[int]) -> Ended:
        if not any(codes):
            return Ended("done")
        tails = self._whole.tails()
        found = [
            (endings.of(code, tail), number)
            for number, (code, tail) in enumerate(zip(codes, tails, strict=True))
            if code
        ]
        ending, number = min(found, key=lambda each: endings.WEIGHT.index(each[0].kind))
        log = files.shown(self._start(number).log)
        on_node = f" on node {number} of {len(codes)}" if len(codes) > 1 else ""
        if ending.kind == "memory":
            return Ended("infeasible", f"its command ran out of memory{on_node}: {shortened(ending.said)}")
        if ending.kind == "contact":
            said = f"its processes lost one another{on_node}: {shortened(ending.said)}"
            raise LostSegment(f"{said}; output of its command is in {log}")
        if ending.kind != "error":
            raise LostSegment(f"its command{on_node} {ending.said}; its output is in {log}")
        shown = "\n".join(f"  {line}" for line in memory.of_program(tails[number])[-TAIL_LINES:]) or "  (none)"
        raise CommandError(
            f"trial {self.trial.number}: `{shortened(str(self.launches[number]))}` in {files.shown(self.cwd)}"
            f"{on_node} ended with exit code {codes[number]}. Its last lines of output:\n{shown}\nAll of it is in "
            f"{log}. "
            "Completed work is saved. Fix the problem and rerun the same command; another trainer.command needs "
            "another --dir."
        )


def shortened(text: str, most: int = 300) -> str:
    """A command or its output on one line, cut to a length."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
