"""Is training right on this machine's card, how fast is it, and does the memory plan hold there?

    python -m studies.gpu                            # on the first GPU; with tiny models where there is none
    python -m studies.gpu --tiny --only correctness

Runs under any interpreter that has torch, transformers, PEFT and pydantic, from the root of a clone; it installs and
downloads nothing. Every row is printed as it ends, and all of them are written to --out. Ends with status 1 if
something is wrong.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path

from studies.gpu import needs

GROUPS = ("correctness", "speed", "starts", "workers")
"""Of rows, which can be asked for; those of memory come with those of speed."""
MINUTES = 7.5
"""Of eight, for what ends after the last row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU, in a minute")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="these groups of rows")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which no row begins")
    parser.add_argument("--out", type=Path, help="the Markdown file to write")
    parser.add_argument("--commit", help="of the code, where git cannot tell")
    arguments = parser.parse_args()
    needs.check()
    # One card: transformers.Trainer would take all that it sees.
    seen = "" if arguments.tiny else os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = seen.partition(",")[0]
    from studies.gpu.report import AGREES
    from studies.gpu.run import run  # imports torch, which looks for devices

    command = shlex.join(["python", "-m", "studies.gpu", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as scratch:
        report = run(
            Path(scratch),
            groups=arguments.only,
            minutes=arguments.minutes,
            out=arguments.out,
            command=command,
            commit=arguments.commit,
        )
    print(f"\n{report.write()}")
    checked = any(row.word.startswith(AGREES) for row in report.rows)
    if not checked and "correctness" in arguments.only:
        print(
            "No check of correctness was made: give it more --minutes, or a device with more memory.", file=sys.stderr
        )
    sys.exit(int(any(row.wrong for row in report.rows) or (not checked and "correctness" in arguments.only)))


if __name__ == "__main__":
    main()
