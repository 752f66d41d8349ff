"""A command in a session of its own, with all that it starts, which ends with this process whatever ends that."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

import psutil

from autolora.trainers.command import guard
from autolora.trainers.command.errors import CommandError

TRIAL, REPORT = "AUTOLORA_TRIAL", "AUTOLORA_REPORT"
"""Variables that a command finds: the file with its trial, and the one that it reports to."""
DYING_SECONDS = 30.0
"""Longest that a killed process may take to be gone."""
WAIT_SECONDS = 0.02
"""How often it is looked whether a process is gone."""
POSIX = os.name == "posix"


class Process:
    """A command that was started.

    Args:
        command: a line for the shell, or arguments.
        cwd: folder that it runs in.
        environment: all of it.
        output: file for what it writes to standard output and standard error.
        trial: file of its trial, which ``environment`` names.

    Raises:
        CommandError: it cannot be started.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        cwd: str,
        environment: Mapping[str, str],
        output: BinaryIO,
        trial: Path,
    ) -> None:
        self._trial = trial
        self._descriptor: int | None = None
        self._guard = _Guard(trial) if POSIX and sys.executable else None
        # A session of its own: a Ctrl-C in the terminal is for us, and we tell the command.
        windows = 0 if POSIX else getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        try:
            self._process = subprocess.Popen(
                command,
                shell=isinstance(command, str),
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=POSIX,
                creationflags=windows,
            )
        except (OSError, ValueError) as error:
            self._dismiss()
            raise CommandError(f"{command!r} cannot be started in {cwd}: {error}") from None
        if self._guard is not None:
            self._guard.watch(self._process.pid)
        self._descriptor = _descriptor_of(self._process.pid)

    @property
    def pid(self) -> int:
        """Of the command, or of the shell that runs it."""
        return self._process.pid

    def wait(self, seconds: float) -> int | None:
        """The exit code as soon as it has ended, negative for a signal; None if it runs on after so long."""
        if self._descriptor is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(seconds)
            return None
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll(1000 * seconds)
        return self._process.poll()

    def terminate(self, seconds: float) -> None:
        """Ask it, and all that it has started in its group, to end, and wait for that so long: a shell may be gone long
        before its command has saved what it wants to.
        """
        until = time.monotonic() + seconds
        self._signal(signal.SIGTERM)
        self.wait(seconds)
        while POSIX and _is_left(self._process.pid) and time.monotonic() < until:
            time.sleep(WAIT_SECONDS)

    def end(self) -> None:
        """Kill what is left of it, and of what it has started.

        Raises:
            CommandError: something cannot be killed.
        """
        try:
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
            self._process.wait()
            end_marked(self._trial)
        finally:
            self._dismiss()

    def _signal(self, number: signal.Signals) -> None:
        if POSIX:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended; zombies on macOS
                os.killpg(self._process.pid, number)
            return
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    each.terminate()
        self._process.terminate()

    def _dismiss(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Guard:
    """The process of :mod:`autolora.trainers.command.guard`, and our end of its pipe, which no other process holds."""

    _held: ClassVar[weakref.WeakSet[_Guard]] = weakref.WeakSet()

    def __init__(self, trial: Path) -> None:
        self._ours: int | None
        theirs, self._ours = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, os.fspath(trial)],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        self._held.add(self)

    def watch(self, group: int) -> None:
        """End this process group if we go."""
        self._tell(b"%d\n" % group)

    def dismiss(self) -> None:
        self._tell(guard.DONE)
        self.close()
        self._process.wait()

    def close(self) -> None:
        """Let go of our end, without a word."""
        if self._ours is not None:
            os.close(self._ours)
            self._ours = None
        self._held.discard(self)

    def _tell(self, message: bytes) -> None:
        if self._ours is not None:
            with contextlib.suppress(BrokenPipeError):  # it was killed; end_marked is left
                os.write(self._ours, message)


def _is_left(group: int) -> bool:
    """Whether there is a process in the group."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # zombies alone, on macOS
        return False
    return True


def _forget_guards() -> None:
    for each in list(_Guard._held):
        each.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_guards)


def end_marked(trial: Path) -> None:
    """Kill all processes of this machine whose environment names the file of a trial, but us and those that started us.

    Raises:
        CommandError: one cannot be killed.
    """
    deadline = time.monotonic() + DYING_SECONDS
    ours = {os.getpid(), *(each.pid for each in psutil.Process().parents())}
    while found := [each for each in psutil.process_iter() if each.pid not in ours and _is_marked(each, trial)]:
        for each in found:
            with contextlib.suppress(psutil.Error):
                each.kill()
        while any(_lives(each) for each in found):
            if time.monotonic() > deadline:
                pids = ", ".join(str(each.pid) for each in found if _lives(each))
                raise CommandError(
                    f"process {pids} trains the trial of {trial} and cannot be killed: end it, or restart the machine, "
                    "and rerun the same command"
                )
            time.sleep(WAIT_SECONDS)


def _is_marked(process: psutil.Process, trial: Path) -> bool:
    try:
        return bool(process.environ().get(TRIAL) == os.fspath(trial))
    except (psutil.Error, OSError):  # gone, or another user's
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _descriptor_of(pid: int) -> int | None:
    """One that becomes readable when the process ends; None where the platform has no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an older kernel, or a sandbox
        return None
