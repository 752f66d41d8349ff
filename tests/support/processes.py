"""Processes that tests start and kill."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import psutil

from autolora.trainers.command.process import TRIAL

# Of a server that has imported everything: kills then fall on the work, not on imports. A process has one such server,
# for all its tests.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "autolora.driver",
        "autolora.api",
        "autolora.study.study",
        "alembic.command",
        "sqlalchemy.dialects.postgresql",
        "peft",
        "datasets",
        "accelerate",
        "transformers.trainer",
        "psycopg",
        "pytest",
    ]
)


def kill(*processes: psutil.Process) -> None:
    for each in processes:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


def marked(folder: Path) -> list[psutil.Process]:
    """Processes that train a trial of a run directory, by a command."""
    return [
        each
        for each in psutil.process_iter()
        if str(folder) in _variable(each, TRIAL) and each.status() != psutil.STATUS_ZOMBIE
    ]


def kill_a_rank(folder: Path, script: str) -> bool:
    """One of the processes that run a script, not their launcher; False where there is none just now."""
    ranks = [each for each in marked(folder) if _variable(each, "RANK") and script in _line(each)]
    kill(*ranks[-1:])
    return bool(ranks)


def is_guard(process: psutil.Process) -> bool:
    """Whether it is the one beside a command that ends it when the driver dies."""
    return "guard.py" in _line(process)


def _variable(process: psutil.Process, name: str) -> str:
    try:
        return process.environ().get(name, "")
    except psutil.Error:
        return ""


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
