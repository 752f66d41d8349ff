"""SIGKILL at random moments and at every file call: nothing is lost."""

from __future__ import annotations

import functools
import random
import signal
import time

from studies.attack.case import SAME, Wrong, register
from studies.attack.judge import INTERRUPTED, TRACEBACK, same
from studies.attack.processes import Fault
from studies.attack.world import COMMIT, World

RUNS, KILLS_A_RUN = 6, 30
"""Studies that are killed at random, and how often each at least; one that ends before begins again."""
SHORTEST, LONGEST = 0.03, 0.3
"""A life, as a share of what the undisturbed study takes."""
MOST_LIVES = 400


def at_random(world: World, number: int) -> str:
    """Lives of random length, until as many kills are reached; every study that ends is as undisturbed."""
    rng = random.Random(number)
    began = time.monotonic()
    world.at("fresh")
    same(world, world.tune())
    whole = time.monotonic() - began
    kills = studies = 0
    while kills < KILLS_A_RUN:
        world.at("fresh")
        studies += 1
        while True:
            life = whole * rng.uniform(SHORTEST, LONGEST) if kills < KILLS_A_RUN else None
            running = world.start("tune", "study.yaml", "--dir", "run")
            if life is None or running.ends_within(life):
                same(world, running.wait())
                break
            running.signal(signal.SIGKILL)
            kills += _buried(running.wait())
    return f"{SAME}: {kills} kills, {studies} {'study' if studies == 1 else 'studies'}"


def at_every_call(world: World, at: tuple[str, ...], signum: int) -> str:
    """The n-th life ends at its n-th file call of that kind, until a life has fewer: all calls of a study are hit."""
    world.at("fresh")
    for nth in range(1, MOST_LIVES):
        ran = world.tune(fault=Fault(signum, at, nth))
        if ran.code == 0:
            same(world, ran)
            return f"{SAME}: {nth - 1} kills"
        if TRACEBACK.search(ran.output) or ran.code not in (-signum, INTERRUPTED):
            raise Wrong(f"life {nth} ends with {ran.code}: {ran.output[-1000:]}")
    raise Wrong(f"does not end within {MOST_LIVES} lives")


def again_and_again(world: World, at: tuple[str, ...], moment: str) -> str:
    """Every file call of what follows a moment, each hit from the same state, and then the undisturbed end."""
    kills = 0
    for nth in range(1, MOST_LIVES):
        world.at(moment)
        ran = world.tune(fault=Fault(signal.SIGKILL, at, nth))
        if ran.code == 0:
            return f"{SAME}: {kills} kills"
        kills += _buried(ran)
        same(world, world.tune())
    raise Wrong(f"does not end within {MOST_LIVES} lives")


def _buried(ran: object) -> int:
    """1 for a process that a signal ended.

    Raises:
        Wrong: it ended otherwise, or said more than it should.
    """
    code, output = ran.code, ran.output  # type: ignore[attr-defined]
    if code == 0:
        return 0
    if code != -signal.SIGKILL or TRACEBACK.search(output):
        raise Wrong(f"ends with {code} before it is killed: {output[-1000:]}")
    return 1


def _register() -> None:
    for number in range(RUNS):
        register(f"kills/at random/{number}", lambda w, n=number: at_random(w, n))
    for name, at in {
        "every file call": (),
        "every rename": ("os.rename",),
        "every fsync": ("fsync",),
        "every removal": ("os.rmdir",),
        "every commit": COMMIT,
    }.items():
        register(f"kills/{name}", functools.partial(_at_every_call, at, signal.SIGKILL))
    register("kills/every rename by SIGTERM", functools.partial(_at_every_call, ("os.rename",), signal.SIGTERM))
    register("kills/every rename by SIGINT", functools.partial(_at_every_call, ("os.rename",), signal.SIGINT))
    for name, at in {
        "every file call of the end": ("/best",),
        "every whole file of the end": (".tmp",),
    }.items():
        register(f"kills/{name}", functools.partial(_again_and_again, at, "finished"))


def _at_every_call(at: tuple[str, ...], signum: int, world: World) -> str:
    return at_every_call(world, at, signum)


def _again_and_again(at: tuple[str, ...], moment: str, world: World) -> str:
    return again_and_again(world, at, moment)


_register()
