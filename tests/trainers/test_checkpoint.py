"""Checkpoints in every place: whole or not there, the one before where the newest is damaged, shed and discarded."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autolora.trainers import checkpoint, places
from autolora.trainers.checkpoint import CheckpointError, Manifest
from autolora.trainers.places import place

FILES = ("adapter.safetensors", "optimizer.pt", "manifest.json")


def manifest(step: int) -> Manifest:
    return Manifest(
        3, "lora", {"rank": 8}, 0, "study", step=step, examples=8 * step, scores={0: 1.5}, losses=[2.0] * step
    )


def weights(step: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((64,), float(step)), "anchor": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)}


def training() -> dict:
    """What an optimizer and a schedule hold: numbered entries, tensors, numbers, None."""
    return {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1}]}, "schedule": {"x": None}}


def save(folder, step: int) -> str:
    """The name of the checkpoint's folder."""
    before = set(steps(folder))
    checkpoint.save(folder, manifest(step), {"adapter": weights(step), **training()})
    return (set(steps(folder)) - before).pop()


def save_finished(folder, step: int) -> None:
    finished = replace(manifest(step), totals=[3.0, 1.0], weights=[1.0, 1.0])
    checkpoint.save(folder, finished, {"adapter": weights(step)})


def steps(folder) -> list[str]:
    return [name for name in place(folder).names() if name.startswith("step-")]


def damage(folder, name: str, change) -> None:
    place(folder).write(name, change(place(folder).read(name)))


class CheckpointContract:
    """A subclass gives the ``folder`` of a trial in a place of another kind."""

    def test_what_is_saved_is_read_back_bit_for_bit(self, folder):
        name = save(folder, 5)
        found, state = checkpoint.newest(folder)
        assert replace(found, files={}) == manifest(5)
        assert found == checkpoint.read_manifest(folder)
        assert state.keys() == {"adapter", "optimizer", "schedule"}
        for key, tensor in weights(5).items():
            assert state["adapter"][key].dtype == tensor.dtype
            assert torch.equal(state["adapter"][key], tensor)
        assert {key: state[key] for key in ("optimizer", "schedule")} == training()
        assert {each for each in FILES if place(folder).read(f"{name}/{each}")} == set(FILES)

    def test_an_empty_place_has_none(self, folder):
        assert checkpoint.newest(folder) is None
        assert checkpoint.read_manifest(folder) is None

    def test_only_the_newest_two_are_kept(self, folder):
        names = [save(folder, step) for step in (1, 2, 3, 10)]
        assert sorted(steps(folder)) == names[2:]

    def test_of_one_step_the_checkpoint_with_more_scores_is_the_newer_one(self, folder):
        for scores in ({0: 1.5}, {0: 1.5, 1: 1.2}) * 3:
            checkpoint.save(folder, replace(manifest(4), scores=scores), {"adapter": weights(4), **training()})
        assert checkpoint.newest(folder)[0].scores == {0: 1.5, 1: 1.2}

    def test_a_finished_run_keeps_its_last_alone_without_the_optimizer(self, folder):
        save(folder, 1)
        save_finished(folder, 2)
        (name,) = steps(folder)
        assert place(folder).read(f"{name}/optimizer.pt") is None
        found, state = checkpoint.newest(folder)
        assert (found.step, state.keys()) == (2, {"adapter"})

    @pytest.mark.parametrize("file", FILES)
    @pytest.mark.parametrize("change", [lambda content: content[:-20], lambda _: b""], ids=["cut", "empty"])
    def test_a_checkpoint_cut_short_gives_way_to_the_one_before(self, folder, file, change):
        save(folder, 1)
        damage(folder, f"{save(folder, 2)}/{file}", change)
        assert checkpoint.newest(folder)[0].step == 1

    @pytest.mark.parametrize("file", FILES)
    def test_a_checkpoint_that_misses_a_file_gives_way_to_the_one_before(self, folder, file):
        save(folder, 1)
        place(folder).remove(f"{save(folder, 2)}/{file}")
        assert checkpoint.newest(folder)[0].step == 1

    @pytest.mark.parametrize("file", FILES[:2])
    def test_a_flipped_byte_is_noticed(self, folder, file):
        save(folder, 1)
        name = f"{save(folder, 2)}/{file}"
        damage(folder, name, lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:])
        assert checkpoint.newest(folder)[0].step == 1

    def test_checkpoints_that_do_not_count_do_not_push_out_those_that_do(self, folder):
        """A writer that was killed, or an object store that took half."""
        names = [save(folder, 1)]
        place(folder).write("step-000000002-01-aaaaaaaa/adapter.safetensors", b"half")
        names.append(save(folder, 3))
        assert sorted(steps(folder)) == [names[0], "step-000000002-01-aaaaaaaa", names[1]]
        names += [save(folder, 4)]
        assert sorted(steps(folder)) == names[1:]

    def test_a_checkpoint_of_an_earlier_version_is_passed_over(self, folder):
        at = place(folder)
        at.write("step-000000009/state.pt", b"a pickle")
        old = {"trial": 3, "variant": "lora", "config": {}, "seed": 0, "scores": {}, "sha256": "0"}
        at.write("step-000000009/manifest.json", json.dumps(old).encode())
        assert checkpoint.newest(folder) is None
        save(folder, 1)
        assert checkpoint.newest(folder)[0].step == 1

    def test_nothing_is_left_of_a_discarded_trial(self, folder):
        save(folder, 1)
        checkpoint.discard(folder)
        checkpoint.discard(folder)
        assert steps(folder) == []
        assert checkpoint.newest(folder) is None
        save(folder, 2)
        assert checkpoint.newest(folder)[0].step == 2

    def test_the_rows_scores_of_a_trial_outlive_its_weights(self, root):
        folder = checkpoint.trial_folder(root, 7)
        save_finished(folder, 2)
        known = checkpoint.read_manifest(folder)
        for _ in range(2):
            checkpoint.shed(folder)
            assert checkpoint.newest(folder) is None
            assert checkpoint.read_manifest(folder) == replace(known, files={})
            assert checkpoint.example_scores(root, [7, 8])[7].totals.tolist() == [3.0, 1.0]
        (name,) = steps(folder)
        assert [place(folder).read(f"{name}/{file}") for file in FILES[:2]] == [None, None]

    @pytest.mark.parametrize("calls", [0, 1, 2])
    def test_shedding_that_was_cut_off_is_resumed(self, folder, monkeypatch, calls):
        """Killed before the removal number ``calls``: the trial counts as shed, and shedding again ends it."""
        save(folder, 1)
        save(folder, 2)
        kind, removed = type(place(folder)), []
        genuine = kind.remove

        def remove(self, name):
            if len(removed) == calls:
                raise KeyboardInterrupt
            removed.append(name)
            genuine(self, name)

        monkeypatch.setattr(kind, "remove", remove)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.shed(folder)
        monkeypatch.undo()
        assert checkpoint.newest(folder) is None
        assert checkpoint.read_manifest(folder).step == 2
        checkpoint.shed(folder)
        (name,) = steps(folder)
        assert [place(folder).read(f"{name}/{file}") for file in FILES[:2]] == [None, None]

    def test_shedding_a_trial_without_checkpoints_does_nothing(self, folder):
        checkpoint.shed(folder)
        assert checkpoint.read_manifest(folder) is None

    def test_a_mark_is_found_and_the_newest_counts(self, root):
        old = checkpoint.mark(root)
        token = checkpoint.mark(root)
        checkpoint.check_mark(root, token)
        with pytest.raises(CheckpointError, match="is not what this node"):
            checkpoint.check_mark(root, old)

    def test_a_missing_mark_says_which_place_and_what_to_do(self, root):
        with pytest.raises(CheckpointError, match="give a path that all nodes share, or a URL") as raised:
            checkpoint.check_mark(root, "token")
        assert str(root) in str(raised.value)


class LocalContract(CheckpointContract):
    """Places in a file system; ``tmp_path`` is the root."""

    def test_a_write_that_was_cut_off_is_not_seen_and_goes_once_it_is_old(self, folder, tmp_path):
        save(folder, 1)
        (trial,) = (tmp_path / "trials").iterdir()
        fresh, old = trial / ".step-000000002-01-aaaaaaaa.tmp", trial / ".step-000000003-01-bbbbbbbb.tmp"
        for path in (fresh, old):
            path.mkdir()
            (path / "adapter.safetensors").write_bytes(b"half")
        assert checkpoint.newest(folder)[0].step == 1
        long_ago = time.time() - 2 * places.ABANDONED
        os.utime(old, (long_ago, long_ago))
        save(folder, 4)
        assert fresh.exists(), "it may be being written"
        assert not old.exists()

    def test_a_disk_that_takes_no_more_is_said_plainly_and_leaves_the_earlier_checkpoint(self, folder):
        name = save(folder, 1)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the kernel then answers the write with an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(CheckpointError, match="no space left on the disk; free some space") as raised:
                checkpoint.save(folder, manifest(2), {"adapter": {"a": torch.zeros(1 << 16)}})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert "Earlier checkpoints are intact" in str(raised.value)
        assert place(folder).names() == [name]
        assert checkpoint.newest(folder)[0].step == 1

    def test_a_place_that_cannot_be_written_to_is_said_with_its_path(self, root, tmp_path):
        (tmp_path / "trials").write_text("in the way")
        with pytest.raises(CheckpointError, match=r"cannot write a checkpoint to .*/trials/3"):
            checkpoint.save(checkpoint.trial_folder(root, 3), manifest(1), {"adapter": weights(1)})

    def test_two_processes_that_write_the_same_steps_never_mix_what_they_write(self, folder):
        context = multiprocessing.get_context("spawn")
        pace = context.Barrier(2)
        writers = [context.Process(target=_write_in_a_loop, args=(folder, value, pace)) for value in (1.0, 2.0)]
        for writer in writers:
            writer.start()
        seen = set()
        while any(writer.is_alive() for writer in writers):
            found = checkpoint.newest(folder)
            assert found is not None or not seen, "there was one, and now there is none"
            if found is not None:
                seen.add(_author(*found))
        assert [writer.exitcode for writer in writers] == [0, 0]
        assert seen == {1.0, 2.0}
        save(folder, STEPS + 1)
        assert len(steps(folder)) == len(place(folder).names()) == 2


STEPS = 100


def _write_in_a_loop(folder, value: float, pace) -> None:
    state = {"adapter": {"a": torch.full((2000,), value)}, "optimizer": {"m": torch.full((2000,), value)}}
    for step in range(1, STEPS + 1):
        pace.wait(60)  # one that fails must not leave the other waiting
        checkpoint.save(folder, replace(manifest(step), losses=[value]), state)


def _author(found: Manifest, state: dict) -> float:
    (value,) = {*found.losses, *state["adapter"]["a"].tolist(), *state["optimizer"]["m"].tolist()}
    return value


class TestFolder(LocalContract):
    @pytest.fixture
    def root(self, tmp_path):
        return tmp_path

    @pytest.fixture
    def folder(self, root):
        return checkpoint.trial_folder(root, 3)


class TestFileUrl(LocalContract):
    @pytest.fixture
    def root(self, tmp_path):
        return tmp_path.as_uri()

    @pytest.fixture
    def folder(self, root):
        return checkpoint.trial_folder(root, 3)


class TestMemory(CheckpointContract):
    @pytest.fixture
    def root(self):
        url = f"memory://{uuid.uuid4().hex}"
        yield url
        place(url).remove("")

    @pytest.fixture
    def folder(self, root):
        return checkpoint.trial_folder(root, 3)

    @pytest.mark.parametrize("written", [0, 1, 2])
    def test_a_store_that_breaks_off_is_said_with_its_url_and_leaves_the_earlier_checkpoint(
        self, folder, monkeypatch, written
    ):
        save(folder, 1)
        break_off(monkeypatch, folder, written, ConnectionResetError("connection reset by peer"))
        with pytest.raises(CheckpointError, match="connection reset by peer") as raised:
            save(folder, 2)
        assert folder in str(raised.value)
        monkeypatch.undo()
        assert checkpoint.newest(folder)[0].step == 1

    @pytest.mark.parametrize(
        ("error", "advice"),
        [(PermissionError("Access Denied"), "let this user"), (RuntimeError("no credentials"), "credentials")],
    )
    def test_a_store_that_refuses_is_said_with_what_to_do(self, folder, monkeypatch, error, advice):
        break_off(monkeypatch, folder, 0, error)
        with pytest.raises(CheckpointError, match=f"{error}; .*{advice}"):
            save(folder, 2)

    def test_a_refused_look_is_an_error_and_not_an_empty_place(self, folder, monkeypatch):
        def refuse(self, path, **_):
            raise PermissionError("Access Denied")

        monkeypatch.setattr(type(place(folder).files), "ls", refuse)
        with pytest.raises(CheckpointError, match="Access Denied; let this user"):
            checkpoint.newest(folder)


def break_off(monkeypatch, folder: str, written: int, error: Exception) -> None:
    """The store takes ``written`` more files."""
    kind, taken = type(place(folder).files), []
    genuine = kind.pipe_file

    def pipe_file(self, path, value, **more):
        if len(taken) == written:
            raise error
        taken.append(path)
        return genuine(self, path, value, **more)

    monkeypatch.setattr(kind, "pipe_file", pipe_file)


def test_an_unknown_protocol_is_said_with_the_url_and_what_to_give_instead():
    with pytest.raises(CheckpointError, match=r"nope://bucket.*Protocol not known.*give a folder, or a URL"):
        place("nope://bucket")


def test_a_missing_driver_is_said_with_the_url_and_the_package(monkeypatch):
    import fsspec

    def url_to_fs(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    with pytest.raises(CheckpointError, match="s3://bucket/a: Install s3fs to access S3; install that package"):
        place("s3://bucket/a")


def test_the_root_is_the_run_directory_unless_another_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint.root_of(None, Path("runs/a")) == Path("runs/a")
    assert checkpoint.root_of("s3://bucket/a/", Path("runs/a")) == "s3://bucket/a/"
    assert checkpoint.root_of("shared", Path("runs/a")) == tmp_path / "shared"
    assert checkpoint.root_of("~/shared", Path("runs/a")) == Path.home() / "shared"


@pytest.mark.parametrize("root", ["s3://bucket", "s3://bucket/", Path("/shared/bucket")])
def test_trials_lie_beneath_the_root(root):
    assert str(checkpoint.trial_folder(root, 3)).endswith("/bucket/trials/3")
