"""Signals, pipes, limits and full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from studies.attack import processes
from studies.attack.case import SAME, TOLD, Skip, Wrong, register
from studies.attack.judge import CLOSED_PIPE, INTERRUPTED, USER, plain, read, refused, same
from studies.attack.locks import BEGINS
from studies.attack.processes import Fault, Ran
from studies.attack.world import World

MOMENTS = {
    "opening the specification": ("open", "study.yaml"),
    "taking the lock": ("open", ".lock"),
    "recording the specification": ("os.rename", "spec.yaml"),
    "reading the configuration": ("open", "model/config.json"),
    "reading the tokenizer": ("open", "model/tokenizer.json"),
    "reading the data": ("open", "train.jsonl"),
    "keeping the data": ("os.rename", ".npz"),
    "opening the study": ("sqlite3.connect",),
    "the first checkpoint": ("os.mkdir", "/.step-"),
    "a later checkpoint": ("os.rename", "/.step-000000004"),
    "exporting": ("os.rename", "adapter_model"),
    "writing best.json": ("os.rename", "best.json"),
}
"""File calls during which a signal arrives."""
SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}


def signaled(world: World, signum: int, at: tuple[str, ...]) -> str:
    """A signal at a file call: a line and a code, or the end if nothing was left to do; and then the same result."""
    world.at("fresh")
    ran = plain(world.tune(fault=Fault(signum, at)))
    if ran.code not in (0, INTERRUPTED):
        raise Wrong(f"ends with {ran.code}, not {INTERRUPTED}: {ran.output[-1000:]}")
    if ran.code and "Stopped." not in ran.output:
        raise Wrong(f"does not say that it stopped: {ran.output[-1000:]}")
    return same(world, world.tune())


def twice(world: World, signum: int) -> str:
    """The same signal twice within a step, as impatient users do."""
    world.at("fresh")
    running = world.start("tune", "study.yaml", "--dir", "run")
    running.says(BEGINS)
    running.signal(signum)
    running.signal(signum)
    time.sleep(0.01)
    running.signal(signum)
    ran = plain(running.wait())
    if ran.code not in (INTERRUPTED, 0):
        raise Wrong(f"ends with {ran.code}: {ran.output[-1000:]}")
    return same(world, world.tune())


def hung_up(world: World, signum: int) -> str:
    """Signals that end a process by default: the study continues later."""
    world.at("fresh")
    running = world.start("tune", "study.yaml", "--dir", "run")
    running.says(BEGINS)
    running.signal(signum)
    ran = running.wait()
    if ran.code is None or "Traceback" in ran.output:
        raise Wrong(f"{ran.code}: {ran.output[-1000:]}")
    return same(world, world.tune())


def closed_pipe(world: World, lines: int) -> str:
    """``autolora tune ... | head``: ends with a code of its own or goes on; the same result in the end."""
    ran = plain(_headed(world.at("fresh"), lines, "tune", "study.yaml", "--dir", "run"))
    if ran.code not in (0, CLOSED_PIPE):
        raise Wrong(f"ends with {ran.code}, not {CLOSED_PIPE}: {ran.output[-1000:]}")
    return same(world, world.tune())


def closed_pipe_of_reader(world: World, *argv: object) -> str:
    """The same of a command that reads."""
    ran = plain(_headed(world.at("finished"), 0, *argv))
    if ran.code not in (0, 1 if "--help" in argv else CLOSED_PIPE):  # help is click's own
        raise Wrong(f"ends with {ran.code}, not {CLOSED_PIPE}: {ran.output[-1000:]}")
    return TOLD if ran.code else SAME


def closed_pipe_of_both(world: World, lines: int) -> str:
    """``autolora tune ... 2>&1 | head``."""
    ran = plain(_headed(world.at("fresh"), lines, "tune", "study.yaml", "--dir", "run", piped=(1, 2)))
    if ran.code not in (0, CLOSED_PIPE):
        raise Wrong(f"ends with {ran.code}, not {CLOSED_PIPE}")
    return same(world, world.tune())


def _headed(world: World, lines: int, *argv: object, piped: tuple[int, ...] = (1,)) -> Ran:
    """A command whose output is read for that many lines and then closed."""
    pipe = world.folder / "pipe"
    os.mkfifo(pipe)
    running = world.start(*argv, pipe=pipe, piped=piped)
    with pipe.open("rb") as reading:
        for _ in range(lines):
            reading.readline()
    return running.wait()


def without(world: World, closed: tuple[int, ...]) -> str:
    """Standard streams that are closed from the start, as of some daemons."""
    world.at("fresh")
    words = ["tune", "study.yaml", "--dir", "run"]
    plain(world.call(processes.fresh, words, closed=closed))  # Python looks at them when it starts
    return same(world, world.tune())


def limited(world: World, most: int) -> str:
    """No file may become larger than that: a plain line; the same call without the limit ends as undisturbed."""
    world.at("fresh")
    ran = plain(world.tune(limit=most))
    if ran.code:
        refused(ran, ["run", "data", "study.db", "trials"])
    return same(world, world.tune())


def full_disk(world: World, room: int) -> str:
    """The run directory's disk is full after so many bytes, and gets more room later."""
    world.at("fresh")
    with _small_disk(world.run, room) as enlarge:
        ran = plain(world.tune())
        if ran.code == 0:
            raise Skip("the study fits")
        refused(ran, ["run", "study.db", "space", "full"])
        enlarge()
        return same(world, world.tune())


class _small_disk:
    """A file system of its own of that many bytes at a folder."""

    def __init__(self, folder: Path, room: int) -> None:
        self._folder, self._room = folder, room

    def __enter__(self) -> Callable[[], None]:
        self._folder.mkdir(exist_ok=True)
        self._mount(f"size={self._room}")
        return lambda: self._mount("remount,size=64m")

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._folder)], check=False)

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Skip(f"a small disk cannot be mounted: {done.stderr.strip()}")


def read_only(world: World, moment: str, command: tuple[object, ...], reads: bool) -> str:
    """A run directory in which nothing may be written."""
    world = replace(world.at(moment), restrained=True)
    for path in (world.run, *(each for each in world.run.rglob("*") if each.is_dir())):
        path.chmod(0o555)
    ran = world.command(*command)
    return read(ran, ["run"]) if reads else refused(ran, ["run"], USER)


def below_a_file(world: World) -> str:
    """A run directory below a file."""
    world.at("fresh")
    (world.folder / "notes").write_text("a file\n")
    return refused(world.command("tune", "study.yaml", "--dir", "notes/run"), ["notes"])


def _register() -> None:
    for name, signum in SIGNALS.items():
        for moment, at in MOMENTS.items():
            register(f"streams/{name}/{moment}", lambda w, s=signum, a=at: signaled(w, s, a))
        register(f"streams/{name} three times", lambda w, s=signum: twice(w, s))
    register("streams/SIGHUP", lambda w: hung_up(w, signal.SIGHUP))
    register("streams/SIGQUIT", lambda w: hung_up(w, signal.SIGQUIT))
    for lines in (0, 1, 8):
        register(f"streams/closed pipe/tune, after {lines} lines", lambda w, n=lines: closed_pipe(w, n))
        register(f"streams/closed pipe/both, after {lines} lines", lambda w, n=lines: closed_pipe_of_both(w, n))
    for argv in (("best", "run"), ("best", "run", "--json"), ("status", "run"), ("variants",), ("--help",)):
        register(f"streams/closed pipe/{' '.join(argv)}", lambda w, a=argv: closed_pipe_of_reader(w, *a))
    for name, closed in {"stdout": (1,), "stderr": (2,), "stdin": (0,), "all": (0, 1, 2)}.items():
        register(f"streams/closed from the start/{name}", lambda w, c=closed: without(w, c))
    for most in (0, 4096, 40_000, 140_000):
        register(f"streams/RLIMIT_FSIZE/{most} bytes", lambda w, m=most: limited(w, m))
    for room in (16_384, 131_072, 400_000):
        register(f"streams/full disk/{room} bytes", lambda w, r=room: full_disk(w, r))
    register("streams/read-only/tune", lambda w: read_only(w, "paused", ("tune", "study.yaml", "--dir", "run"), False))
    for command in ("status", "best"):
        register(f"streams/read-only/{command}", lambda w, c=command: read_only(w, "finished", (c, "run"), True))
    register("streams/below a file", below_a_file)


_register()
