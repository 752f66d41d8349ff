"""What a command may end as: the undisturbed result, or a plain line that names the place; never a traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from studies.attack.case import CONCLUDED, READ, SAME, STAND_IN, TOLD, Wrong
from studies.attack.processes import Ran
from studies.attack.world import VARIANTS, World, result

TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^Exception ignored|^Fatal Python error", re.MULTILINE)
REFUSED = re.compile(r"^(error|Error|warning): ", re.MULTILINE)
USER = 2
INTERRUPTED, CLOSED_PIPE, NOTHING_TUNED = 130, 141, 3
MISSING_COMMAND = "No such command"
LOST = "is the best, and lost:"
"""What the console says of weights that are gone, before they are trained again or replaced."""
LAST_LINES = 12


def plain(ran: Ran) -> Ran:
    """What every command must be, whatever it ends with.

    Raises:
        Wrong: it hung, died of a signal that nobody sent, or printed a traceback.
    """
    if ran.code is None:
        raise Wrong(f"hangs: {_told(ran)}")
    if TRACEBACK.search(ran.output):
        raise Wrong(f"a traceback: {_told(ran)}")
    if ran.code < 0:
        raise Wrong(f"died of signal {-ran.code}: {_told(ran)}")
    return ran


def refused(ran: Ran, places: Iterable[str], code: int = USER) -> str:
    """The command must end with this status and a line that names one of the places.

    Args:
        places: texts, of which the output has one: a file, a key, a value.
    """
    plain(ran)
    places = list(places)
    if ran.code != code:
        raise Wrong(f"ends with {ran.code}, not {code}: {_told(ran)}")
    if MISSING_COMMAND in ran.output:
        raise Wrong(f"the command does not exist: {_told(ran)}")
    if not REFUSED.search(ran.output):
        raise Wrong(f"says no error: {_told(ran)}")
    if not any(place in ran.output for place in places):
        raise Wrong(f"names none of {', '.join(map(repr, places))}: {_told(ran)}")
    return TOLD


def ended(world: World, ran: Ran, places: Iterable[str]) -> str:
    """A call that tunes must end with the undisturbed result, with what stands in for a lost one, or be refused."""
    plain(ran)
    if ran.code == 0:
        return same(world, ran)
    return refused(ran, places)


def same(world: World, ran: Ran) -> str:
    """A call that tunes must succeed, with the undisturbed result or with what stands in for a lost one."""
    plain(ran)
    if ran.code != 0:
        raise Wrong(f"ends with {ran.code}, not 0: {_told(ran)}")
    try:
        found = result(world.run)
    except Exception as error:
        raise Wrong(
            f"succeeds, and its result cannot be read ({type(error).__name__}: {error}): {_told(ran)}"
        ) from None
    if found == world.reference:
        return SAME
    if stands_in(world, ran):
        return STAND_IN
    raise Wrong(f"another result than undisturbed, in {_different(world.reference, found)}: {_told(ran)}")


def concluded(world: World, ran: Ran, places: Iterable[str]) -> str:
    """``finish`` must write results of complete runs, or say what keeps it from that."""
    plain(ran)
    if ran.code == NOTHING_TUNED:
        return refused(ran, ["nothing was tuned"], NOTHING_TUNED)
    if ran.code != 0:
        return refused(ran, places)
    try:
        best = json.loads((world.run / "best.json").read_text())
    except (OSError, ValueError) as error:
        raise Wrong(f"succeeds without a result ({error}): {_told(ran)}") from None
    for name, tuned in best["variants"].items():
        if tuned["adapter_dir"] and not (world.run / "best" / name / "adapter_config.json").is_file():
            raise Wrong(f"a result without the adapter of {name}: {_told(ran)}")
    return CONCLUDED


def read(ran: Ran, places: Iterable[str]) -> str:
    """A command that reads must show something, or say what it cannot read."""
    plain(ran)
    return READ if ran.code == 0 and ran.output.strip() else refused(ran, places)


def stands_in(world: World, ran: Ran) -> bool:
    """Whether output or result tell of what is lost, and all that is not is as undisturbed.

    Where a lost run amid a study has cost budget, later trials of all variants may be others.
    """
    (found, *_, table), adapters = result(world.run)
    (known, *_, trials), kept = world.reference
    touched = {name for name in found if found[name]["notes"] or f"[{name}] trial" in _lost_lines(ran)}
    untouched = set(VARIANTS) - touched
    whole = all(found[name] == known[name] and adapters[name] == kept[name] for name in untouched & set(found))
    return bool(touched) and set(found) == set(VARIANTS) and (whole or table != trials)


def _lost_lines(ran: Ran) -> str:
    return "\n".join(line for line in ran.output.splitlines() if LOST in line)


def _different(ours: object, theirs: object, where: str = "result") -> str:
    """Where two nested values differ first."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}, key=str):
            if ours.get(key) != theirs.get(key):
                return _different(ours.get(key), theirs.get(key), f"{where}.{key}")
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one != other:
                return _different(one, other, f"{where}[{index}]")
    return f"{where}: {str(ours)[:200]} -> {str(theirs)[:200]}"


def _told(ran: Ran) -> str:
    lines = ran.output.strip().splitlines()[-LAST_LINES:]
    return "\n".join([f"$ {ran.shown}", *(f"  {line}" for line in lines)])
