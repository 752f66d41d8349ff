"""What killed processes leave behind is gone after the next start."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from studies.attack.case import TOLD, Wrong, register
from studies.attack.judge import NOTHING_TUNED, plain, refused, same
from studies.attack.world import World

TOKEN = "0123456789abcdef0123456789abcdef"
STAGING = {
    "an adapter's staging folder": "run/best/.lora-abcd1234/adapter_model.safetensors",
    "a checkpoint's staging folder": "run/trials/4/.step-000000007-02-01234567.tmp/adapter.safetensors",
    "of a trial that is over": "run/trials/5/.step-000000007-02-01234567.tmp/adapter.safetensors",
    "spec.yaml": f"run/.spec.yaml.{TOKEN}.tmp",
    "best.json": f"run/.best.json.{TOKEN}.tmp",
    "a manifest": f"run/trials/5/step-000000012-03-01234567/.manifest.json.{TOKEN}.tmp",
    "data": f"run/data/.data-0123456789.npz.{TOKEN}.tmp",
    "settings of an adapter": f"run/best/lora/.autolora.yaml.{TOKEN}.tmp",
}
"""By what was being written: a file that a killed process leaves."""


def swept(world: World, moment: str, path: str) -> str:
    """A file that a killed process left is gone after the next call, and the result is as undisturbed."""
    world.at(moment)
    left = world.folder / path
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half")
    outcome = same(world, world.tune())
    if left.exists():
        raise Wrong(f"{path} is still there")
    return outcome


def nothing_left(world: World, moment: str) -> str:
    """A study that went on leaves nothing of what it staged."""
    world.at(moment)
    outcome = same(world, world.tune())
    left = [str(path.relative_to(world.folder)) for path in _staged(world.run)]
    if left:
        raise Wrong(f"leaves {', '.join(left)}")
    return outcome


def _staged(run: Path) -> Iterator[Path]:
    yield from (path for path in run.rglob(".*") if path.name != ".lock")


def users_files(world: World) -> str:
    """What a user keeps in a run directory stays."""
    world.at("killed")
    mine = [
        world.run / name for name in ("notes.tmp", ".notes", ".git/config", "best/.keep", "trials/.keep", "data/.x")
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine\n")
    outcome = same(world, world.tune())
    gone = [str(path.relative_to(world.folder)) for path in mine if not path.exists()]
    if gone:
        raise Wrong(f"removes {', '.join(gone)}")
    return outcome


def permissions(world: World, mask: int) -> str:
    """Files get the permissions that the umask leaves, and never more; none is executable."""
    world.at("fresh")
    previous = os.umask(0o022)
    os.umask(previous)
    ran = plain(world.call(_tune_with_umask, mask))
    outcome = same(world, ran)
    wrong = []
    for path in world.run.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & mask or (path.is_file() and mode & 0o111):
            wrong.append(f"{path.relative_to(world.folder)} {mode:o}")
    if wrong:
        raise Wrong(f"with umask {mask:o}: {', '.join(wrong)}")
    return outcome


def _tune_with_umask(mask: int) -> None:
    from studies.attack.processes import autolora

    os.umask(mask)
    autolora(["tune", "study.yaml", "--dir", "run"])


def nothing_tuned(world: World, **overrides: object) -> str:
    """No trial can be trained to the end: a code of its own, and why."""
    world.at("fresh").respecified(**overrides)
    refused(world.tune(), ["diverged", "infeasible", "memory"], NOTHING_TUNED)
    return TOLD


def scratch_folders(world: World) -> str:
    """Folders in the temporary folder are gone after a study that was killed and went on."""
    world.at("fresh")
    temporary = world.folder / "tmp"
    temporary.mkdir()
    ran = world.tune(environment={"TMPDIR": str(temporary)})
    outcome = same(world, ran)
    left = [path.name for path in temporary.iterdir()]
    if left:
        raise Wrong(f"leaves {', '.join(left)} in the temporary folder")
    shutil.rmtree(temporary)
    return outcome


def _register() -> None:
    for name, path in STAGING.items():
        register(f"litter/{name}", lambda w, p=path: swept(w, "killed", p))
    staged = STAGING["an adapter's staging folder"]
    register("litter/an adapter's staging folder/finished", lambda w: swept(w, "finished", staged))
    for moment in ("paused", "killed", "finished"):
        register(f"litter/nothing left/{moment}", lambda w, m=moment: nothing_left(w, m))
    register("litter/a user's files", users_files)
    register("litter/the temporary folder", scratch_folders)
    for mask in (0o022, 0o077, 0o000):
        register(f"litter/permissions/umask {mask:03o}", lambda w, m=mask: permissions(w, m))
    diverging: dict[str, object] = {
        "space": {"learning_rate": [300, 1000], "batch_size": 4, "rank": 2},
        "training__examples": 72,
        "prior": "laws",
    }
    register("litter/every trial diverges", lambda w: nothing_tuned(w, **diverging))


_register()
