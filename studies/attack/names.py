"""Names of run directories, models and data files that mean something to a shell, a URL, YAML or SQLite."""

from __future__ import annotations

import functools
import shutil

from studies.attack.case import SAME, TOLD, Wrong, register
from studies.attack.judge import concluded, plain, refused
from studies.attack.world import World, result

NAMES = {
    "question mark": "what?",
    "query": "run?mode=memory&cache=shared",
    "percent": "50%",
    "percent code": "a%25b",
    "percent slash": "a%2Fb",
    "variable": "${HOME}x",
    "dollar": "$HOME",
    "hash": "#1",
    "space": "my first run",
    "leading and trailing space": " run ",
    "newline": "new\nline",
    "tab": "a\tb",
    "quotes": 'it\'s "that"',
    "backslash": "a\\b",
    "backquote": "`date`",
    "semicolon": "a;b",
    "ampersand": "a&b=c",
    "star": "a*b",
    "brackets": "[a]{b}",
    "markup": "[bold]a[bold]",
    "tilde": "a~b",
    "leading dash": "-run",
    "leading dot": ".run",
    "trailing dot": "run.",
    "at and colon": "user:secret@host",
    "memory": ":memory:",
    "file URI": "file:run",
    "like SQLite's URL": "sqlite:",
    "umlaut": "ünï",
    "decomposed": "u\u0308",
    "Chinese": "微调",
    "emoji": "🦙",
    "right to left": "\u202erun",
    "200 letters": "r" * 200,
    "plus": "a+b",
    "comma": "a,b",
    "equals": "a=b",
    "colon": "a:b",
}
WHOLE = ("question mark", "percent code", "variable", "hash", "newline", "space")
"""Those that the model, the data and the working directory get as well."""


def run_directory(world: World, name: str) -> str:
    """A study in a directory of that name: all of it lies there, and every command finds it, from elsewhere too."""
    world.at("fresh")
    before = {path.name for path in world.folder.iterdir()} | {"cache"}
    folder = f"./{name}" if name.startswith("-") else name
    ran = plain(world.command("tune", "study.yaml", "--dir", folder))
    run = world.folder / name
    extra = {path.name for path in world.folder.iterdir()} - before - {name}
    if extra:
        raise Wrong(f"leaves {sorted(extra)} beside the run directory")
    if ran.code:
        return refused(ran, [name])
    if result(run) != world.reference:
        raise Wrong("another result than undisturbed")
    elsewhere = world.folder / "home"
    for command in (("status", run), ("best", run), ("export", run, "--variant", "lora", f"{world.folder}/out {name}")):
        again = plain(world.command(*command, cwd=elsewhere))
        if again.code:
            raise Wrong(f"{command[0]} from elsewhere ends with {again.code}: {again.output[-800:]}")
    return SAME


def told_apart(world: World, one: str, other: str) -> str:
    """Two directories whose names differ in what a URL would cut off do not share a study."""
    world.at("fresh")
    (world.folder / "other.yaml").write_text(world.spec.read_text() + "seed: 1\n")
    for spec, name in (("study.yaml", one), ("other.yaml", other)):
        ran = plain(world.command("tune", spec, "--dir", name))
        if ran.code:
            return refused(ran, [name])
        if not (world.folder / name / "study.db").is_file():
            raise Wrong(f"{name} has no study.db")
    if result(world.folder / one) != world.reference or result(world.folder / other) == world.reference:
        raise Wrong(f"{one} and {other} share a study")
    return SAME


def whole_world(world: World, name: str) -> str:
    """Working directory, model and data of that name."""
    world.at("fresh")
    room = world.folder / name
    room.mkdir()
    for file in ("model", "data", "study.yaml"):
        (world.folder / file).rename(room / file)
    (room / "model").rename(room / f"model {name}")
    (room / "data" / "train.jsonl").rename(room / "data" / f"train {name}.jsonl")
    elsewhere = World(room, world.stages, environment=(("AUTOLORA_CACHE", str(world.folder / "cache")),))
    elsewhere.respecified(model=f"model {name}", data__train=f"data/train {name}.jsonl")
    ran = plain(elsewhere.tune())
    if ran.code:
        return refused(ran, [name, repr(name)[1:-1]])
    return _alike(elsewhere, world)


def resumed_from_elsewhere(world: World, moment: str, command: str) -> str:
    """`resume` and `finish` from another working directory, where the paths of the specification lead nowhere."""
    world.at(moment)
    ran = plain(world.command(command, world.run, cwd=world.folder / "home"))
    if command == "finish":
        return concluded(world, ran, [])
    if ran.code:
        raise Wrong(f"ends with {ran.code}: {ran.output[-800:]}")
    if result(world.run) != world.reference:
        raise Wrong("another result than undisturbed")
    return SAME


def moved(world: World, moment: str) -> str:
    """The run directory is moved: the same call there goes on, and what reads it works."""
    world.at(moment)
    elsewhere = world.folder / "elsewhere"
    elsewhere.mkdir()
    shutil.move(world.run, elsewhere / "run")
    ran = plain(world.command("tune", "study.yaml", "--dir", elsewhere / "run"))
    if ran.code:
        raise Wrong(f"ends with {ran.code}: {ran.output[-800:]}")
    if result(elsewhere / "run") != world.reference:
        raise Wrong("another result than undisturbed")
    read = plain(world.command("export", elsewhere / "run", "--variant", "lora", "out"))
    if read.code:
        raise Wrong(f"export ends with {read.code}: {read.output[-800:]}")
    return SAME


def _alike(elsewhere: World, world: World) -> str:
    """Scores and trials are those of the undisturbed study; files of adapters name the model, whose name differs."""
    if result(elsewhere.run) != world.reference:
        raise Wrong("another result than undisturbed")
    return SAME


def linked(world: World, target: str) -> str:
    """The run directory is a symbolic link."""
    world.at("fresh")
    if target == "somewhere":
        (world.folder / target).mkdir()
    world.run.symlink_to(target)
    ran = plain(world.tune())
    if ran.code:
        return refused(ran, ["run"])
    return SAME if result(world.run) == world.reference else TOLD


def _register() -> None:
    for title, name in NAMES.items():
        register(f"names/run directory/{title}", functools.partial(_run_directory, name))
    for title in WHOLE:
        register(f"names/model, data and working directory/{title}", functools.partial(_whole_world, NAMES[title]))
    for title, one, other in (
        ("question marks", "a?x", "a?y"),
        ("percent codes", "a%62", "ab"),
        ("hashes", "a#x", "a#y"),
        ("variables", "${NOTHING}a", "a"),
    ):
        register(f"names/told apart/{title}", functools.partial(_told_apart, one, other))
    for moment in ("paused", "killed", "finished"):
        for command in ("resume", "finish"):
            register(f"names/from elsewhere/{command}/{moment}", functools.partial(_elsewhere, moment, command))
        register(f"names/moved/{moment}", functools.partial(_moved, moment))
    for target in ("somewhere", "nowhere"):
        register(f"names/linked/{target}", functools.partial(_linked, target))


def _run_directory(name: str, world: World) -> str:
    return run_directory(world, name)


def _whole_world(name: str, world: World) -> str:
    return whole_world(world, name)


def _told_apart(one: str, other: str, world: World) -> str:
    return told_apart(world, one, other)


def _elsewhere(moment: str, command: str, world: World) -> str:
    return resumed_from_elsewhere(world, moment, command)


def _moved(moment: str, world: World) -> str:
    return moved(world, moment)


def _linked(target: str, world: World) -> str:
    return linked(world, target)


_register()
