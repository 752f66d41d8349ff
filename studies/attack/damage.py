"""Every kind of damage to every file of a study, at three moments, and then each command."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from studies.attack.case import CONCLUDED, READ, SAME, STAND_IN, TOLD, register
from studies.attack.judge import concluded, ended, read
from studies.attack.world import World

TEXT = "These are the notes that somebody saved under the wrong name.\n"
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 2071816\n"
)
FLIP_AT, CUT_AT = 0.5, 0.6
"""Where a bit is flipped, and where a file ends when it is cut short, as shares of its length."""


@dataclass(frozen=True)
class Target:
    """A file or folder of a world.

    Attributes:
        name: in names of cases.
        find: paths of the ones to damage, beneath the world.
        names: what a message may name it by, besides the file's own name.
    """

    name: str
    find: Callable[[Path], list[Path]]
    names: tuple[str, ...] = ()


def _one(path: str) -> Callable[[Path], list[Path]]:
    return lambda world: [world / path]


def _newest(file: str) -> Callable[[Path], list[Path]]:
    """That file of the newest checkpoint of every trial; without a name, the checkpoint."""

    def find(world: Path) -> list[Path]:
        found = []
        for trial in sorted((world / "run" / "trials").iterdir()):
            checkpoints = sorted(trial.glob("step-*"))
            found += [checkpoints[-1] / file] if checkpoints else []
        return [path for path in found if path.exists()]

    return find


def _all(pattern: str) -> Callable[[Path], list[Path]]:
    return lambda world: sorted(world.glob(pattern))


RUN = ("run",)
TARGETS = (
    Target("spec.yaml", _one("run/spec.yaml"), RUN),
    Target("study.db", _one("run/study.db"), RUN),
    Target("best.json", _one("run/best.json"), RUN),
    Target(".lock", _one("run/.lock"), RUN),
    Target("manifest.json", _newest("manifest.json"), RUN),
    Target("adapter.safetensors", _newest("adapter.safetensors"), RUN),
    Target("optimizer.pt", _newest("optimizer.pt"), RUN),
    Target("checkpoint", _newest(""), RUN),
    Target("trials", _one("run/trials"), RUN),
    Target("data cache", _all("run/data/*.npz"), RUN),
    Target("best", _one("run/best"), RUN),
    Target("best adapter", _one("run/best/lora/adapter_model.safetensors"), RUN),
    Target("curvature cache", _all("cache/curvature/*.json"), ("curvature",)),
    Target("weights", _one("model/model.safetensors"), ("model",)),
    Target("config", _one("model/config.json"), ("model",)),
    Target("tokenizer", _one("model/tokenizer.json"), ("model", "tokenizer")),
    Target("train.jsonl", _one("data/train.jsonl"), ("data",)),
)
WHERE = {target.name: target for target in TARGETS}


def _flip(path: Path, world: World) -> None:
    content = bytearray(path.read_bytes())
    if path.name == "model.safetensors":
        # The exponent of the first parameter's first value, by which a study knows its model.
        content[8 + int.from_bytes(content[:8], "little") + 3] ^= 0x10
    elif content:
        content[int(len(content) * FLIP_AT)] ^= 0x10
    path.write_bytes(content)


def _cut(path: Path, world: World) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * CUT_AT)])


def _empty(path: Path, world: World) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.write_bytes(b"")


def _delete(path: Path, world: World) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _by_folder(path: Path, world: World) -> None:
    path.unlink()
    path.mkdir()


def _by_text(path: Path, world: World) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.write_text(TEXT)


def _by_pointer(path: Path, world: World) -> None:
    path.write_text(POINTER)


def _by_anothers(path: Path, world: World) -> None:
    """What another study of the same kind has there; its best candidate, where names differ."""
    theirs = world.another.folder / path.relative_to(world.folder)
    if not theirs.exists():
        others = sorted(world.another.folder.glob(f"run/trials/*/step-*/{path.name}"))
        others += sorted(world.another.folder.glob(f"{path.relative_to(world.folder).parent}/*{path.suffix}"))
        others += sorted(world.another.folder.glob("run/trials/*/step-*"))
        theirs = next(each for each in others if each.is_dir() == path.is_dir())
    if path.is_dir():
        shutil.rmtree(path)
        shutil.copytree(theirs, path)
    else:
        shutil.copyfile(theirs, path)


def _forbid(path: Path, world: World) -> None:
    path.chmod(0)


def _by_dangling_link(path: Path, world: World) -> None:
    _delete(path, world)
    path.symlink_to("nowhere")


FILES, BOTH = "files", "files and folders"
DAMAGES: dict[str, tuple[Callable[[Path, World], None], str]] = {
    "bit flip": (_flip, FILES),
    "truncated": (_cut, FILES),
    "emptied": (_empty, BOTH),
    "deleted": (_delete, BOTH),
    "replaced by a folder": (_by_folder, FILES),
    "replaced by text": (_by_text, BOTH),
    "permission denied": (_forbid, BOTH),
    "another study's": (_by_anothers, BOTH),
    "dangling link": (_by_dangling_link, BOTH),
}
FOLDERS = {"checkpoint", "trials", "best"}
POINTERS = {"weights", "tokenizer", "adapter.safetensors", "best adapter"}

COMMANDS: dict[str, tuple[str, ...]] = {
    "measured": ("tune",),
    "paused": ("status", "tune"),
    "killed": ("resume",),
    "finished": ("best", "export", "tune"),
}
"""What runs after the damage, one after the other, at each moment."""
FINISHED_EARLY = ("paused", "killed")
BEST = [SAME, STAND_IN, CONCLUDED, TOLD, READ]
"""The outcome of a case of several commands is the first of these that one of them had."""
ABSENT = {("paused", "best.json"), ("killed", "best.json")} | {
    (moment, target) for moment in ("paused", "killed") for target in ("best", "best adapter")
}
ABSENT |= {("finished", "optimizer.pt")}
"""What does not exist yet, or no longer matters."""
ONCE = {
    "curvature cache": "measured",
    ".lock": "paused",
    "data cache": "paused",
    "config": "finished",
    "tokenizer": "paused",
    "train.jsonl": "killed",
}
"""What is the same at every moment, or read at one alone: that moment."""


def attack(world: World, target: Target, damage: Callable[[Path, World], None], moment: str, commands: tuple) -> str:
    """Damage what a target finds at a moment, and run commands."""
    world.at(moment)
    world = replace(world, restrained=damage is _forbid)
    found = target.find(world.folder)
    assert found, f"nothing of {target.name} is there when {moment}"
    for path in found:
        damage(path, world)
    names = (*{path.name for path in found}, target.name, *target.names)
    outcomes = [_after(world, command, names) for command in commands]
    return min(outcomes, key=BEST.index)


def _after(world: World, command: str, names: tuple[str, ...]) -> str:
    match command:
        case "tune":
            return ended(world, world.tune(), names)
        case "resume":
            return ended(world, world.command("resume", "run"), names)
        case "finish":
            return concluded(world, world.command("finish", "run"), names)
        case "export":
            return read(world.command("export", "run", "--variant", "lora", "exported"), names)
        case _:
            return read(world.command(command, "run"), names)


def _register() -> None:
    for target, (name, (damage, on)), moment in itertools.product(TARGETS, DAMAGES.items(), COMMANDS):
        if moment != ONCE.get(target.name, moment if moment != "measured" else None):
            continue
        if (moment, target.name) in ABSENT or (on == FILES and target.name in FOLDERS):
            continue
        title = f"damage/{target.name}/{name}/{moment}"
        register(title, functools.partial(_case, target.name, damage, moment, COMMANDS[moment]))
    for target in sorted(POINTERS):
        register(
            f"damage/{target}/git-lfs pointer/finished",
            functools.partial(_case, target, _by_pointer, "finished", COMMANDS["finished"]),
        )
    for moment, (target, damage) in _finished_early():
        register(
            f"damage/{target}/{damage}/{moment}, then finish",
            functools.partial(_case, target, DAMAGES[damage][0], moment, ("finish",)),
        )


def _finished_early() -> Iterator[tuple[str, tuple[str, str]]]:
    """`finish` after the kinds of damage that keep a study from going on."""
    targets = ("spec.yaml", "study.db", "manifest.json", "adapter.safetensors", "checkpoint", "weights", "data cache")
    return itertools.product(FINISHED_EARLY, itertools.product(targets, ("emptied", "deleted", "another study's")))


def _case(target: str, damage: Callable[[Path, World], None], moment: str, commands: tuple, world: World) -> str:
    return attack(world, WHERE[target], damage, moment, commands)


_register()
