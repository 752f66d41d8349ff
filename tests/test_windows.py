"""On a platform without POSIX's modules a search runs and a study is read, as on Windows."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_POSIX = """
import os, sys, types
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
del os.register_at_fork, os.fork
"""
OPTUNA = "import autolora.study.study\n"
"""Imported before there is a msvcrt, by which the standard library takes the platform for Windows."""
LOCKING = """
windows = types.ModuleType("msvcrt")
windows.LK_NBLCK, windows.held = 2, set()
def locking(descriptor, mode, count):
    place = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
    if place in windows.held:
        raise OSError("locked")
    windows.held.add(place)
windows.locking = locking
sys.modules["msvcrt"] = windows
"""


def run(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_search_in_memory_runs():
    program = """
import autolora
search = autolora.Search(["lora", "pissa"], autolora.Space(hidden_size=64), budget=2)
while (job := search.ask()) is not None:
    search.tell(job, job.config.learning_rate)
print(*search.best())
"""
    assert run(WITHOUT_POSIX + program).split() == ["lora", "pissa"]


def test_the_laws_and_a_specification_are_read():
    program = """
import autolora, autolora.driver, autolora.driver.plan
print(autolora.Space().learning_rates.low, autolora.Prior.from_laws(64, 100).cost, autolora.tune.__name__)
"""
    assert run(WITHOUT_POSIX + program).split()[-1] == "tune"


def test_a_specification_of_a_command_is_checked(tmp_path):
    """Processes are ended by the next start there, if not with the driver."""
    program = f"""
import os, signal, select
del os.killpg, os.setsid, select.poll, signal.SIGKILL, signal.SIGHUP
from pathlib import Path
from autolora import spec
from autolora.trainers import open_trainer
asked = spec.load({{"trainer": {{"command": "train {{learning_rate}} {{stop}}", "examples": 72}}}})
trainer = open_trainer(asked, Path({str(tmp_path)!r}))
trainer.check(["lora"], asked.space, {{}})
print(trainer.about()["command"][0])
"""
    assert "train {learning_rate} {stop}" in run("import psutil\n" + WITHOUT_POSIX + program)


@pytest.fixture
def folder(tmp_path):
    """A run directory, of which nothing but the specification and the study are there."""
    import autolora

    search = autolora.Search(["lora"], budget=2, storage=f"sqlite:///{tmp_path / 'study.db'}")
    while (job := search.ask()) is not None:
        search.tell(job, job.config.learning_rate, seconds=1.0)
    search.close()
    (tmp_path / "spec.yaml").write_text("storage: null\ncheckpoints: null\nbudget: 2.0\nconfirm: auto\n")
    return tmp_path


def test_a_study_is_read(folder):
    printed = run(WITHOUT_POSIX + "from autolora.cli import cli; cli(['status', sys.argv[1]])", str(folder))
    assert "lora" in printed
    assert "trials" in printed


def test_a_study_is_written_and_locked(folder):
    program = """
import autolora
def search():
    return autolora.Search(["lora"], budget=3, storage="sqlite:///" + sys.argv[1] + "/study.db")
first = search()
first.tell(first.ask(), 1.0)
from pathlib import Path
from autolora.files import FileLock, LockHeldError
try:
    FileLock(Path(sys.argv[1]) / "study.db.autolora.lock").acquire("another one")
except LockHeldError as held:
    print("held by", held.owner)
"""
    assert run(WITHOUT_POSIX + OPTUNA + LOCKING + program, str(folder)).startswith("held by pid ")


def test_a_plan_without_known_memory_leaves_it_out(monkeypatch):
    from types import SimpleNamespace

    from rich.console import Console

    from autolora.driver import plan
    from autolora.report.tables import plan_view
    from autolora.trainers import memory
    from tests.support.specs import small_spec

    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.peak(SimpleNamespace(type="cpu")) is None
    dry = plan.DryRun(
        notes=[],
        spending="",
        first=[],
        seconds_per_run=1.0,
        evaluation_share=0.09,
        seconds=2.0,
        memory_bytes=None,
        disk_bytes=10,
    )
    console = Console(width=200)
    with console.capture() as captured:
        console.print(plan_view(dry, small_spec(), folder="run"))
    assert "1 s a full run, 9% of it evaluation, 2 s in all; at most 10 B of disk." in captured.get()
