"""Tokenized data on disk, found again by a fingerprint of everything that determines it."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autolora import files
from autolora.tasks.causal_lm.report import DataReport, SplitReport
from autolora.tasks.causal_lm.split import EvaluationRow, PreparedData, Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

ARRAYS = ("tokens", "offsets", "targets", "indices")
VERSION = 1  # raise it when the same rows give other tokens, or the file looks different


def fingerprint_of(
    sources: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, options: Mapping[str, object]
) -> str:
    """Hex digest.

    Args:
        sources: identity of each source, by role.
        tokenizer: its vocabulary, rules, special tokens and chat template count, not its name.
        options: JSON-able values.
    """
    content = {
        "version": VERSION,
        "sources": dict(sources),
        "tokenizer": _tokenizer_state(tokenizer),
        "options": dict(options),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    if getattr(tokenizer, "is_fast", False):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        # set by the latest call of the tokenizer, whoever made it
        rules.pop("truncation", None)
        rules.pop("padding", None)
    else:
        rules = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    special = [tokenizer.bos_token, tokenizer.eos_token, getattr(tokenizer, "chat_template", None)]
    adds_bos = getattr(tokenizer, "init_kwargs", {}).get("add_bos_token")
    return [json.dumps(part, sort_keys=True, default=str) for part in (rules, special, adds_bos)]


def load(folder: Path, fingerprint: str) -> PreparedData | None:
    """What :func:`save` wrote under this fingerprint; None where there is nothing, or nothing sound."""
    path = _path(folder, fingerprint)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if "train_indices" not in stored:  # of an earlier version, which did not keep them
                return None
            meta = json.loads(stored["meta"].tobytes())
            if meta.get("fingerprint", fingerprint) != fingerprint:  # earlier versions recorded none
                raise ValueError("it holds other data than its name says")
            splits = {
                name: Split(
                    **{array: stored[f"{name}_{array}"] for array in ARRAYS}, rows=list(map(EvaluationRow, rows))
                )
                for name, rows in meta["rows"].items()
            }
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("ignoring the damaged cache file %s (%s); tokenizing again", path, error)
        return None
    reports = {name: SplitReport(**values) for name, values in meta["report"]["splits"].items()}
    report = DataReport(reports, meta["report"]["max_length"], tuple(meta["report"]["notes"]))
    return PreparedData(splits["train"], splits["eval"], splits.get("test"), report, fingerprint)


def save(folder: Path, data: PreparedData) -> None:
    """Write ``data``, so that no reader meets half a file."""
    meta = {
        "rows": {name: split.rows for name, split in data.splits.items()},
        "report": asdict(data.report),
        "fingerprint": data.fingerprint,
    }
    arrays = {f"{name}_{array}": getattr(split, array) for name, split in data.splits.items() for array in ARRAYS}
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(_path(folder, data.fingerprint)) as file:
        np.savez(file, meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8), **arrays)


def load_percentile(folder: Path, fingerprint: str) -> int | None:
    """The length that :func:`save_percentile` wrote under this fingerprint; None if it is not there, or damaged."""
    path = _percentile_path(folder, fingerprint)
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def save_percentile(folder: Path, fingerprint: str, length: int) -> None:
    """Write the percentile of the rows' lengths, in tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write(_percentile_path(folder, fingerprint), str(length))


def _percentile_path(folder: Path, fingerprint: str) -> Path:
    return folder / f"length-{fingerprint[:20]}.txt"


def _path(folder: Path, fingerprint: str) -> Path:
    return folder / f"data-{fingerprint[:20]}.npz"
