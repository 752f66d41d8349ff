"""Says what differs between two recordings; see record.py.

python -m studies.identity.compare before after
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FILES = ("decisions", "study", "continued", "texts")
PACKAGE = re.compile(r"[^\s\"]*/autolora/quickstart/")
"""The shipped data's folder, which is another in each checkout."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    found = 0
    for name in FILES:
        before, after = (_read(folder / f"{name}.json") for folder in (arguments.before, arguments.after))
        different = list(differences(before, after, name))
        found += len(different)
        print(f"{name}: {'equal' if not different else f'{len(different)} differences'}")
        for line in different[:20]:
            print(f"  {line}")
    raise SystemExit(bool(found))


def differences(before: Any, after: Any, where: str) -> Iterator[str]:
    """Every place where two recordings differ, numbers bit for bit."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            yield from differences(before.get(key), after.get(key), f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{where}[{place}]")
    elif before != after:
        yield f"{where}: {before!r} -> {after!r}"


def _read(path: Path) -> Any:
    content = json.loads(PACKAGE.sub("quickstart/", path.read_text()))
    if "spec" in content:
        content["spec"] = yaml.safe_load(content["spec"])  # the order of keys means nothing
    if path.stem == "texts":
        # Without the line breaks that the width of a path decides.
        return {name: " ".join(text.split()) for name, text in content.items()}
    return content


if __name__ == "__main__":
    main()
