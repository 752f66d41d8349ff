"""Bad inputs: the cases of ``tests/support/bad_inputs.py``, as processes of the campaign."""

from __future__ import annotations

import functools
import shutil

from studies.attack.case import READ, SAME, TOLD, Wrong, register
from studies.attack.judge import plain
from studies.attack.world import World
from tests.support.bad_inputs import CASES, BadInput

NOT_INSTALLED = ("ray missing", "matplotlib missing")
"""Of packages that are loaded already where processes are forked; ``tests/test_bad_inputs.py`` has them."""


def refused(case: BadInput, world: World) -> str:
    """The command ends with the case's code, and its output has what the case says."""
    shutil.rmtree(world.folder, ignore_errors=True)
    world.folder.mkdir()
    arguments = case.make(world.folder)
    environment = {"HF_HUB_OFFLINE": "1", **case.environment}
    ran = plain(world.command(*arguments, environment=environment, limit=case.file_size))
    if case.may_pass and ran.code == 0:
        return READ
    if ran.code != case.code:
        raise Wrong(f"ends with {ran.code}, not {case.code}: $ {ran.shown}\n{ran.output[-1500:]}")
    if case.says not in ran.output:
        raise Wrong(f"does not say {case.says!r}: $ {ran.shown}\n{ran.output[-1500:]}")
    return TOLD if ran.code else SAME


for _name, _case in CASES.items():
    if _name in NOT_INSTALLED:
        continue
    register(f"inputs/{_name}", functools.partial(refused, _case))
