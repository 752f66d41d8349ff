"""Running cases, several at once, each in a slot of its own; results are written as they come."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from studies.attack import processes, world
from studies.attack.case import CASES, CONCLUDED, READ, SAME, SKIPPED, STAND_IN, TOLD, Skip, Wrong
from studies.attack.world import World

RESULTS = "results.jsonl"
WRONG = "WRONG"
OUTCOMES = (SAME, STAND_IN, CONCLUDED, TOLD, READ, SKIPPED, WRONG)


@dataclass(frozen=True)
class Result:
    """How a case ended.

    Attributes:
        case: its name.
        outcome: one of OUTCOMES.
        detail: what was wrong, or why it was skipped; what a case counted.
        seconds: wall time.
    """

    case: str
    outcome: str
    detail: str
    seconds: float


def run(
    names: Sequence[str], out: Path, jobs: int, *, again: bool = False, failed: bool = False, report: Path | None = None
) -> int:
    """Run cases and print how each ended.

    Args:
        names: of the cases.
        out: folder of worlds and results; a former call's results there are kept.
        jobs: cases at once.
        again: run those again that have a result there.
        failed: run those again whose result is wrong.
        report: file that gets the counts as Markdown.

    Returns:
        Exit status: 0 where no case went wrong.
    """
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    known = {} if again else {result.case: result for result in _known(out / RESULTS) if result.case in CASES}
    wanted = [name for name in names if name not in known or (failed and known[name].outcome == WRONG)]
    began = time.monotonic()
    if wanted:
        processes.preload()
        for result in _results(wanted, out, min(jobs, len(wanted))):
            known[result.case] = result
            _show(result, len([name for name in names if name in known]), len(names))
    results = [known[name] for name in names]
    print(f"\n{_table(results)}\n\n{time.monotonic() - began:.0f} s for {len(wanted)} cases")
    if report is not None:
        report.write_text(_markdown(results))
    return int(any(result.outcome == WRONG for result in results))


def _results(names: Sequence[str], out: Path, jobs: int) -> Iterable[Result]:
    """Results as they come, which are also appended to a file."""
    slots: queue.Queue[World] = queue.Queue()
    writing = threading.Lock()

    def one(name: str) -> Result:
        slot = slots.get()
        try:
            result = _ran(name, slot)
        finally:
            slots.put(slot)
        with writing, (out / RESULTS).open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        return result

    with ThreadPoolExecutor(jobs) as pool:
        for made in pool.map(world.make, [out / f"slot-{number}" for number in range(jobs)]):
            slots.put(made)
        for future in as_completed([pool.submit(one, name) for name in names]):
            yield future.result()


def _ran(name: str, slot: World) -> Result:
    began = time.monotonic()
    try:
        outcome, _, detail = CASES[name].run(slot).partition(": ")
    except Skip as skip:
        outcome, detail = SKIPPED, str(skip)
    except Wrong as wrong:
        outcome, detail = WRONG, str(wrong)
    except Exception as error:  # a fault of the campaign: it counts as one, and the other cases go on
        outcome, detail = WRONG, f"the case itself failed with {type(error).__name__}: {error}"
    return Result(name, outcome, detail, round(time.monotonic() - began, 1))


def _known(path: Path) -> list[Result]:
    """The results of former calls; a line that was cut short is left out."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(Result(**json.loads(line)))
        except ValueError:
            continue
    return found


def _show(result: Result, done: int, total: int) -> None:
    print(f"[{done}/{total}] {result.outcome}: {result.case} ({result.seconds:.1f} s)", flush=True)
    if result.detail:
        print("    " + result.detail.replace("\n", "\n    "), flush=True)


def _counts(results: Iterable[Result]) -> Mapping[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        counts[CASES[result.case].kind][result.outcome] += 1
        counts["all"][result.outcome] += 1
    counts["all"] = counts.pop("all", Counter())  # last
    return counts


def _table(results: Iterable[Result]) -> str:
    rows = [["kind", "cases", *OUTCOMES]]
    for kind, counter in _counts(results).items():
        rows.append([kind, str(counter.total()), *(str(counter[outcome] or "-") for outcome in OUTCOMES)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "| --- |" + " --- |" * (len(rows[0]) - 1))
    return "\n".join(lines)


def _markdown(results: Sequence[Result]) -> str:
    told = [result for result in results if result.outcome in (WRONG, SKIPPED)]
    counted = [result for result in results if result.detail and result not in told]
    parts = ["# Results", _provenance(), _table(results)]
    if counted:
        parts.append("\n".join(f"- {result.case}: {result.detail}" for result in counted))
    for result in told:
        parts.append(f"## {result.outcome}: {result.case}\n\n```\n{result.detail}\n```")
    return "\n\n".join(parts) + "\n"


def _provenance() -> str:
    """Commit and command, as the first line of what is recorded."""
    folder = Path(__file__).parent
    commit = subprocess.run(["git", "-C", folder, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(["git", "-C", folder, "status", "--porcelain", "../../autolora"], capture_output=True)
    state = commit.stdout.strip() + (" with changes" if changed.stdout.strip() else "")
    return f"Written by `python -m studies.attack {' '.join(sys.argv[1:])}` at commit {state or 'unknown'}."
