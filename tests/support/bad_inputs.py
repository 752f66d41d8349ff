"""Bad inputs of the `autolora` command: mistakes, and damaged or foreign files. Each ends in a plain line.

``CASES`` maps a name to a :class:`BadInput`. A case makes its files in a scratch folder and returns the arguments of the
command. The command must then end with the case's code and say its fragment, and print no traceback. It may be run in
any working directory.

    for name, case in CASES.items():
        outcome = run(case, scratch)        # in a process of its own
        assert outcome.plain(case), outcome.output
"""

# ruff: noqa: E501  # a table: a case a line

from __future__ import annotations

import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autolora import quickstart

COMMAND = [sys.executable, "-c", "from autolora.cli import main; main()"]
REPOSITORY = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "model": "builtin:quickstart",
    "data": {"train": "builtin:quickstart/train.jsonl", "eval_size": 8},
    "variants": ["lora"],
    "space": {"learning_rate": [1e-4, 3e-2], "batch_size": [4], "rank": [2]},
    "training": {"examples": 16, "max_length": 64, "device": "cpu"},
    "prior": "laws",
    "budget": 2,
    "confirm": 0,
}
"""A study of two seconds."""


@dataclass(frozen=True)
class BadInput:
    """One bad input.

    Attributes:
        make: makes its files under a scratch folder, which exists and is empty, and returns the arguments.
        says: what the output must contain.
        code: with which the command must end; 0 for what is passed over or warned of.
        environment: variables of the command beside those of this process.
        may_pass: whether a command that has no use for what is damaged, or can do without, may also end with 0.
        file_size: most bytes that the command may write to a file; None: no limit.
    """

    make: Callable[[Path], list[str]]
    says: str
    code: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)
    file_size: int | None = None
    may_pass: bool = False


@dataclass(frozen=True)
class Outcome:
    """How the command ended."""

    code: int
    output: str

    def plain(self, case: BadInput) -> bool:
        """Whether it ended as the case says, in plain words."""
        if "Traceback (most recent call" in self.output:
            return False
        return (case.may_pass and self.code == 0) or (self.code == case.code and case.says in self.output)


def run(case: BadInput, scratch: Path, timeout: float = 300.0) -> Outcome:
    """Make a case and run it in a process of its own, with the scratch folder as working directory."""
    arguments = case.make(scratch)
    limit = case.file_size
    ended = subprocess.run(
        [*COMMAND, *arguments],
        cwd=scratch,
        env=environment(scratch) | case.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        preexec_fn=None if limit is None else functools.partial(limit_file_size, limit),
    )
    return Outcome(ended.returncode, ended.stdout.decode(errors="replace"))


def environment(scratch: Path) -> dict[str, str]:
    """Variables of a command: this repository's code, no hub, and a cache of its own."""
    own = {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "AUTOLORA_CACHE": str(scratch / "cache")}
    return {**os.environ, "OMP_NUM_THREADS": "1", **own}


def limit_file_size(size: int) -> None:
    """From now on this process can write no file of more bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


CASES: dict[str, BadInput] = {}


# --- A specification that is wrong


def tune_text(content: bytes | str) -> Callable[[Path], list[str]]:
    """``autolora tune`` with a specification of this content."""

    def make(scratch: Path) -> list[str]:
        path = scratch / "bad.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["tune", str(path), "--dir", str(scratch / "run")]

    return make


def tune_with(*flags: str, **overrides: object) -> Callable[[Path], list[str]]:
    """``autolora tune`` with TINY and these keys, dotted with ``__``, and flags; ``{}`` in them is the scratch."""

    def make(scratch: Path) -> list[str]:
        given: dict[str, Any] = json.loads(json.dumps(TINY))
        for key, value in overrides.items():
            *sections, name = key.split("__")
            node = given
            for section in sections:
                node = node.setdefault(section, {})
            node[name] = value
        (scratch / "spec.yaml").write_text(yaml.safe_dump(given).replace("{}/", f"{scratch}/"))
        own = [flag.replace("{}", str(scratch)) for flag in flags]
        return ["tune", str(scratch / "spec.yaml"), *(() if "--dir" in own else ("--dir", str(scratch / "run"))), *own]

    return make


PLAIN = "model: builtin:quickstart\ndata: builtin:quickstart/train.jsonl\n"


def _texts() -> dict[str, BadInput]:
    found: dict[str, tuple[bytes | str, str]] = {
        "empty": ("", "must hold keys such as"),
        "comment": ("# nothing\n", "must hold keys such as"),
        "list": ("- a\n- b\n", "not list"),
        "scalar": ("42\n", "not int"),
        "binary": (bytes(range(256)), "is not UTF-8 text"),
        "nul": (PLAIN + "seed: \0\n", "is not valid YAML"),
        "latin-1": ((PLAIN + "# größe\n").encode("latin-1"), "is not UTF-8 text"),
        "truncated": (PLAIN + "space: {rank: [8,\n", "is not valid YAML"),
        "tab": (PLAIN + "space:\n\trank: 8\n", "is not valid YAML"),
        "two documents": (PLAIN + "---\n" + PLAIN, "is not valid YAML"),
        "tag": (PLAIN + "seed: !!python/object:os.system {}\n", "is not valid YAML"),
        "anchor loop": ("&a\nmodel: builtin:quickstart\ndata: *a\n", "has an anchor"),
        "duplicate key": (PLAIN + "seed: 1\nbudget: 4\nseed: 2\n", "'seed'"),
        "duplicate key inside": (PLAIN + "training:\n  examples: 8\n  examples: 16\n", "'examples'"),
        "duplicate key in flow": (PLAIN + "training: {examples: 8, examples: 16}\n", "'examples'"),
        "merge keys": (PLAIN + "training: {<<: 5}\n", "is not valid YAML"),
        "number as key": (PLAIN + "5: 6\n", "line 3: 5 is not a key"),
        "null as key": (PLAIN + "null: 6\n", "is not a key"),
        "list as key": (PLAIN + "[a, b]: 6\n", "bad.yaml"),
        "boolean as key": (PLAIN + "training: {yes: 6}\n", "is not a key"),
        "date": (PLAIN + "seed: 2020-01-01\n", "seed"),
        "mistyped key": (PLAIN + "varaints: [lora]\n", "did you mean 'variants'"),
        "no model": ("data: builtin:quickstart/train.jsonl\n", "model: missing"),
        "no data": ("model: builtin:quickstart\n", "data: missing"),
        "budget true": (PLAIN + "budget: true\n", "budget"),
        "seed yes": (PLAIN + "seed: yes\n", "seed"),
        "keep true": (PLAIN + "keep: on\n", "keep"),
        "examples true": (PLAIN + "training: {examples: true}\n", "training.examples"),
        "rank true": (PLAIN + "space: {rank: true}\n", "space.rank"),
        "ranks true": (PLAIN + "space: {rank: [true, 8]}\n", "space.rank"),
        "learning rate true": (PLAIN + "space: {learning_rate: true}\n", "space.learning_rate"),
        "rungs true": (PLAIN + "rungs: [0.1, true]\n", "rungs"),
        "confirm true": (PLAIN + "confirm: true\n", "confirm"),
        "boolean baseline": (PLAIN + "baseline: {learning_rate: true, rank: 8, alpha: 16}\n", "baseline.learning_rate"),
        "boolean resources": (PLAIN + "resources: {cpu: true}\n", "resources.cpu"),
        "boolean prior": (PLAIN + "prior: true\n", "prior"),
        "deep": (PLAIN + "space: " + "[" * 3000 + "]" * 3000, "bad.yaml"),
        "null training": (PLAIN + "training: null\n", "training"),
        "null space": (PLAIN + "space: null\n", "space"),
        "null variants": (PLAIN + "variants: null\n", "variants"),
        "null model": ("model:\ndata: builtin:quickstart/train.jsonl\n", "model: missing"),
        "null data": ("model: builtin:quickstart\ndata:\n", "data"),
        "null metric": (PLAIN + "metric:\n", "metric"),
        "null budget": (PLAIN + "budget:\n", "budget"),
        "null seed": (PLAIN + "seed:\n", "seed"),
        "null rungs": (PLAIN + "rungs:\n", "rungs"),
        "null adapter": (PLAIN + "adapter:\n", "adapter"),
        "null resources": (PLAIN + "resources:\n", "resources"),
        "null device": (PLAIN + "training: {device: null}\n", "training.device"),
        "null rank": (PLAIN + "space: {rank: null}\n", "space.rank"),
        "infinite weight decay": (PLAIN + "training: {weight_decay: .inf}\n", "training.weight_decay"),
        "nan weight decay": (PLAIN + "training: {weight_decay: .nan}\n", "training.weight_decay"),
        "nan warmup": (PLAIN + "training: {warmup_ratio: .nan}\n", "training.warmup_ratio"),
        "nan dropout": (PLAIN + "training: {dropout: .nan}\n", "training.dropout"),
        "infinite clip": (PLAIN + "training: {max_grad_norm: .inf}\n", "training.max_grad_norm"),
        "nan clip": (PLAIN + "training: {max_grad_norm: .nan}\n", "training.max_grad_norm"),
        "nan checkpoint seconds": (PLAIN + "training: {checkpoint_seconds: .nan}\n", "training.checkpoint_seconds"),
        "infinite checkpoint seconds": (PLAIN + "training: {checkpoint_seconds: .inf}\n", "training.checkpoint_sec"),
        "infinite budget": (PLAIN + "budget: .inf\n", "budget"),
        "nan budget": (PLAIN + "budget: .nan\n", "budget"),
        "infinite rung": (PLAIN + "rungs: [.nan, 1]\n", "rungs"),
        "infinite seed": (PLAIN + "seed: .inf\n", "seed"),
        "huge examples": (PLAIN + "training: {examples: 1e18}\n", "training.examples"),
        "huge integer examples": (PLAIN + f"training: {{examples: {10**18}}}\n", "training.examples"),
        "huge budget": (PLAIN + "budget: 1e300\n", "budget"),
        "huge keep": (PLAIN + f"keep: {10**30}\n", "keep"),
        "huge rate": (PLAIN + "space: {learning_rate: 1.0e+9}\n", "learning_rate"),
        "huge rates": (PLAIN + "space: {learning_rate: [1.0e-5, 1.0e+9]}\n", "learning_rate"),
        "negative rate": (PLAIN + "space: {learning_rate: [-1.0e-5, 1.0e-3]}\n", "learning_rate"),
        "zero rate": (PLAIN + "space: {learning_rate: 0}\n", "learning_rate"),
        "infinite rate": (PLAIN + "space: {learning_rate: [1.0e-5, .inf]}\n", "learning_rate"),
        "nan rate": (PLAIN + "space: {learning_rate: .nan}\n", "learning_rate"),
        "baseline rate 1e9": (PLAIN + "baseline: {learning_rate: 1.0e+9, rank: 8, alpha: 16}\n", "learning_rate"),
        "baseline rate negative": (PLAIN + "baseline: {learning_rate: -1.0, rank: 8, alpha: 16}\n", "learning_rate"),
        "baseline rank 0": (PLAIN + "baseline: {learning_rate: 0.1, rank: 0, alpha: 16}\n", "baseline.rank"),
        "baseline alpha huge": (PLAIN + "baseline: {learning_rate: 0.1, rank: 8, alpha: 1.0e+300}\n", "alpha"),
        "alpha huge": (PLAIN + "space: {alpha: 1.0e+300}\n", "alpha"),
        "prior rate 1e9": (PLAIN + "prior: {learning_rate: 1.0e+9}\n", "prior.learning_rate"),
        "prior sd huge": (PLAIN + "prior: {learning_rate: 1.0e-4, sd: 1.0e+300}\n", "prior.sd"),
        "dropout 1": (PLAIN + "training: {dropout: 1}\n", "training.dropout"),
        "schedule": (PLAIN + "training: {schedule: cosin}\n", "training.schedule"),
        "model number": (PLAIN.replace("builtin:quickstart\n", "5\n", 1), "model"),
        "model list": (PLAIN.replace("builtin:quickstart\n", "[a, b]\n", 1), "model"),
        "model mapping": (PLAIN.replace("builtin:quickstart\n", "{a: b}\n", 1), "model"),
        "model boolean": (PLAIN.replace("builtin:quickstart\n", "true\n", 1), "model"),
        "model empty": (PLAIN.replace("builtin:quickstart\n", "''\n", 1), "model: missing"),
        "data number": ("model: builtin:quickstart\ndata: 5\n", "data"),
        "data of numbers": ("model: builtin:quickstart\ndata: [1, 2]\n", "data"),
        "data empty list": ("model: builtin:quickstart\ndata: []\n", "data"),
        "eval number": ("model: builtin:quickstart\ndata: {train: builtin:quickstart/train.jsonl, eval: 5}\n", "eval"),
        "prompt number": ("model: builtin:quickstart\ndata: {train: builtin:quickstart/train.jsonl, prompt: 5}\n", "prompt"),
        "variants number": (PLAIN + "variants: 5\n", "variants"),
        "variants numbers": (PLAIN + "variants: [5]\n", "variants"),
        "variants empty": (PLAIN + "variants: []\n", "variants"),
        "variants empty text": (PLAIN + "variants: ''\n", "variants"),
        "variants twice": (PLAIN + "variants: [lora, lora]\n", "named twice"),
        "variants mistyped": (PLAIN + "variants: [lroa]\n", "did you mean"),
        "variant colon": (PLAIN + "variants: [':']\n", "variants"),
        "variant no module": (PLAIN + "variants: ['nosuch:V']\n", "nosuch"),
        "variant not a variant": (PLAIN + "variants: ['json:loads']\n", "json:loads"),
        "metric number": (PLAIN + "metric: 5\n", "metric"),
        "metric colon": (PLAIN + "metric: {name: ':', direction: minimize}\n", "metric"),
        "metric no function": (PLAIN + "metric: {name: 'json:', direction: minimize}\n", "metric"),
        "metric relative": (PLAIN + "metric: {name: '.:a', direction: minimize}\n", "metric"),
        "metric dots": (PLAIN + "metric: {name: 'a..b:c', direction: minimize}\n", "metric"),
        "metric slash": (PLAIN + "metric: {name: './m.py:f', direction: minimize}\n", "metric"),
        "metric no module": (PLAIN + "metric: {name: 'nosuch:fn', direction: minimize}\n", "nosuch"),
        "metric no attribute": (PLAIN + "metric: {name: 'json:nosuch', direction: minimize}\n", "nosuch"),
        "metric not callable": (PLAIN + "metric: {name: 'string:digits', direction: minimize}\n", "string:digits"),
        "metric without direction": (PLAIN + "metric: 'json:loads'\n", "direction"),
        "metric direction": (PLAIN + "metric: {name: eval_loss, direction: maximize}\n", "minimized"),
        "device banana": (PLAIN + "training: {device: banana}\n", "training.device"),
        "device cuda:9": (PLAIN + "training: {device: 'cuda:9'}\n", "training.device"),
        "device cuda:x": (PLAIN + "training: {device: 'cuda:x'}\n", "training.device"),
        "device cpu:7": (PLAIN + "training: {device: 'cpu:7'}\n", "training.device"),
        "device meta": (PLAIN + "training: {device: meta}\n", "training.device"),
        "device xla": (PLAIN + "training: {device: xla}\n", "training.device"),
        "device empty": (PLAIN + "training: {device: ''}\n", "training.device"),
        "device number": (PLAIN + "training: {device: 0}\n", "training.device"),
        "attention number": (PLAIN + "base: {attn_implementation: 5}\n", "base.attn_implementation"),
        "attention unknown": (PLAIN + "base: {attn_implementation: flashy}\n", "(sdpa, eager"),
        "attention not installed": (PLAIN + "base: {attn_implementation: flash_attention_3}\n", "base.attn_implementation"),
        "dtype unknown": (PLAIN + "training: {dtype: half}\n", "training.dtype"),
        "rungs empty": (PLAIN + "rungs: []\n", "rungs"),
        "rungs number": (PLAIN + "rungs: 1\n", "rungs"),
        "rungs descending": (PLAIN + "rungs: [0.5, 0.3, 1]\n", "rungs"),
        "rungs text": (PLAIN + "rungs: abc\n", "rungs"),
        "storage number": (PLAIN + "storage: 5\n", "storage"),
        "storage no url": (PLAIN + "storage: study.db\n", "no storage URL"),
        "storage unknown": (PLAIN + "storage: nosuch://a/b\n", "storage"),
        "storage no folder": (PLAIN + "storage: sqlite:////nosuch/folder/study.db\n", "/nosuch/folder"),
        "storage no driver": (PLAIN + "storage: mysql://a@127.0.0.1:1/b\n", "not installed"),
        "storage no variable": (PLAIN + "storage: 'sqlite:///${NO_SUCH_VARIABLE}'\n", "NO_SUCH_VARIABLE"),
        "checkpoints unknown": (PLAIN + "checkpoints: nosuch://a/b\n", "nosuch"),
        "checkpoints number": (PLAIN + "checkpoints: 5\n", "checkpoints"),
        "prior study missing": (PLAIN + "prior: {study: /nosuch/run}\n", "/nosuch/run"),
        "prior study number": (PLAIN + "prior: {study: 5}\n", "prior.study"),
        "prior name": (PLAIN + "prior: lwas\n", "prior"),
        "template number": (PLAIN.replace("data: ", "data: {train: ").rstrip() + ", template: 5}\n", "template"),
        "target modules": (PLAIN + "adapter: {target_modules: '['}\n", "target_modules"),
    }  # fmt: skip
    return {f"spec {name}": BadInput(tune_text(content), says) for name, (content, says) in found.items()}


CASES |= _texts()
CASES |= {
    "set without equals": BadInput(tune_with("--set", "budget"), "write KEY=VALUE"),
    "set without key": BadInput(tune_with("--set", "=5"), "write KEY=VALUE"),
    "set dots": BadInput(tune_with("--set", "..=5"), "--set"),
    "set trailing dot": BadInput(tune_with("--set", "training.=5"), "training."),
    "set bad yaml": BadInput(tune_with("--set", "budget=[1"), "is not valid YAML"),
    "set duplicate key": BadInput(tune_with("--set", "training={examples: 8, examples: 9}"), "'examples'"),
    "set inside number": BadInput(tune_with("--set", "budget.x=5"), "budget.x"),
    "set unknown": BadInput(tune_with("--set", "bugdet=5"), "did you mean 'budget'"),
    "set null": BadInput(tune_with("--set", "variants="), "variants"),
    "no spec": BadInput(lambda scratch: ["tune", str(scratch / "nosuch.yaml")], "no such spec file"),
    "spec is a directory": BadInput(lambda scratch: ["tune", str(scratch)], "no such spec file"),
    "budget flag nan": BadInput(tune_with("--budget", "nan"), "budget"),
    "model is a file": BadInput(tune_with(model=str(Path(quickstart.resolve("builtin:quickstart")) / "config.json")), "is a file"),
    "max_length beyond the positions": BadInput(tune_with(training__max_length=10**6), "max_length", may_pass=True),
    "rank above the layers": BadInput(tune_with(space__rank=[100_000]), "rank"),
    "batch beyond the run": BadInput(tune_with(space__batch_size=[640]), "batch"),
    "200 rungs over 4 steps": BadInput(tune_with(rungs=[n / 200 for n in range(1, 201)]), "rungs"),
    "rungs on one step": BadInput(tune_with(rungs=[0.1, 0.11, 1.0]), "falls on the same step", 0),
    "eval_size beyond the rows": BadInput(tune_with(data__eval_size=10**9), "eval"),
    "examples beyond all": BadInput(tune_with(training__examples=10**15), "examples"),
    "executor unknown": BadInput(tune_with("--executor", "slurm"), "slurm"),
}  # fmt: skip


# --- Data


def _write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def tune_data(name: str, content: bytes | str, key: str = "train", **overrides: object) -> Callable[[Path], list[str]]:
    """``autolora tune`` with a data file of this name and content."""

    def make(scratch: Path) -> list[str]:
        _write(scratch / name, content)
        return tune_with(**{f"data__{key}": f"{{}}/{name}", **overrides})(scratch)

    return make


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8\nsize 132000000\n"  # fmt: skip
ROW = '{"prompt": "a", "completion": "b"}\n'


def _rows() -> dict[str, BadInput]:
    found: dict[str, tuple[str, bytes | str, str]] = {
        "empty": ("rows.jsonl", "", "rows.jsonl"),
        "blank lines": ("rows.jsonl", "\n\n\n", "rows.jsonl"),
        "latin-1": ("rows.jsonl", '{"prompt": "gr\xfc\xdfe", "completion": "b"}\n'.encode("latin-1"), "row 1"),
        "latin-1 csv": ("rows.csv", "prompt,completion\ngr\xfc\xdfe,b\n".encode("latin-1"), "rows.csv, row 2"),
        "latin-1 json": ("rows.json", '[{"prompt": "gr\xfc\xdfe", "completion": "b"}]'.encode("latin-1"), "rows.json"),
        "latin-1 txt": ("rows.txt", "gr\xfc\xdfe\n".encode("latin-1"), "rows.txt, row 1"),
        "binary": ("rows.jsonl", bytes(range(256)) * 10, "rows.jsonl"),
        "binary csv": ("rows.csv", bytes(range(256)) * 10, "rows.csv"),
        "truncated": ("rows.jsonl", ROW * 20 + ROW[:12], "row 21"),
        "list of numbers": ("rows.json", "[1, 2, 3]", "row 1"),
        "mapping": ("rows.json", '{"a": 1}', "rows.json"),
        "number": ("rows.json", "42", "rows.json"),
        "null": ("rows.json", "null", "rows.json"),
        "numbers": ("rows.jsonl", "1\n2\n", "row 1"),
        "lists": ("rows.jsonl", "[1]\n[2]\n", "row 1"),
        "null rows": ("rows.jsonl", "null\n" * 30, "row 1"),
        "null cells": ("rows.jsonl", '{"prompt": null, "completion": null}\n' * 30, "row 1"),
        "number cells": ("rows.jsonl", '{"prompt": 5, "completion": {"a": 1}}\n' * 30, "row 1"),
        "other columns": ("rows.jsonl", '{"a": "b", "c": "d"}\n' * 30, "'a'"),
        "empty cells": ("rows.jsonl", '{"prompt": "", "completion": ""}\n' * 30, "can be used"),
        "one row": ("rows.jsonl", ROW, "row"),
        "two rows": ("rows.jsonl", ROW * 2, "row"),
        "identical rows": ("rows.jsonl", ROW * 60, "identical"),
        "yaml": ("rows.yaml", "a: 1\n", "suffix"),
        "pickle": ("rows.pkl", b"\x80\x04N.", "suffix"),
        "gzip of nothing": ("rows.jsonl.gz", b"", "rows.jsonl.gz"),
        "gzip garbage": ("rows.jsonl.gz", b"garbage", "cannot be decompressed"),
        "parquet garbage": ("rows.parquet", b"garbage", "cannot be read as Parquet"),
        "parquet empty": ("rows.parquet", b"", "cannot be read as Parquet"),
        "csv header alone": ("rows.csv", "prompt,completion\n", "rows.csv"),
        "csv empty": ("rows.csv", "", "holds no rows"),
        "csv uneven": ("rows.csv", "prompt,completion\na,b\na,b,c\n", "not valid CSV"),
        "csv twice": ("rows.csv", "prompt,prompt\na,b\n", "twice"),
        "csv open quote": ("rows.csv", 'prompt,completion\n"a,b\n' * 20, "rows.csv"),
        "lfs": ("rows.jsonl", LFS, "git lfs pull"),
        "lfs csv": ("rows.csv", LFS, "git lfs pull"),
        "lfs parquet": ("rows.parquet", LFS, "git lfs pull"),
        "lfs json": ("rows.json", LFS, "git lfs pull"),
        "lfs gzip": ("rows.jsonl.gz", LFS, "git lfs pull"),
        "lfs txt": ("rows.txt", LFS, "git lfs pull"),
        "deep": ("rows.jsonl", "[" * 100_000 + "\n", "rows.jsonl"),
        "deep json": ("rows.json", "[" * 100_000, "rows.json"),
        "huge number": ("rows.jsonl", f'{{"prompt": {"9" * 5000}, "completion": "b"}}\n' * 20, "row 1"),
        "surrogate": ("rows.jsonl", '{"prompt": "\\ud800", "completion": "b"}\n' * 20, "row 1"),
    }
    return {f"data {name}": BadInput(tune_data(file, content), says) for name, (file, content, says) in found.items()}


def _dangling(key: str, name: str) -> Callable[[Path], list[str]]:
    def make(scratch: Path) -> list[str]:
        (scratch / name).symlink_to(scratch / "nowhere")
        return tune_with(**{key: f"{{}}/{name}"})(scratch)

    return make


def _data_folder(**contents: str) -> Callable[[Path], list[str]]:
    def make(scratch: Path) -> list[str]:
        (scratch / "folder").mkdir()
        for name, content in contents.items():
            _write(scratch / "folder" / name.replace("__", "."), content)
        return tune_with(data__train="{}/folder")(scratch)

    return make


def _directory_named(name: str) -> Callable[[Path], list[str]]:
    def make(scratch: Path) -> list[str]:
        (scratch / name).mkdir()
        return tune_with(data__train=f"{{}}/{name}")(scratch)

    return make


CASES |= _rows()
CASES |= {
    "data missing": BadInput(tune_with(data__train="{}/nosuch.jsonl"), "no such file"),
    "data dangling link": BadInput(_dangling("data__train", "rows.jsonl"), "link"),
    "data is a directory named so": BadInput(_directory_named("rows.jsonl"), "rows.jsonl"),
    "data folder empty": BadInput(_data_folder(), "folder"),
    "data folder of others": BadInput(_data_folder(notes__md="hello"), "folder"),
    "data folder damaged": BadInput(_data_folder(train__jsonl=ROW * 20 + '{"a'), "folder"),
    "data folder with a bad state": BadInput(_data_folder(state__json="{}"), "folder"),
    "eval empty": BadInput(tune_data("eval.jsonl", "", "eval"), "eval.jsonl"),
    "eval of other columns": BadInput(tune_data("eval.jsonl", '{"a": 1}\n' * 20, "eval"), "eval"),
    "test empty": BadInput(tune_data("test.jsonl", "", "test"), "test.jsonl"),
    "prompt column missing": BadInput(tune_with(data__prompt="question", data__completion="answer"), "question"),
    "template of unknown columns": BadInput(tune_with(data__template="{nosuch}"), "nosuch"),
    "template open": BadInput(tune_with(data__template="{prompt"), "template"),
    "template by position": BadInput(tune_with(data__template="{0} {}"), "template"),
    "template with an attribute": BadInput(tune_with(data__template="{prompt.x}"), "template"),
}


# --- Models


def _model(damage: Callable[[Path], object]) -> Callable[[Path], list[str]]:
    """``autolora tune`` with a copy of the shipped model that was damaged."""

    def make(scratch: Path) -> list[str]:
        folder = scratch / "model"
        shutil.copytree(quickstart.resolve("builtin:quickstart"), folder)
        damage(folder)
        return tune_with(model="{}/model")(scratch)

    return make


def _content(name: str, content: bytes | str) -> Callable[[Path], object]:
    return lambda folder: _write(folder / name, content)


def _cut(name: str, share: float = 0.5) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def _edited(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """A JSON file with a change made to its content, in place or as what is returned."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        returned = change(content)
        (folder / name).write_text(json.dumps(content if returned is None else returned))

    return damage


def _flipped(name: str, *places: float) -> Callable[[Path], object]:
    """A file with bytes inverted at these shares of its length."""

    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        for place in places:
            content[int(place * (len(content) - 1))] ^= 0xFF
        (folder / name).write_bytes(content)

    return damage


def _gone(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def _as_folder(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        _gone(name)(folder)
        (folder / name).mkdir()

    return damage


def _adapter(config: object, weights: bytes = b"") -> Callable[[Path], object]:
    """In place of the model an adapter."""

    def damage(folder: Path) -> None:
        shutil.rmtree(folder)
        text = config if isinstance(config, str) else json.dumps(config)
        _write(folder / "adapter_config.json", text)
        _write(folder / "adapter_model.safetensors", weights)

    return damage


LORA = {"peft_type": "LORA", "base_model_name_or_path": quickstart.resolve("builtin:quickstart"), "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}  # fmt: skip


def _models() -> dict[str, BadInput]:
    weights, config, tokenizer = "model.safetensors", "config.json", "tokenizer.json"
    found: dict[str, tuple[Callable[[Path], object], str]] = {
        **{f"{name} {kind}": (_content(name, content), name)
           for name in (weights, config, tokenizer, "tokenizer_config.json")
           for kind, content in {"empty": "", "lfs": LFS, "garbage": bytes(range(256)) * 4}.items()},
        **{f"{name} truncated": (_cut(name), name) for name in (weights, config, tokenizer)},
        **{f"{name} a list": (_content(name, "[]"), name) for name in (config, tokenizer, "tokenizer_config.json")},
        **{f"{name} an empty object": (_content(name, "{}"), "model") for name in (config, tokenizer)},
        **{f"{name} latin-1": (_content(name, '{"a": "\xfc"}'.encode("latin-1")), name) for name in (config, tokenizer)},
        **{f"{name} gone": (_gone(name), "tokenizer" if name == tokenizer else name) for name in (weights, config, tokenizer)},
        **{f"{name} a folder": (_as_folder(name), "tokenizer" if name == tokenizer else name) for name in (weights, config, tokenizer)},
        "weights header flipped": (_flipped(weights, 0.0), weights),
        "weights header huge": (_content(weights, b"\xff" * 64), weights),
        "weights cut by a byte": (_cut(weights, 0.9999), weights),
        "config width text": (_edited(config, lambda c: c.update(hidden_size="64")), "model"),
        "config width negative": (_edited(config, lambda c: c.update(hidden_size=-64)), "model"),
        "config width zero": (_edited(config, lambda c: c.update(hidden_size=0)), "model"),
        "config width null": (_edited(config, lambda c: c.update(hidden_size=None)), "model"),
        "config width huge": (_edited(config, lambda c: c.update(hidden_size=10**12)), "model"),
        "config layers text": (_edited(config, lambda c: c.update(num_hidden_layers="many")), "model"),
        "config layers more": (_edited(config, lambda c: c.update(num_hidden_layers=c["num_hidden_layers"] + 3)), "model"),
        "config heads zero": (_edited(config, lambda c: c.update(num_attention_heads=0)), "model"),
        "config heads odd": (_edited(config, lambda c: c.update(num_attention_heads=7, num_key_value_heads=7)), "model"),
        "config vocabulary one": (_edited(config, lambda c: c.update(vocab_size=1)), "model"),
        "config type unknown": (_edited(config, lambda c: c.update(model_type="nosuch")), "model"),
        "config type number": (_edited(config, lambda c: c.update(model_type=5)), "model"),
        "config type gone": (_edited(config, lambda c: c.pop("model_type")), "model"),
        "config architectures text": (_edited(config, lambda c: c.update(architectures=5)), "model"),
        "config activation unknown": (_edited(config, lambda c: c.update(hidden_act="nosuch")), "model"),
        "config dtype unknown": (_edited(config, lambda c: c.update(dtype="float7", torch_dtype="float7")), "model"),
        "config rope list": (_edited(config, lambda c: c.update(rope_scaling=[], rope_parameters=[])), "model"),
        "config quantization list": (_edited(config, lambda c: c.update(quantization_config=[5])), "model"),
        "config quantization unknown": (_edited(config, lambda c: c.update(quantization_config={"quant_method": "nosuch"})), "nosuch"),
        "tokenizer model null": (_edited(tokenizer, lambda c: c.update(model=None)), "AutoTokenizer"),
        "tokenizer vocabulary list": (_edited(tokenizer, lambda c: c["model"].update(vocab=[5])), "AutoTokenizer"),
        "folder empty": (lambda folder: (shutil.rmtree(folder), folder.mkdir()), "it is empty"),
        "adapter config garbage": (_adapter("{"), "adapter_config.json"),
        "adapter config a list": (_adapter("[]"), "adapter_config.json"),
        "adapter config empty": (_adapter({}), "adapter"),
        "adapter base number": (_adapter({**LORA, "base_model_name_or_path": 5}), "adapter"),
        "adapter base missing": (_adapter({**LORA, "base_model_name_or_path": "/nosuch/base"}), "/nosuch/base"),
        "adapter weights empty": (_adapter(LORA), "adapter_model.safetensors"),
        "adapter weights lfs": (_adapter(LORA, LFS.encode()), "git lfs pull"),
        "adapter weights garbage": (_adapter(LORA, b"\x08" + bytes(40)), "adapter"),
        "adapter rank text": (_adapter({**LORA, "r": "two"}, b"\x02\0\0\0\0\0\0\0{}"), "adapter"),
        "adapter type unknown": (_adapter({**LORA, "peft_type": "NOSUCH"}, b"\x02\0\0\0\0\0\0\0{}"), "NOSUCH"),
        "adapter type list": (_adapter({**LORA, "peft_type": ["LORA"]}, b"\x02\0\0\0\0\0\0\0{}"), "adapter"),
        "adapter of nothing": (_adapter(LORA, b"\x02\0\0\0\0\0\0\0{}"), "adapter"),
    }  # fmt: skip
    return {f"model {name}": BadInput(_model(damage), says) for name, (damage, says) in found.items()}


CASES |= _models()
CASES |= {
    "model missing": BadInput(tune_with(model="{}/nosuch"), "no such model directory"),
    "model dangling link": BadInput(_dangling("model", "model"), "link"),
    "model hub id unknown": BadInput(tune_with(model="nosuch/model"), "nosuch/model"),
    "model of odd letters": BadInput(tune_with(model="a b?c"), "model"),
    "model with a nul": BadInput(tune_text(PLAIN.replace("builtin:quickstart\n", '"a\\0b"\n', 1)), "model"),
}


# --- Run directories, and what commands need


def _run_in(path: str, before: Callable[[Path], object]) -> Callable[[Path], list[str]]:
    def make(scratch: Path) -> list[str]:
        before(scratch)
        return tune_with("--dir", f"{{}}/{path}")(scratch)

    return make


def _stub(package: str, command: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    """A package that is not there, as seen from the scratch folder; the model's weights are not there either."""

    def make(scratch: Path) -> list[str]:
        _write(scratch / f"{package}.py", f'raise ModuleNotFoundError("no {package}", name="{package}")')
        arguments = command(scratch)
        (scratch / "model" / "model.safetensors").unlink()
        return arguments

    return make


def _prior(*flags: str, **overrides: object) -> Callable[[Path], list[str]]:
    def make(scratch: Path) -> list[str]:
        _model(lambda folder: None)(scratch)
        tune_with(model="{}/model", **overrides)(scratch)
        return ["prior", str(scratch / "spec.yaml"), *(flag.replace("{}", str(scratch)) for flag in flags)]

    return make


def _weightless(**overrides: object) -> Callable[[Path], list[str]]:
    """``autolora tune`` with another mistake and a model without weights: the mistake is found before it is loaded."""

    def make(scratch: Path) -> list[str]:
        _model(_gone("model.safetensors"))(scratch)
        return tune_with(**{"model": "{}/model", **overrides})(scratch)

    return make


def _read_only(scratch: Path) -> None:
    (scratch / "locked").mkdir()
    (scratch / "locked").chmod(0o555)


CASES |= {
    "dir is a file": BadInput(_run_in("file", lambda scratch: _write(scratch / "file", "x")), "file"),
    "dir below a file": BadInput(_run_in("file/run", lambda scratch: _write(scratch / "file", "x")), "file"),
    "dir is a dangling link": BadInput(_run_in("run", lambda s: (s / "run").symlink_to(s / "no" / "where")), "link"),
    "dir of a long name": BadInput(_run_in("x" * 300, lambda scratch: None), "xxx"),
    "dir lock is a folder": BadInput(_run_in("run", lambda s: (s / "run" / ".lock").mkdir(parents=True)), ".lock"),
    "dir data is a file": BadInput(_run_in("run", lambda s: _write(s / "run" / "data", "x")), "data"),
    "dir trials is a file": BadInput(_run_in("run", lambda s: _write(s / "run" / "trials", "x")), "trials"),
    "dir best is a file": BadInput(_run_in("run", lambda s: _write(s / "run" / "best", "x")), "best"),
    "dir spec.yaml is a folder": BadInput(_run_in("run", lambda s: (s / "run" / "spec.yaml").mkdir(parents=True)), "spec.yaml"),
    "dir study.db is a folder": BadInput(_run_in("run", lambda s: (s / "run" / "study.db").mkdir(parents=True)), "study.db"),
    "dir best.json is a folder": BadInput(_run_in("run", lambda s: (s / "run" / "best.json").mkdir(parents=True)), "best.json"),
    "file size limit of 20 kB": BadInput(tune_with(), "rerun the same command", file_size=20_000),
    "file size limit of 150 kB": BadInput(tune_with(), "rerun the same command", file_size=150_000),
    "ray missing": BadInput(_stub("ray", lambda s: [*_model(lambda f: None)(s), "--executor", "ray"]), "autolora-tune[ray]"),
    "matplotlib missing": BadInput(_stub("matplotlib", _prior("--plots", "{}/plots")), "matplotlib"),
    "plots below a file": BadInput(_prior("--plots", "{}/spec.yaml/plots"), "spec.yaml"),
    "prior study missing before the model": BadInput(_weightless(prior={"study": "{}/nosuch"}), "nosuch"),
    "storage missing before the model": BadInput(_weightless(storage="sqlite:////nosuch/folder/study.db"), "/nosuch/folder"),
    "storage driver before the model": BadInput(_weightless(storage="mysql://a@127.0.0.1:1/b"), "not installed"),
    "metric module before the model": BadInput(_weightless(metric={"name": "nosuch:fn", "direction": "minimize"}), "nosuch"),
    "data before the model": BadInput(_weightless(data={"train": "{}/nosuch.jsonl"}), "no such file"),
    "device before the model": BadInput(_weightless(training={"device": "banana"}), "banana"),
    "dir before the model": BadInput(lambda s: [*_weightless()(s)[:2], "--dir", str(_write(s / "file", "") / "run")], "file"),
    "status of nothing": BadInput(lambda scratch: ["status", str(scratch)], "not a run directory"),
    "best of nothing": BadInput(lambda scratch: ["best", str(scratch)], "best.json"),
    "export of nothing": BadInput(lambda s: ["export", str(s), "--variant", "lora", str(s / "out")], "not a run directory"),
    "recommend of nothing": BadInput(lambda scratch: ["recommend", str(scratch)], "config.json"),
    "recommend of a file": BadInput(lambda s: ["recommend", str(_write(s / "config.json", "{}"))], "is a file"),
    "recommend of garbage": BadInput(lambda s: ["recommend", str(_write(s / "m" / "config.json", b"\xff\xfe{").parent)], "config.json"),
    "recommend width 0": BadInput(lambda scratch: ["recommend", "--hidden-size", "0"], "hidden"),
    "recommend rank negative": BadInput(lambda scratch: ["recommend", "--hidden-size", "64", "--rank", "-1"], "rank"),
    "recommend alpha nan": BadInput(lambda scratch: ["recommend", "--hidden-size", "64", "--alpha", "nan"], "alpha"),
    "recommend alpha huge": BadInput(lambda scratch: ["recommend", "--hidden-size", "64", "--alpha", "1e300"], "alpha"),
    "recommend examples 0": BadInput(lambda scratch: ["recommend", "--hidden-size", "64", "--examples", "0"], "examples"),
    "variants unknown": BadInput(lambda scratch: ["variants", "lroa"], "lora"),
    "variants reference": BadInput(lambda scratch: ["variants", "nosuch:V"], "nosuch"),
}  # fmt: skip


# --- Damaged and foreign run directories


@functools.cache
def finished() -> Path:
    """The run directory of a finished study, with another variant's trials pruned; copied, never changed."""
    scratch = Path(tempfile.mkdtemp(prefix="autolora-finished-"))
    outcome = run(BadInput(tune_with(), "", 0), scratch)
    assert outcome.code == 0, outcome.output
    return scratch


def damaged(
    damage: Callable[[Path], object], command: Callable[[Path, Path], list[str]]
) -> Callable[[Path], list[str]]:
    """A command on a copy of a finished run directory that was damaged.

    Args:
        damage: is given the run directory.
        command: is given the scratch folder and the run directory.
    """

    def make(scratch: Path) -> list[str]:
        folder = scratch / "run"
        shutil.copytree(finished() / "run", folder)
        shutil.copy(finished() / "spec.yaml", scratch / "spec.yaml")
        damage(folder)
        return command(scratch, folder)

    return make


def _prior_study(scratch: Path, folder: Path) -> list[str]:
    return tune_with("--dir", "{}/next", prior={"study": str(folder), "curvature": False})(scratch)


READERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "status": lambda scratch, folder: ["status", str(folder)],
    "best": lambda scratch, folder: ["best", str(folder)],
    "best as json": lambda scratch, folder: ["best", str(folder), "--json"],
    "export": lambda scratch, folder: ["export", str(folder), "--variant", "lora", "--to", "trl", str(scratch / "out")],
    "export of the adapter": lambda scratch, folder: ["export", str(folder), "--variant", "lora", str(scratch / "out")],
    "prior.study": _prior_study,
}
"""Commands that read a run directory."""
AGAIN: dict[str, Callable[[Path, Path], list[str]]] = {
    "tune": lambda scratch, folder: ["tune", str(scratch / "spec.yaml"), "--dir", str(folder)],
    "dry run": lambda scratch, folder: ["tune", str(scratch / "spec.yaml"), "--dir", str(folder), "--dry-run"],
}
"""Commands that go on with one."""


def database(change: str | Callable[[sqlite3.Connection], object]) -> Callable[[Path], object]:
    """A change of ``study.db``: a statement, or what is done with a connection."""

    def damage(folder: Path) -> None:
        connection = sqlite3.connect(folder / "study.db")
        with connection:
            connection.execute(change) if isinstance(change, str) else change(connection)
        connection.close()

    return damage


def optuna_study(change: Callable[[Any], object]) -> Callable[[Path], object]:
    """What a user did to the study with plain Optuna."""

    def damage(folder: Path) -> None:
        import optuna

        url = f"sqlite:///{folder / 'study.db'}"
        change(optuna.load_study(study_name="autolora", storage=url))

    return damage


def _other_program(folder: Path) -> None:
    _gone("study.db")(folder)
    database("CREATE TABLE recipes (name TEXT)")(folder)


def _add_trial(study: Any, **fields: Any) -> None:
    import optuna

    study.add_trial(optuna.trial.create_trial(**fields))


def _own_attribute(trial: int, name: str, value: object) -> Callable[[sqlite3.Connection], object]:
    """A user attribute of a trial changed; None removes it."""
    where = f"key = '{name}' AND trial_id IN (SELECT trial_id FROM trials WHERE number = {trial})"

    def change(connection: sqlite3.Connection) -> None:
        connection.execute(f"DELETE FROM trial_user_attributes WHERE {where}")
        if value is not None:
            connection.execute(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                "SELECT trial_id, ?, ? FROM trials WHERE number = ?",
                [name, json.dumps(value), trial],
            )

    return change


STUDY_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "study.db empty": (_content("study.db", b""), "study.db"),
    "study.db truncated": (_cut("study.db"), "study.db"),
    "study.db truncated to a page": (_cut("study.db", 0.05), "study.db"),
    "study.db text": (_content("study.db", "hello\n" * 1000), "study.db"),
    "study.db zeros": (_content("study.db", bytes(100_000)), "study.db"),
    "study.db a folder": (_as_folder("study.db"), "study.db"),
    "study.db header flipped": (_flipped("study.db", 0.0, 0.00001), "study.db"),
    "study.db flipped": (_flipped("study.db", *(n / 40 for n in range(1, 40))), "study.db"),
    "study.db of another program": (_other_program, "study.db"),
    "study.db of a newer Optuna": (database("UPDATE alembic_version SET version_num = 'v99.0.0.a'"), "this Optuna"),
    "study.db without a table": (database("DROP TABLE trials"), "study.db"),
    "study.db without the study": (database("DELETE FROM studies"), "study.db"),
    "study.db without terms": (database("DELETE FROM study_user_attributes"), "not made by autolora"),
    "study.db terms a list": (
        database("UPDATE study_user_attributes SET value_json = '[]' WHERE key = 'autolora:terms'"), "study.db"),
    "study.db terms empty": (
        database("UPDATE study_user_attributes SET value_json = '{}' WHERE key = 'autolora:terms'"), "study.db"),
    "study.db terms cut": (
        database("UPDATE study_user_attributes SET value_json = substr(value_json, 1, 40) WHERE key = 'autolora:terms'"),
        "study.db"),
    "trial added": (optuna_study(lambda s: _add_trial(s, value=0.1)), "trial"),
    "trial waiting": (optuna_study(lambda s: s.enqueue_trial({"learning_rate": 0.1})), "trial"),
    "trial running": (optuna_study(lambda s: s.ask()), "trial"),
    "trial failed": (database("UPDATE trials SET state = 'FAIL' WHERE number = 0"), "trial 0"),
    "trial waiting again": (database("UPDATE trials SET state = 'WAITING' WHERE number = 0"), "trial 0"),
    "trial deleted": (database("DELETE FROM trials WHERE number = 0"), "trial"),
    "trial without seed": (database(_own_attribute(0, "seed", None)), "trial 0"),
    "trial seed text": (database(_own_attribute(0, "seed", "x")), "trial 0"),
    "trial purpose unknown": (database(_own_attribute(0, "purpose", "fun")), "trial 0"),
    "trial ending a list": (database(_own_attribute(0, "ending", [])), "trial 0"),
    "trial ending other keys": (database(_own_attribute(0, "ending", {"a": 1})), "trial 0"),
    "trial rows garbage": (database(_own_attribute(0, "rows", {"totals": "!!", "weights": "??"})), "trial 0"),
    "trial rows a number": (database(_own_attribute(0, "rows", 5)), "trial 0"),
    "trial lost text": (database(_own_attribute(0, "lost", "x")), "trial 0"),
    "trial without parameters": (database("DELETE FROM trial_params WHERE trial_id IN (SELECT trial_id FROM trials WHERE number = 0)"), "trial 0"),
    "trial step unknown": (database("UPDATE trial_intermediate_values SET step = 7 WHERE step = 16"), "trial"),
    "trial variant unknown": (database("UPDATE trial_params SET param_value = 7 WHERE param_name = 'variant'"), "trial"),
}  # fmt: skip
"""By name what happened to study.db, and what is said of it."""
SPEC_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "spec.yaml empty": (_content("spec.yaml", ""), "spec.yaml"),
    "spec.yaml truncated": (_cut("spec.yaml"), "spec.yaml"),
    "spec.yaml cut inside a word": (_content("spec.yaml", "model: 'builtin"), "spec.yaml"),
    "spec.yaml binary": (_content("spec.yaml", bytes(range(256))), "spec.yaml"),
    "spec.yaml latin-1": (_content("spec.yaml", "model: gr\xfc\xdfe\n".encode("latin-1")), "spec.yaml"),
    "spec.yaml a list": (_content("spec.yaml", "- a\n"), "spec.yaml"),
    "spec.yaml a number": (_content("spec.yaml", "5\n"), "spec.yaml"),
    "spec.yaml null": (_content("spec.yaml", "null\n"), "spec.yaml"),
    "spec.yaml nulls": (
        lambda folder: _write(folder / "spec.yaml", yaml.safe_dump(dict.fromkeys(yaml.safe_load((folder / "spec.yaml").read_text())))),
        "spec.yaml"),
    "spec.yaml budget text": (lambda f: _respec(f, budget="many"), "spec.yaml"),
    "spec.yaml storage a list": (lambda f: _respec(f, storage=[1]), "spec.yaml"),
    "spec.yaml variants a number": (lambda f: _respec(f, variants=5), "spec.yaml"),
    "spec.yaml training a list": (lambda f: _respec(f, training=[1]), "spec.yaml"),
    "spec.yaml a folder": (_as_folder("spec.yaml"), "spec.yaml"),
    "spec.yaml lfs": (_content("spec.yaml", LFS), "spec.yaml"),
}  # fmt: skip
BEST_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "best.json empty": (_content("best.json", ""), "best.json"),
    "best.json truncated": (_cut("best.json"), "best.json"),
    "best.json binary": (_content("best.json", bytes(range(256))), "best.json"),
    "best.json a list": (_content("best.json", "[]"), "best.json"),
    "best.json a number": (_content("best.json", "5"), "best.json"),
    "best.json null": (_content("best.json", "null"), "best.json"),
    "best.json an empty object": (_content("best.json", "{}"), "best.json"),
    "best.json deep": (_content("best.json", "[" * 100_000), "best.json"),
    "best.json variants a list": (_edited("best.json", lambda b: b.update(variants=[])), "best.json"),
    "best.json a variant a number": (_edited("best.json", lambda b: b.update(variants={"lora": 5})), "best.json"),
    "best.json without a configuration": (_edited("best.json", lambda b: b["variants"]["lora"].pop("config")), "best.json"),
    "best.json configuration a list": (_edited("best.json", lambda b: b["variants"]["lora"].update(config=[])), "best.json"),
    "best.json rate text": (_edited("best.json", lambda b: b["variants"]["lora"]["config"].update(learning_rate="fast")), "best.json"),
    "best.json rate null": (_edited("best.json", lambda b: b["variants"]["lora"]["config"].update(learning_rate=None)), "best.json"),
    "best.json value text": (_edited("best.json", lambda b: b["variants"]["lora"].update(value="low")), "best.json"),
    "best.json seeds a number": (_edited("best.json", lambda b: b["variants"]["lora"].update(seeds=5)), "best.json"),
    "best.json without spending": (_edited("best.json", lambda b: b.pop("spent")), "best.json"),
    "best.json spending text": (_edited("best.json", lambda b: b.update(spent={"lora": "much"})), "best.json"),
    "best.json verdict a list": (_edited("best.json", lambda b: b.update(verdict=[5])), "best.json"),
    "best.json verdict of other keys": (_edited("best.json", lambda b: b.update(verdict={"a": 1})), "best.json"),
    "best.json training a list": (_edited("best.json", lambda b: b.update(training=[1])), "best.json"),
    "best.json metric a list": (_edited("best.json", lambda b: b.update(metric=[1])), "best.json"),
    "best.json a folder": (_as_folder("best.json"), "best.json"),
    "best.json gone": (_gone("best.json"), "best.json"),
}  # fmt: skip


def _respec(folder: Path, **keys: object) -> None:
    recorded = yaml.safe_load((folder / "spec.yaml").read_text())
    _write(folder / "spec.yaml", yaml.safe_dump({**recorded, **keys}))


def all_cases() -> dict[str, BadInput]:
    """CASES and, of each kind of damage, the commands that meet it."""
    return CASES


DAMAGES = {**STUDY_DAMAGES, **SPEC_DAMAGES, **BEST_DAMAGES}
CASES |= {
    f"{name}, {command}": BadInput(damaged(damage, make), says, may_pass=True)
    for name, (damage, says) in DAMAGES.items()
    for command, make in {**READERS, **AGAIN}.items()
}
