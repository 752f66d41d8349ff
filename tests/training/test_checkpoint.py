"""Checkpoints: whole or not there, the one before it where the newest is damaged, full disks said plainly."""

from __future__ import annotations

import resource
import signal

import pytest
import torch

from autolora.training import checkpoint
from autolora.training.checkpoint import CheckpointError, Manifest


def manifest(step: int) -> Manifest:
    return Manifest(3, "lora", {"rank": 8}, 0, step=step, examples=8 * step, scores={0: 1.5}, losses=[2.0] * step)


def save(folder, step: int):
    return checkpoint.save(folder, manifest(step), {"adapter": {"a": torch.full((64,), float(step))}})


def test_what_is_saved_is_read_back(tmp_path):
    save(tmp_path, 5)
    found, state = checkpoint.newest(tmp_path)
    assert found == manifest(5)
    assert torch.equal(state["adapter"]["a"], torch.full((64,), 5.0))


def test_an_empty_folder_has_none(tmp_path):
    assert checkpoint.newest(tmp_path / "nothing") is None


def test_only_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000010"]


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_a_checkpoint_cut_short_gives_way_to_the_one_before(tmp_path, file):
    save(tmp_path, 1)
    damaged = save(tmp_path, 2) / file
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert checkpoint.newest(tmp_path)[0].step == 1


def test_a_flipped_byte_is_noticed(tmp_path):
    save(tmp_path, 1)
    damaged = save(tmp_path, 2) / "state.pt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert checkpoint.newest(tmp_path)[0].step == 1


def test_a_write_that_was_cut_off_is_not_seen(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".step-000000002.tmp").mkdir()
    (tmp_path / ".step-000000002.tmp" / "state.pt").write_bytes(b"half")
    assert checkpoint.newest(tmp_path)[0].step == 1


def test_a_disk_that_takes_no_more_is_said_plainly_and_leaves_the_earlier_checkpoint(tmp_path):
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the kernel then answers the write with an error
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="no space left on the disk") as raised:
            checkpoint.save(tmp_path, manifest(2), {"adapter": {"a": torch.zeros(1 << 16)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "Earlier checkpoints are intact" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    assert checkpoint.newest(tmp_path)[0].step == 1
