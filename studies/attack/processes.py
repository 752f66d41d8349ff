"""Real processes that run the command or a call, with their output in a file; some are hit while they work.

They are forked from a server that has imported everything, so that an interpreter's start, of five to ten seconds, is
paid once. What they do from there on is theirs: working directory, environment, user, limits, signals, exit status.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKED = multiprocessing.get_context("forkserver")
PRELOADED = [
    "accelerate",
    "alembic.command",
    "autolora.api",
    "autolora.cli",
    "autolora.driver",
    "autolora.recipes",
    "autolora.report.console",
    "autolora.report.status",
    "autolora.study.recorder",
    "datasets",
    "peft",
    "studies.attack.processes",
    "transformers.models.llama.modeling_llama",
]
TIMEOUT = 180.0
"""Seconds after which a process counts as hanging."""
OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of Linux: by these root reads and writes whatever permissions a file has."""
CAPABILITIES = 0x20080522
"""Version of the structures of capget(2)."""

WRITES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "sqlite3.connect")
"""Audit events of file calls. `os.fsync` has none and is wrapped."""

_STARTING = threading.Lock()  # a process is polled by one thread at a time, or its exit status is lost


@dataclass(frozen=True)
class Fault:
    """A signal that a process sends itself at a file call.

    Attributes:
        signum: the signal; 0 for none, to count the calls.
        at: texts that the call contains, as ``"os.rename"`` and ``"/.step-"``; empty for any call in the world.
        nth: which of those calls, from 1.
        log: file that gets a line for each of them; None for none.
    """

    signum: int
    at: tuple[str, ...] = ()
    nth: int = 1
    log: str | None = None


@dataclass(frozen=True)
class Setting:
    """What a process finds.

    Attributes:
        world: file calls beneath it count for a fault.
        cwd: working directory.
        environment: variables that are set.
        fault: what hits it.
        restrained: whether permissions hold for root's processes, too.
        limit: most bytes that a file may have (RLIMIT_FSIZE).
        closed: descriptors that are closed.
        pipe: path of a named pipe that is written to in place of the output file.
        piped: descriptors whose output goes into the pipe.
    """

    world: Path
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    restrained: bool = False
    limit: int | None = None
    closed: tuple[int, ...] = ()
    pipe: Path | None = None
    piped: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Ran:
    """A process that has ended.

    Attributes:
        shown: the command as one would type it.
        code: exit status; negative for a signal, None if it had to be killed as it hung.
        output: of stdout and stderr together.
        seconds: that it took.
    """

    shown: str
    code: int | None
    output: str
    seconds: float


class Running:
    """A process that was started; its output so far is in the file ``output``."""

    def __init__(self, shown: str, call: Callable[[], object], setting: Setting, output: Path) -> None:
        self.shown, self.output, self._began = shown, output, time.monotonic()
        output.write_bytes(b"")
        self._copying: threading.Thread | None = None
        if setting.limit is not None:  # which would hold for the output file as well
            setting = replace(setting, pipe=output.with_suffix(".pipe"), piped=(1, 2))
            self._copying = threading.Thread(target=_copy, args=(setting.pipe, output))
            os.mkfifo(output.with_suffix(".pipe"))
            self._copying.start()
        self._process: BaseProcess = FORKED.Process(target=_inside, args=(call, setting, str(output)))
        with _STARTING:
            self._process.start()

    def wait(self, seconds: float = TIMEOUT) -> Ran:
        """Wait until it ends; one that does not is killed."""
        if not self.ends_within(seconds):
            self.signal(signal.SIGKILL)
            wait([self._process.sentinel])
            return Ran(self.shown, None, self.text(), time.monotonic() - self._began)
        with _STARTING:
            self._process.join()
            code = self._process.exitcode
        if self._copying is not None:
            self._copying.join()
        return Ran(self.shown, code, self.text(), time.monotonic() - self._began)

    def ends_within(self, seconds: float) -> bool:
        return bool(wait([self._process.sentinel], seconds))

    def signal(self, signum: int) -> None:
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self._process.pid, signum)

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def says(self, text: str, seconds: float = TIMEOUT) -> bool:
        """Wait until its output contains a text; False if it ends or the time passes before."""
        until = time.monotonic() + seconds
        while text not in self.text():
            if time.monotonic() > until or self.ends_within(0.02):
                return text in self.text()
        return True


def _copy(pipe: Path, output: Path) -> None:
    """Copy what is written to a named pipe into a file, to its end."""
    with pipe.open("rb") as source, output.open("ab", buffering=0) as target:
        shutil.copyfileobj(source, target)


def preload() -> None:
    """Start the server that has imported everything, and wait for it."""
    FORKED.set_forkserver_preload(PRELOADED)
    first = FORKED.Process(target=int)
    first.start()
    first.join()


def autolora(argv: Sequence[str]) -> None:
    """What the console script does."""
    sys.argv = ["autolora", *argv]
    from autolora.cli import main

    main()


def fresh(argv: Sequence[str]) -> None:
    """What the console script does, in an interpreter that starts now."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    os.execv(sys.executable, [sys.executable, "-c", "from autolora.cli import main; main()", *argv])


def _inside(call: Callable[[], object], setting: Setting, output: str) -> None:
    """The start of a process."""
    os.setpgid(0, 0)
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if setting.pipe is not None:
        os.close(descriptor)
        descriptor = os.open(setting.pipe, os.O_WRONLY)
        for piped in setting.piped:
            os.dup2(descriptor, piped)
    os.close(descriptor)
    # As an interpreter makes them when it starts: the server's are for another kind of file.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.update(setting.environment)
    os.chdir(setting.cwd)
    if setting.restrained and os.getuid() == 0:
        _give_up_overrides()
    if setting.limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (setting.limit, setting.limit))
    for closed in setting.closed:
        os.close(closed)
    if setting.fault is not None:
        inject(setting.fault, str(setting.world))
    call()


def _give_up_overrides() -> None:
    """From now on permissions of files hold for this process, although it is root's.

    Another user would be simpler, but may not read the interpreter's own files.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; and the same of capabilities above 31
    if libc.capget(header, sets) == 0:
        sets[0] &= ~OVERRIDES
        sets[1] &= ~OVERRIDES
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def inject(fault: Fault, world: str) -> None:
    """From now on this process counts its file calls beneath a folder, and sends itself a signal at one of them."""
    seen = 0

    def called(name: str) -> None:
        nonlocal seen
        if not all(text in name for text in fault.at):
            return
        seen += 1
        if fault.log is not None:
            descriptor = os_open(fault.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.write(descriptor, f"{name}\n".encode(errors="replace"))
            os.close(descriptor)
        if seen == fault.nth and fault.signum:
            os.kill(os.getpid(), fault.signum)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in WRITES and arguments and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path.startswith(world) and path != fault.log:
                called(f"{event} {path}")

    os_open, fsync = os.open, os.fsync

    def fsynced(descriptor: int) -> None:
        path = os.path.realpath(f"/proc/self/fd/{descriptor}")
        if path.startswith(world):
            called(f"fsync {path}")
        fsync(descriptor)

    os.fsync = fsynced  # type: ignore[assignment]
    sys.addaudithook(hook)
