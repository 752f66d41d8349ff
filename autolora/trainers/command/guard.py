"""A process of its own that ends a command when the process that started it is gone, however that ended.

Run with ``python -I -S`` and the path of the trial's file. Standard input is a pipe whose other end that process holds:
the number of a process group is written to it, and "done" when nothing is left to be ended. Where the pipe closes
without that word, the group is killed, and on Linux whatever has the trial's file in its environment: what a command
starts may have left its group.
"""

import contextlib
import os
import signal
import sys

DONE = b"done\n"
ROUNDS = 100


def main() -> None:
    """Wait for the end of the pipe."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    told = b""
    while not told.endswith(DONE):
        more = os.read(0, 64)
        if not more:
            end(told.strip(), os.fsencode(sys.argv[1]))
            return
        told += more


def end(group: bytes, trial: bytes) -> None:
    """Kill the group, if one was told, and all that belongs to the trial."""
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(int(group), signal.SIGKILL)
    for _ in range(ROUNDS):  # what is killed may just have started another one
        found = marked(b"AUTOLORA_TRIAL=" + trial)
        if not found:
            return
        for each in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)


def marked(variable: bytes) -> "list[int]":
    """Processes that have this in their environment; none where the platform does not say."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    environment = file.read()
            except OSError:  # gone, or another user's
                continue
            if variable in environment.split(b"\0"):
                found.append(int(name))
    return found


if __name__ == "__main__":
    main()
