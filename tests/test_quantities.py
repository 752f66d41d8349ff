"""Times and sizes as people write them."""

from __future__ import annotations

import pytest

from autolora import quantities
from autolora import spec as specs
from autolora.spec import SpecError


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("90s", 90),
        ("2 min", 120),
        ("4h", 14400),
        ("1h30m", 5400),
        ("1 day 1h", 90000),
    ],
)
def test_times(given, seconds):
    assert quantities.seconds(given) == seconds


@pytest.mark.parametrize(
    ("given", "size"),
    [(1000, 1000), ("20GB", 20 * 10**9), ("16 GiB", 16 * 2**30), ("1.5kb", 1500), ("500MB", 5 * 10**8), ("1e9", 10**9)],
)
def test_sizes(given, size):
    assert quantities.size_in_bytes(given) == size


@pytest.mark.parametrize("given", ["", "soon", "4 fortnights", "4h soon", "h", -1, 0, "0h", "inf", True, [], {}])
def test_what_is_no_time_is_named_with_its_key(given):
    with pytest.raises(SpecError, match=r"time_budget: .*(write|not allowed)"):
        specs.load(model="m", data="d", time_budget=given)


@pytest.mark.parametrize("given", ["lots", "20 G B", "20GB 5MB", "5 apples", -5, 0, "nan", False, []])
def test_what_is_no_size_is_named_with_its_key(given):
    with pytest.raises(SpecError, match=r"max_memory: .*(write|not allowed)"):
        specs.load(model="m", data="d", max_memory=given)


def test_they_stay_as_they_were_written_and_may_change_between_starts():
    first, second = (specs.load(model="m", data="d", time_budget=time, max_memory="2GB") for time in ("1h", "90m"))
    assert specs.dump(first)["time_budget"] == "1h"
    assert (second.time_limit, second.memory_limit) == (5400, 2 * 10**9)
    assert not specs.differences(specs.dump(first), specs.dump(second))
