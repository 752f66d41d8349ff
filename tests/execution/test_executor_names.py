"""Executors are named in one place, which is cheap to import."""

from __future__ import annotations

import pytest

import autolora
from autolora import cli
from autolora.execution import EXECUTORS, UnknownExecutorError
from tests.support.specs import small_spec


def test_the_command_line_offers_the_registered_executors():
    [option] = [each for each in cli.tune.params if each.name == "executor"]
    assert list(option.type.choices) == list(EXECUTORS) == ["inline", "ray"]


def test_an_unknown_executor_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UnknownExecutorError, match="'slurm' is unknown; use one of inline, ray"):
        autolora.tune(spec=small_spec(), dir=tmp_path, executor="slurm")


def test_the_worker_class_keeps_the_name_that_dashboards_and_logs_of_ray_show():
    ray_worker = pytest.importorskip("autolora.execution.ray_worker")
    assert ray_worker.SegmentWorker.__name__ == "SegmentWorker"
