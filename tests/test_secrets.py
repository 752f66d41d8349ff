"""A secret that a user gives is used, and is in no output, log, file of the run directory, or export."""

from __future__ import annotations

import logging
import pickle
import sys
import traceback
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
import yaml
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.utils import infer_storage_options

from autolora import spec as specs
from autolora import urls
from autolora.cli import cli
from autolora.driver.directory import RunDirectoryError, run_directory
from autolora.driver.records import recorded_to_spec
from autolora.execution import ray_tune
from autolora.trainers import checkpoint, places
from autolora.trainers.places import CheckpointError, ObjectStore, place
from tests.support.postgres import PASSWORD, postgres  # noqa: F401
from tests.support.specs import SMALL_SPEC, small_spec

MARK = "mArk3r/s3cret+x"
SETTINGS = {**SMALL_SPEC, "budget": 1, "prior": None, "training": {"examples": 8, "max_length": 64, "device": "cpu"}}


class Bucket(MemoryFileSystem):
    """An object store that wants a key and its secret, and tells what it was given."""

    protocol = "s3"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False

    def __init__(self, key=None, secret=None, token=None, **options):
        super().__init__(**options)
        if MARK not in (secret, token):
            raise PermissionError(f"the signature of {key} with {secret or token} does not match")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol("memory://" + path.partition("://")[2] if "://" in path else path)


class Server(MemoryFileSystem):
    """A server whose file system reads the user and the password of its URL itself."""

    protocol = "guarded"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False

    def __init__(self, username=None, password=None, host=None, **options):
        super().__init__()
        if password != "mArk3r-s3cret":
            raise PermissionError(f"{username}:{password}@{host} is not allowed in")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol("memory://" + infer_storage_options(path)["path"] if "://" in path else path)

    @staticmethod
    def _get_kwargs_from_urls(path):
        found = infer_storage_options(path)
        return {key: found[key] for key in ("username", "password", "host") if key in found}


@pytest.fixture(autouse=True)
def _stores():
    fsspec.register_implementation("s3", Bucket, clobber=True)
    fsspec.register_implementation("guarded", Server, clobber=True)
    yield
    for kind in (Bucket, Server):
        kind.store.clear()
        del sys.modules["fsspec.registry"]._registry[kind.protocol]


WAYS = {
    "userinfo": f"s3://key:{MARK}@bucket/study",
    "encoded userinfo": "s3://key:mArk3r%2Fs3cret%2Bx@bucket/study",
    "parameters": "s3://bucket/study?key=k&secret=mArk3r%2Fs3cret%2Bx",
    "other parameters": "s3://bucket/study?TOKEN=x&token=mArk3r%2Fs3cret%2Bx",
    "file system's own": "guarded://me:mArk3r-s3cret@host/study",
    "a variable": "s3://key:${MARK}@bucket/study",
    "a variable for all": "${CHECKPOINTS}",
}


@pytest.fixture
def _variables(monkeypatch):
    monkeypatch.setenv("MARK", MARK)
    monkeypatch.setenv("CHECKPOINTS", f"s3://key:{MARK}@bucket/study")


def found_in(text: str) -> list[str]:
    return [mark for mark in (MARK, "mArk3r", "s3cret", PASSWORD) if mark in text]


@pytest.mark.usefixtures("_variables")
@pytest.mark.parametrize("way", WAYS)
def test_checkpoints_are_kept_behind_a_secret(way):
    root = checkpoint.root_of(small_spec(checkpoints=WAYS[way]).checkpoints, Path("run"))
    folder = checkpoint.trial_folder(root, 3)
    place(folder).commit("step-1", {"a": b"x"})
    assert place(folder).read("step-1/a") == b"x"
    at = place(root)
    assert isinstance(at, ObjectStore)
    stored = Server.store if "guarded" in WAYS[way] else Bucket.store
    assert list(stored) == ["/study/trials/3/step-1/a" if "guarded" in WAYS[way] else "/bucket/study/trials/3/step-1/a"]
    assert found_in(places.shown(folder)) == []
    checkpoint.discard(folder)
    assert not stored


@pytest.mark.usefixtures("_variables")
@pytest.mark.parametrize("way", WAYS)
def test_workers_get_what_they_need_and_no_more(way, monkeypatch):
    spec = ray_tune._for_workers(small_spec(checkpoints=WAYS[way], storage="postgresql://me:pw@host/db"))
    monkeypatch.delenv("MARK")
    monkeypatch.delenv("CHECKPOINTS")
    spec = pickle.loads(pickle.dumps(spec))
    assert spec.storage is None
    place(checkpoint.root_of(spec.checkpoints, Path("run"))).write("a", b"x")


@pytest.mark.parametrize(
    "url", ["s3://key:mArk3r-wr0ng@bucket/x", "s3://bucket/x?secret=mArk3r-wr0ng", "guarded://me:mArk3r-wr0ng@host/x"]
)
def test_a_driver_s_message_is_shown_without_the_secret(url, caplog):
    with pytest.raises(CheckpointError, match=r"cannot reach .*\*\*\*.*; let this user read") as error:
        place(url)
    assert found_in("".join(traceback.format_exception(error.value)).replace(repr(url), "")) == []


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("MARK", raising=False)
    for url in ("s3://key:${MARK}@bucket/x", "${MARK}"):
        with pytest.raises(CheckpointError, match="the environment variable MARK, which is not set; set it, wherever"):
            place(checkpoint.trial_folder(checkpoint.root_of(url, Path("run")), 0))


def test_a_secret_that_is_hidden_is_asked_for():
    with pytest.raises(CheckpointError, match=r"its password is not recorded: give the URL again, or write \$\{VAR"):
        place("guarded://me:***@host/x")
    with pytest.raises(CheckpointError, match="the signature of None with None"):  # looked for by the file system
        place("s3://key:***@bucket/x")


def test_a_secret_is_nowhere_but_in_use(tmp_path, monkeypatch, caplog, capfd, postgres):  # noqa: F811
    caplog.set_level(logging.DEBUG)
    storage = postgres.new_database()
    assert PASSWORD in storage
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**SETTINGS, "storage": storage}), encoding="utf-8")
    checkpoints = f"checkpoints=s3://key:{MARK}@bucket/study"
    arguments = ["tune", str(tmp_path / "study.yaml"), "--dir", str(tmp_path / "run"), "--set", checkpoints]
    said = ""

    def run(*words: str, code: int = 0) -> str:
        nonlocal said
        monkeypatch.setattr(sys, "argv", ["autolora", *words])
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == code, done.output
        said += done.output
        return done.output

    run(*arguments)
    assert any("/bucket/study/trials/" in name for name in Bucket.store)
    run(*arguments)  # given again
    monkeypatch.setenv("SECRET", MARK)
    run(*arguments[:-1], "checkpoints=s3://key:${SECRET}@bucket/study")  # by reference
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    restored = recorded_to_spec(tmp_path / "run")
    assert (restored.storage, restored.checkpoints) == (urls.shown(storage), "s3://key:${SECRET}@bucket/study")
    for words in (["status"], ["best"]):
        run(*words, str(tmp_path / "run"))
    for target in ("peft", "trl", "axolotl", "llamafactory"):
        run("export", str(tmp_path / "run"), "--variant", "lora", "--to", target, str(tmp_path / "run" / target))
    run(*arguments[:-1], "checkpoints=s3://key:mArk3r-wr0ng@bucket/study", code=2)
    run(*arguments, "--set", "model=https://me:mArk3r-s3cret@host/a/model", code=2)
    run(*arguments, "--set", "data=https://me:mArk3r-s3cret@host/train.jsonl", code=2)
    run(*arguments, "--set", f"storage={storage.replace(PASSWORD, 'wr0ng-s3cret')}", code=2)
    run(*arguments, "--set", "storage=sqlite:///x.db?PASSWD=mArk3r", code=2)
    out, err = capfd.readouterr()
    for text in (said, out, err, *(record.getMessage() for record in caplog.records)):
        assert found_in(text) == []
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or found_in(path.read_bytes().decode(errors="replace")) == [], path


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("url", [f"s3://key:{MARK}@b/c", "s3://key:${MARK}@b/c"])
def test_how_to_continue_is_said_without_the_secret(monkeypatch, tmp_path, error, url):
    from autolora import driver

    def fail(spec, dir, **arguments):
        with run_directory(dir, spec):
            raise error("stopped")

    monkeypatch.setattr(driver, "tune", fail)
    words = ["tune", "--model", "builtin:quickstart", "--data", "builtin:quickstart/train.jsonl"]
    said = CliRunner().invoke(cli, [*words, "--dir", str(tmp_path / "a b"), "--set", f"checkpoints={url}"]).output
    assert found_in(said) == []
    assert f"autolora resume '{tmp_path}/a b'" in said
    assert ("The secrets in checkpoints are not recorded" in said) is (MARK in url)


def test_neither_the_specification_nor_a_difference_shows_it(tmp_path):
    spec = small_spec(checkpoints=f"s3://key:{MARK}@bucket/a", storage=f"postgresql://me:{MARK}@host/db")
    assert found_in(repr(spec) + str(specs.dump(spec))) == []
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(specs.dump(spec)), encoding="utf-8")
    other = spec.model_copy(update={"checkpoints": f"s3://key:{MARK}@bucket/b"})
    refused = pytest.raises(RunDirectoryError, match=r"bucket/a -> s3://key:\*\*\*@bucket/b")
    with refused as error, run_directory(tmp_path, other):
        pass
    assert found_in(str(error.value)) == []
