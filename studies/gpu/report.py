"""Rows of the check: each is printed as it ends and written at once, so that a run that is cut short is not lost."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autolora.errors import first_line
from autolora.trainers.memory import collected, out_of_memory
from studies.gpu import needs

TABLES = {
    "correctness": ("check", "setting", "error", "tolerance"),
    "speed": (
        "model",
        "variant",
        "micro-batch",
        "loop",
        "tokens/s",
        "of autolora's",
        "of the floor",
        "of the roofline",
        "peak GB",
    ),
    "memory": ("model", "variant", "rows x tokens", "planned MB", "measured MB", "planned / measured"),
    "starts": ("start", "layers", "matrices", "seconds", "extrapolated"),
    "workers": ("model", "processes", "tokens/s together", "of one process"),
}
"""Tables by name, and their columns; a last one says what became of the row."""
MEASURED, AGREES, DIFFERS = "measured", "agrees", "DIFFERS"
FAILED, SKIPPED = "FAILED: ", "skipped: "
NOTHING = "-"


class Skip(Exception):
    """A row cannot be had here; the message says why."""


@dataclass(frozen=True)
class Result:
    """What became of a case: the cells behind those that name it, and a word."""

    cells: tuple[str, ...]
    word: str = MEASURED


@dataclass(frozen=True)
class Case:
    """One row to come.

    Attributes:
        table: a key of ``TABLES``.
        names: its first cells.
        run: measures, and gives the other cells; may raise ``Skip``.
        package: without which it is skipped; None if there is none.
    """

    table: str
    names: tuple[str, ...]
    run: Callable[[], Result]
    package: str | None = None


@dataclass(frozen=True)
class Row:
    """What is known of a case: a cell for each column, and what became of it."""

    table: str
    cells: tuple[str, ...]
    word: str

    @property
    def wrong(self) -> bool:
        """Whether the check has found a fault."""
        return self.word.startswith((DIFFERS, FAILED))

    def line(self) -> str:
        """Of a table in Markdown."""
        cells = (cell.replace("\n", " ").replace("|", "/") for cell in (*self.cells, self.word))
        return f"| {' | '.join(cells)} |"


@dataclass
class Report:
    """The rows so far.

    Attributes:
        minutes: after which no case begins: one that would end later, if it took as long as the longest of its table,
            is skipped.
        facts: lines that stand above the tables.
        out: the file to write; None: none.
        began: seconds by ``time.monotonic``.
    """

    minutes: float
    facts: Sequence[str]
    out: Path | None = None
    began: float = field(default_factory=time.monotonic)
    rows: list[Row] = field(default_factory=list)
    _longest: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def take(self, cases: Iterator[Case]) -> None:
        """Run cases one after the other."""
        for case in cases:
            before = self.seconds
            result = self._result(case)
            columns = TABLES[case.table]
            cells = (*case.names, *result.cells)
            row = Row(case.table, (*cells, *[NOTHING] * (len(columns) - len(cells))), result.word)
            took = self.seconds - before
            self._longest[case.table] = max(took, self._longest.get(case.table, 0.0))
            self.rows.append(row)
            named = ", ".join(f"{column} {cell}" for column, cell in zip(columns, row.cells, strict=True))
            print(f"[{self.seconds:5.1f} s] {case.table}: {named}: {row.word}", flush=True)
            self.write()

    def _result(self, case: Case) -> Result:
        lacking = case.package and needs.missing(case.package)
        if lacking:
            return Result((), f"{SKIPPED}{lacking}")
        if self.seconds + self._longest.get(case.table, 0.0) > 60 * self.minutes:
            return Result((), f"{SKIPPED}{self.minutes:g} minutes are almost over")
        try:
            return case.run()
        except Skip as reason:
            return Result((), f"{SKIPPED}{reason}")
        except Exception as error:  # of libraries and kernels: one row must not cost the others; it fails the check
            if not out_of_memory(error):
                traceback.print_exc()
                return Result((), f"{FAILED}{type(error).__name__}: {first_line(error):.300}")
        collected()  # the error, whose frames hold the attempt, is gone
        return Result((), f"{SKIPPED}the device's memory ran out")

    def text(self) -> str:
        """The report in Markdown."""
        counts = (
            f"{len(self.rows)} rows in {self.seconds:.0f} seconds; {sum(row.wrong for row in self.rows)} are wrong, "
            f"{sum(row.word.startswith(SKIPPED) for row in self.rows)} were skipped."
        )
        parts = ["\n".join([*(f"- {fact}" for fact in self.facts), f"- {counts}"])]
        parts += [_table(name, columns, self.rows) for name, columns in TABLES.items()]
        return "\n\n".join(filter(None, parts)) + "\n"

    def write(self) -> str:
        """Write what is known so far; what was written."""
        text = self.text()
        if self.out is not None:
            self.out.write_text(text)
        return text


def _table(name: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [row.line() for row in rows if row.table == name]
    if not lines:
        return ""
    head = f"| {' | '.join((*columns, 'result'))} |\n|{' --- |' * (len(columns) + 1)}"
    return "\n".join([f"## {name.capitalize()}", "", head, *lines])


def facts(command: str, commit: str, about: Mapping[str, str]) -> list[str]:
    """Lines on what was run, where and with what."""
    packages = (*needs.REQUIRED, *needs.OPTIONAL)
    versions = ", ".join(f"{package} {needs.version(package)}" for package in packages)
    return [
        f"Command: `{command}`",
        f"Commit: {commit}",
        *(f"{key}: {value}" for key, value in about.items()),
        versions,
    ]
