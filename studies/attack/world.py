"""A small world to disturb: a model, data, a specification and a run directory, in known stages of a study.

Paths are part of what a study records, so a world is always at the same place: a slot restores it for each case.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from autolora import quickstart
from studies.attack import processes
from studies.attack.processes import Fault, Ran, Running, Setting
from tests.support.outcome import outcome

SPEC: dict[str, Any] = {
    "model": "model",
    "data": {
        "train": "data/train.jsonl",
        "eval": "data/eval.jsonl",
        "test": "data/test.jsonl",
        "eval_size": 16,
        "test_size": 8,
    },
    "variants": ["lora", "pissa"],
    "space": {"learning_rate": [1e-4, 3e-2], "batch_size": [4, 8], "rank": [2, 4]},
    "training": {"examples": 32, "max_length": 64, "device": "cpu", "checkpoint_seconds": 0},
    "prior": {"curvature": True},
    "budget": 3,
}
"""Every step makes a checkpoint, so that there is something to damage and to be killed at."""
ROWS = {"train": ("train.jsonl", 0, 200), "eval": ("test.jsonl", 0, 32), "test": ("test.jsonl", 32, 16)}
"""Of the shipped task: file, first row, number of rows."""
STAGES = ("fresh", "measured", "paused", "killed", "finished")
"""Nothing begun; the same, with the curvature that an earlier study measured; stopped by SIGINT in the middle; by
SIGKILL in the middle; done."""
COMMIT = ("os.rename", "/.step-")
"""The file call that makes a checkpoint count."""
PAUSED_AT, KILLED_AT = 0.5, 0.7
"""When, as a share of all commits of the undisturbed study."""
VARIANTS = tuple(SPEC["variants"])


Outcome: TypeAlias = tuple[tuple[Any, ...], dict[str, str | None]]
"""Of a study: see :func:`tests.support.outcome.outcome`, and the digests of the adapters."""


@dataclass(frozen=True)
class World:
    """A world at the moment when a case begins. Commands run in its folder.

    Attributes:
        folder: of everything; :attr:`run` and the others lie in it.
        stages: where the slot keeps the stages.
        reference: the outcome of the undisturbed study, see :func:`result`.
        restrained: whether permissions of files hold for commands although root runs them.
        environment: variables that are set for commands.
    """

    folder: Path
    stages: Path
    reference: Outcome = ((), {})
    restrained: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def spec(self) -> Path:
        return self.folder / "study.yaml"

    @property
    def another(self) -> World:
        """A finished study of the same kind with another model and other rows, to take files from."""
        return replace(self, folder=self.stages / "another")

    def at(self, stage: str) -> World:
        """The world, put into that stage; whatever was there is removed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.stages / stage, self.folder)
        return self

    def start(self, *argv: object, cwd: Path | None = None, **changes: Any) -> Running:
        """Start ``autolora`` with these arguments; ``changes`` are of :class:`Setting`."""
        words = [str(each) for each in argv]
        return self._started("autolora " + " ".join(words), functools.partial(processes.autolora, words), cwd, changes)

    def command(self, *argv: object, cwd: Path | None = None, **changes: Any) -> Ran:
        """Run ``autolora`` with these arguments to its end."""
        return self.start(*argv, cwd=cwd, **changes).wait()

    def call(self, function: Callable[..., object], *arguments: object, **changes: Any) -> Ran:
        """Run a function of a module in a process of its own to its end."""
        shown = f"{function.__name__}({', '.join(map(str, arguments))})"
        return self._started(shown, functools.partial(function, *arguments), None, changes).wait()

    def tune(self, **changes: Any) -> Ran:
        """The call that begins or continues the study."""
        return self.command("tune", "study.yaml", "--dir", "run", **changes)

    def respecified(self, **overrides: object) -> World:
        """Write the specification with other values; a dotted key reaches into a section, as in ``data__train``."""
        spec: dict[str, Any] = json.loads(json.dumps(SPEC))
        for key, value in overrides.items():
            section, _, name = key.partition("__")
            if name:
                spec[section][name] = value
            else:
                spec[section] = value
        self.spec.write_text(yaml.safe_dump(spec))
        return self

    def _started(self, shown: str, call: Callable[[], object], cwd: Path | None, changes: dict[str, Any]) -> Running:
        environment = {"HOME": str(self.folder / "home"), "AUTOLORA_CACHE": str(self.folder / "cache")}
        environment |= dict(self.environment) | changes.pop("environment", {})
        setting = Setting(self.folder, cwd or self.folder, environment, restrained=self.restrained, **changes)
        return Running(shown, call, setting, self._output())

    def _output(self) -> Path:
        outputs = self.folder.parent / "output"
        outputs.mkdir(exist_ok=True)
        return outputs / f"{len(list(outputs.iterdir()))}.txt"


def result(run: Path) -> Outcome:
    """All of a finished run directory that must not depend on what happened: no times; adapters by their bytes."""
    adapters: dict[str, str | None] = {}
    for name in VARIANTS:
        weights = run / "best" / name / "adapter_model.safetensors"
        adapters[name] = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
    return outcome(run), adapters


def make(slot: Path) -> World:
    """A slot's world with all of its stages, made once.

    Raises:
        RuntimeError: the undisturbed study fails.
    """
    slot = slot.absolute()
    stages = slot / "stages"
    world = World(slot / "world", stages)
    if not (stages / "done").exists():
        shutil.rmtree(slot, ignore_errors=True)
        stages.mkdir(parents=True)
        _make_stages(world)
        (stages / "done").touch()
    return replace(world, reference=result(stages / "finished" / "run"))


def _make_stages(world: World) -> None:
    _furnish(world.folder, first=600, seed=1)
    world.respecified()
    _keep(world, world.tune(), 0, "another")
    _furnish(world.folder, first=0, seed=None)
    world.respecified()
    shutil.copytree(world.folder, world.stages / "fresh")
    log = world.folder.parent / "commits.txt"
    _keep(world, world.tune(fault=Fault(0, COMMIT, log=str(log))), 0, "finished")
    shutil.copytree(world.stages / "fresh", world.stages / "measured")
    shutil.copytree(world.folder / "cache", world.stages / "measured" / "cache")
    commits = len(log.read_text().splitlines())
    for stage, share, signum, code in (
        ("paused", PAUSED_AT, signal.SIGINT, 130),
        ("killed", KILLED_AT, signal.SIGKILL, -signal.SIGKILL),
    ):
        world.at("fresh")
        _keep(world, world.tune(fault=Fault(signum, COMMIT, round(share * commits))), code, stage)


def _keep(world: World, ran: Ran, code: int, stage: str) -> None:
    if ran.code != code:
        raise RuntimeError(f"stage {stage}: {ran.shown} ended with {ran.code}, not {code}:\n{ran.output[-2000:]}")
    shutil.copytree(world.folder, world.stages / stage)


def _furnish(folder: Path, first: int, seed: int | None) -> None:
    """Model and data; with a seed the model's head is another one."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    shutil.copytree(quickstart.FOLDER / "model", folder / "model")
    (folder / "data").mkdir()
    for name, (file, start, count) in ROWS.items():
        rows = (quickstart.FOLDER / file).read_text().splitlines(keepends=True)
        start += first if name == "train" else first // 4
        (folder / "data" / f"{name}.jsonl").write_text("".join(rows[start : start + count]))
