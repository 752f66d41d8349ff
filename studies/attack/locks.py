"""Others at the same study: readers, writers, a second driver, a second thread."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from studies.attack.case import SAME, TOLD, Wrong, register
from studies.attack.judge import ended, plain, refused, same
from studies.attack.world import World, result

HELD = 8.0
"""Seconds for which somebody holds the database: more than SQLite's and SQLAlchemy's own patience of 5."""
BEGINS = "[lora"
"""What a driver prints after its first segment."""


@contextlib.contextmanager
def _held(path: Path, statements: tuple[str, ...]) -> Iterator[None]:
    """Hold a database by a transaction, for HELD seconds or as long as the block takes, whichever is shorter."""
    done = threading.Event()
    ready = threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
            for statement in statements:
                connection.execute(statement).fetchall()
            ready.set()
            done.wait(HELD)
            connection.execute("ROLLBACK")

    holder = threading.Thread(target=hold)
    holder.start()
    ready.wait(60)
    try:
        yield
    finally:
        done.set()
        holder.join()


READS, WRITES, EXCLUSIVE = (
    ("BEGIN", "SELECT count(*) FROM trials"),
    ("BEGIN IMMEDIATE",),
    ("BEGIN EXCLUSIVE",),
)


def held_before(world: World, statements: tuple[str, ...]) -> str:
    """Somebody holds the database when a study is continued."""
    world.at("paused")
    with _held(world.run / "study.db", statements):
        ran = world.tune()
    return ended(world, ran, ["study.db"])


def held_while_it_runs(world: World, statements: tuple[str, ...]) -> str:
    """Somebody takes the database while a study runs."""
    world.at("fresh")
    running = world.start("tune", "study.yaml", "--dir", "run")
    if not running.says(BEGINS):
        raise Wrong(f"does not begin: {running.wait().output[-500:]}")
    with _held(world.run / "study.db", statements):
        ran = running.wait()
    return ended(world, ran, ["study.db"])


def held_while_others_read(world: World, command: str) -> str:
    """A command that reads a study whose database a writer holds."""
    world.at("finished")
    with _held(world.run / "study.db", WRITES):
        ran = plain(world.command(command, "run"))
    return "read" if ran.code == 0 else refused(ran, ["study.db"])


def second_driver(world: World) -> str:
    """The same command while the first one works."""
    world.at("fresh")
    first = world.start("tune", "study.yaml", "--dir", "run")
    if not first.says(BEGINS):
        raise Wrong(f"does not begin: {first.wait().output[-500:]}")
    second = world.tune()
    ran = first.wait()
    refused(second, ["in use"])
    return same(world, ran)


def driver_beside(world: World, command: str) -> str:
    """Another command that would write, while a driver works."""
    world.at("fresh")
    first = world.start("tune", "study.yaml", "--dir", "run")
    if not first.says(BEGINS):
        raise Wrong(f"does not begin: {first.wait().output[-500:]}")
    second = world.command(command, "run")
    ran = first.wait()
    refused(second, ["in use"])
    return same(world, ran)


def readers_all_the_time(world: World) -> str:
    """`status` and `best` one after the other, while a driver works."""
    world.at("fresh")
    running = world.start("tune", "study.yaml", "--dir", "run")
    running.says(BEGINS)
    while not running.ends_within(0.05):
        plain(world.command("status", "run"))
        plain(world.command("best", "run"))
    return same(world, running.wait())


def two_drivers_at_once(world: World) -> str:
    """Two that begin in the same moment: one works, the other is refused or finds all done."""
    world.at("fresh")
    both = [world.start("tune", "study.yaml", "--dir", "run") for _ in range(2)]
    rans = sorted((plain(each.wait()) for each in both), key=lambda ran: ran.code or 0)
    for ran in rans[1:]:
        if ran.code:
            refused(ran, ["in use"])
    return same(world, rans[0])


def _in_threads(spec: str, folders: list[str]) -> None:
    """Tune in several threads of this process, and print what each ends with."""
    import autolora
    from autolora.errors import AutoloraError

    def one(folder: str) -> None:
        try:
            autolora.tune(spec=spec, dir=folder)
        except AutoloraError as error:
            print(f"error: {folder}: {error}", flush=True)
        else:
            print(f"{folder}: done", flush=True)

    threads = [threading.Thread(target=one, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("all threads have ended", flush=True)


def threads(world: World, folders: tuple[str, ...]) -> str:
    """Several threads that tune: each is refused plainly or has the undisturbed result; and later calls still work."""
    world.at("fresh")
    ran = plain(world.call(_in_threads, "study.yaml", list(folders)))
    if "all threads have ended" not in ran.output:
        raise Wrong(f"threads do not end: {ran.output[-1500:]}")
    done = [folder for folder in dict.fromkeys(folders) if f"{folder}: done" in ran.output]
    for folder in set(folders) - set(done):
        if f"error: {folder}" not in ran.output:
            raise Wrong(f"{folder} ends without a word: {ran.output[-1500:]}")
    if not done:
        raise Wrong(f"none of the threads succeeds: {ran.output[-1500:]}")
    for folder in done:
        if result(world.folder / folder) != world.reference:
            raise Wrong(f"the thread of {folder} has another result: {ran.output[-500:]}")
    return SAME if len(done) == len(set(folders)) else TOLD


def stale_lock(world: World, content: bytes) -> str:
    """A lock file that a dead process left, whatever it says."""
    world.at("killed")
    (world.run / ".lock").write_bytes(content)
    return same(world, world.tune())


def deleted_while_held(world: World) -> str:
    """The lock file is deleted under a driver at work: nothing of the study is lost."""
    world.at("fresh")
    first = world.start("tune", "study.yaml", "--dir", "run")
    first.says(BEGINS)
    (world.run / ".lock").unlink()
    time.sleep(0.1)
    return same(world, first.wait())


def _register() -> None:
    holders = {"reader": READS, "writer": WRITES, "exclusive writer": EXCLUSIVE}
    for name, statements in holders.items():
        register(f"locks/{name} for {HELD:g} s/at a continued start", lambda w, s=statements: held_before(w, s))
        register(f"locks/{name} for {HELD:g} s/while it runs", lambda w, s=statements: held_while_it_runs(w, s))
    for command in ("status", "best"):
        register(f"locks/writer/{command}", lambda w, c=command: held_while_others_read(w, c))
    register("locks/second driver/tune", second_driver)
    for command in ("resume", "finish"):
        register(f"locks/second driver/{command}", lambda w, c=command: driver_beside(w, c))
    register("locks/second driver/at the same moment", two_drivers_at_once)
    register("locks/readers all the time", readers_all_the_time)
    register("locks/two threads/same directory", lambda w: threads(w, ("run", "run")))
    register("locks/two threads/different directories", lambda w: threads(w, ("run", "other")))
    register("locks/.lock deleted/while it runs", deleted_while_held)
    for name, content in {"of a dead process": b"1\n", "empty": b"", "not text": b"\xff\xfe\x00" * 99}.items():
        register(f"locks/.lock left/{name}", lambda w, c=content: stale_lock(w, c))


_register()
