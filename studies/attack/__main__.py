"""``python -m studies.attack``: run the campaign, print the counts, and record them."""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from pathlib import Path

from studies.attack.campaign import run
from studies.attack.cases import CASES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.attack", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", help="cases whose names match, as in 'damage/study.db/*'")
    parser.add_argument("--jobs", type=int, default=2, help="cases at once (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/attack"), help="worlds and results.jsonl go here")
    parser.add_argument("--again", action="store_true", help="run cases again that a former call has run")
    parser.add_argument("--failed", action="store_true", help="run those again that did not end as they must")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write counts and failures as Markdown")
    given = parser.parse_args()
    names = [name for name in CASES if given.only is None or fnmatch.fnmatch(name, f"*{given.only}*")]
    if given.list:
        print("\n".join(names))
        return
    if not names:
        parser.error(f"no case matches {given.only!r}; --list shows them")
    # One thread a process, as several work at once. Set before the server starts, whose children inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, where processes are forked from
    sys.exit(run(names, given.out, given.jobs, again=given.again, failed=given.failed, report=given.report))


if __name__ == "__main__":
    main()
