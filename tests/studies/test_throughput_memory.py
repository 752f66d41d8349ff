"""The memory plan against what training really takes, in a process of its own."""

from __future__ import annotations

import sys

import pytest

from studies.throughput.memory import Case, measure, plan

CASES = (
    Case("33M", "lora", 1, 1024),
    Case("33M", "lora", 4, 256, checkpointing=True),
    Case("33M", "lora", 4, 256, dtype="bfloat16"),
    Case("33M", "dora", 4, 256),
    Case("90M, large vocabulary", "lora", 4, 256),
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_plan_is_within_a_fifth_of_the_peak(case):
    assert plan(case) == pytest.approx(measure(case), rel=0.2)
