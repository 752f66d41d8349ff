"""What killed processes left half-written goes at the next start; whole files and a user's own stay."""

from __future__ import annotations

import os
import time

import pytest

import autolora
from autolora.driver.litter import sweep
from autolora.trainers import places
from tests.support.specs import SMALL_SPEC, small_spec

TOKEN = "0123456789abcdef0123456789abcdef"
LEFT = (
    f".spec.yaml.{TOKEN}.tmp",
    f".best.json.{TOKEN}.tmp",
    f"data/.data-012345.npz.{TOKEN}.tmp",
    f"best/lora/.autolora.yaml.{TOKEN}.tmp",
    "best/.lora-abcd_123/adapter_model.safetensors",
    f"trials/0/step-000000001-00-01234567/.manifest.json.{TOKEN}.tmp",
    "trials/0/.step-000000002-01-01234567.tmp/adapter.safetensors",
    "trials/99/.step-000000002-01-01234567.tmp/adapter.safetensors",
)
WHOLE = ("spec.yaml", "best/lora/adapter_config.json", "trials/0/step-000000001-00-01234567/manifest.json")
MINE = ("notes.tmp", ".notes.tmp", ".git/HEAD", "best/.gitkeep", "best/.lora-notes/a", "data/.keep", "trials/.keep")


def write(folder, names):
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    return paths


def test_all_that_is_half_written_goes_and_nothing_else(tmp_path):
    left, whole, mine = (write(tmp_path, names) for names in (LEFT, WHOLE, MINE))
    sweep(small_spec(), tmp_path, alone=True)
    assert [path for path in left if path.exists()] == []
    assert not (tmp_path / "best" / ".lora-abcd_123").exists()
    assert not (tmp_path / "trials" / "99" / ".step-000000002-01-01234567.tmp").exists()
    assert [path for path in (*whole, *mine) if not path.exists()] == []


def test_beside_workers_of_a_driver_that_was_killed_only_old_checkpoints_go(tmp_path):
    young, old = (tmp_path / "trials" / "0" / f".step-00000000{number}-01-01234567.tmp" for number in (1, 2))
    for path in (young, old):
        write(path, ["adapter.safetensors"])
    long_ago = time.time() - 2 * places.ABANDONED
    os.utime(old, (long_ago, long_ago))
    sweep(small_spec(), tmp_path, alone=False)
    assert young.exists()
    assert not old.exists()


def test_what_was_staged_of_an_adapter_goes_though_its_folder_is_gone(tmp_path):
    mine, others = write(tmp_path, ["best/.lora-abcd_123/weights", "best/.dora-abcd_123/weights"])
    sweep(small_spec(), tmp_path, alone=True)
    assert not mine.exists()
    assert others.exists(), "it is not known to be of this study"


def test_checkpoints_elsewhere_are_swept_there(tmp_path):
    spec = small_spec(checkpoints=str(tmp_path / "elsewhere"))
    (left,) = write(tmp_path / "elsewhere", ["trials/3/.step-000000002-01-01234567.tmp/adapter.safetensors"])
    sweep(spec, tmp_path / "run", alone=True)
    assert not left.exists()


@pytest.mark.parametrize("where", ["nothing", "a URL"])
def test_there_may_be_nothing_to_sweep(tmp_path, where):
    sweep(small_spec(checkpoints="memory://nothing" if where == "a URL" else None), tmp_path, alone=True)
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_goes_on_sweeps_first_and_leaves_nothing_itself(tmp_path):
    left = write(tmp_path, LEFT)
    autolora.tune(spec={**SMALL_SPEC, "budget": 1}, dir=tmp_path)
    assert [path for path in left if path.exists()] == []
    assert [path.name for path in tmp_path.rglob(".*")] == [".lock"]
