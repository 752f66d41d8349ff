"""Tries to connect to a Ray cluster as the driver would, in a process of its own, and prints what came of it as JSON.

Ray retries a wrong address for minutes, ends the process after some failures, and writes to its stderr: here none of it
touches the driver. The file is run by its path, and imports nothing of autolora.
"""

from __future__ import annotations

import json
import sys


def probe() -> dict[str, str]:
    """Name and words of the error and of its causes; empty if the cluster answers and has a node that is alive."""
    import ray

    try:
        ray.init(log_to_driver=False, configure_logging=False, logging_level="warning")
        alive = any(node["Alive"] for node in ray.nodes())
    except Exception as error:
        return {"error": type(error).__name__, "said": "\n".join(map(str, _chain(error)))}
    return {} if alive else {"error": "NoNode", "said": "no node is alive"}


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__)]


if __name__ == "__main__":
    print(json.dumps(probe()))
    sys.stdout.flush()
