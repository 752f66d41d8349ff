"""A notebook: the kernel is interrupted in the middle of a cell, and the same cell runs again."""

from __future__ import annotations

import os
import time
from typing import Any

from studies.attack.case import SAME, Skip, Wrong, register
from studies.attack.judge import TRACEBACK
from studies.attack.world import World, result

CELL = "import autolora\nautolora.tune(spec='study.yaml', dir='run')\nprint('done')"
MODEL_CELL = """
import autolora, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained('model')
"""
STARTS, ENDS = 60.0, 180.0
"""Seconds for a kernel to start, and for a cell to end."""


class _Kernel:
    """An IPython kernel in a process of its own, in the world's folder."""

    def __init__(self, world: World) -> None:
        try:
            import ipykernel  # noqa: F401
            from jupyter_client.manager import KernelManager
        except ImportError as error:
            raise Skip(f"needs jupyter_client and ipykernel ({error})") from None
        self.manager = KernelManager(kernel_name="python3")
        environment = {**os.environ, "AUTOLORA_CACHE": str(world.folder / "cache")}
        self.manager.start_kernel(cwd=str(world.folder), env=environment)
        self.client = self.manager.blocking_client()
        self.client.start_channels()

    def __enter__(self) -> _Kernel:
        self.client.wait_for_ready(timeout=STARTS)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code: str, interrupt_when: Any = None) -> tuple[str, str]:
        """Run a cell; returns its status or the name of its error, and what it printed.

        Args:
            code: of the cell.
            interrupt_when: called without arguments, again and again; the kernel is interrupted once it is true.
        """
        message = self.client.execute(code)
        printed, until = [], time.monotonic() + ENDS
        while time.monotonic() < until:
            if interrupt_when is not None and interrupt_when():
                self.manager.interrupt_kernel()
                interrupt_when = None
            if self._drain(message, printed):
                break
        else:
            raise Wrong(f"the cell hangs: {''.join(printed)[-1000:]}")
        reply = self.client.get_shell_msg(timeout=30)
        while reply["parent_header"].get("msg_id") != message:
            reply = self.client.get_shell_msg(timeout=30)
        content = reply["content"]
        return content.get("ename", content["status"]), "".join(printed)

    def _drain(self, message: str, printed: list[str]) -> bool:
        """Read one message of the cell; True where it has ended."""
        import queue

        try:
            told = self.client.get_iopub_msg(timeout=0.02)
        except queue.Empty:
            return False
        if told["parent_header"].get("msg_id") != message:
            return False
        if told["msg_type"] == "stream":
            printed.append(told["content"]["text"])
        return told["msg_type"] == "status" and told["content"]["execution_state"] == "idle"


def interrupted(world: World, times: int) -> str:
    """The same cell, interrupted in the middle so many times, and then left alone."""
    world.at("fresh")
    with _Kernel(world) as kernel:
        for count in range(times):
            checkpoints = 3 * (count + 1)
            status, printed = kernel.run(CELL, lambda n=checkpoints: len(list(world.run.glob("trials/*/step-*"))) >= n)
            if status == "ok":
                break
            if status != "KeyboardInterrupt":
                raise Wrong(f"the interrupted cell ends with {status}: {printed[-1000:]}")
        status, printed = kernel.run(CELL)
        if status != "ok" or TRACEBACK.search(printed):
            raise Wrong(f"the cell that runs again ends with {status}: {printed[-1000:]}")
    if result(world.run) != world.reference:
        raise Wrong("another result than undisturbed")
    return SAME


def restarted(world: World) -> str:
    """The kernel is restarted in the middle, as by the button, and the same cell runs again."""
    world.at("fresh")
    with _Kernel(world) as kernel:
        kernel.client.execute(CELL)
        until = time.monotonic() + ENDS
        while len(list(world.run.glob("trials/*/step-*"))) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=STARTS)
        status, printed = kernel.run(CELL)
        if status != "ok":
            raise Wrong(f"the cell that runs again ends with {status}: {printed[-1000:]}")
    if result(world.run) != world.reference:
        raise Wrong("another result than undisturbed")
    return SAME


def _register() -> None:
    register("notebook/interrupted once", lambda w: interrupted(w, 1))
    register("notebook/interrupted three times", lambda w: interrupted(w, 3))
    register("notebook/kernel restarted", restarted)


_register()
