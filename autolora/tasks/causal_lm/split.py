"""Tokenized rows in flat arrays, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from autolora.losses import IGNORED
from autolora.tasks.causal_lm.report import DataReport
from autolora.tasks.data.table import Row

if TYPE_CHECKING:
    import torch


class EvaluationRow(dict[str, Any]):
    """A row as metrics see it.

    "prompt" is the text as it was tokenized, up to what is learned last; "completion" is that, without EOS. A metric of
    the user's own also finds the row's columns under their names.

    Args:
        text: "prompt" and "completion".
        columns: the row of the table, untouched. Where it has a column "prompt" or "completion", the attribute
            ``columns`` alone tells its value.
    """

    def __init__(self, text: Mapping[str, str], columns: Row | None = None) -> None:
        self.columns = dict(columns or {})
        super().__init__({**self.columns, **text})


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one split, one after the other.

    Args:
        tokens: (total,) int32, all rows concatenated.
        offsets: (rows + 1,) int64; row i is ``tokens[offsets[i]:offsets[i + 1]]``.
        targets: (total,) bool, True where the loss is taken. The first token of a row never is, so that
            ``targets.sum()`` is the number of terms in the loss.
        indices: (rows,) int64, the place of each row in the table that it came from, 0-based.
        rows: for evaluation, what metrics see of each row; empty for the training rows.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    indices: np.ndarray
    rows: list[EvaluationRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """(rows,) int64, tokens in each row."""
        lengths: np.ndarray = np.diff(self.offsets)
        return lengths

    @cached_property
    def target_counts(self) -> np.ndarray:
        """(rows,) int64, terms that each row adds to the loss."""
        before = np.concatenate([[0], np.cumsum(self.targets, dtype=np.int64)])
        counts: np.ndarray = before[self.offsets[1:]] - before[self.offsets[:-1]]
        return counts

    def prompt_tokens(self, index: int) -> np.ndarray:
        """(length,) int32: what stands before the last learned stretch of a row, BOS included; to generate from."""
        tokens, targets = self._row(index)
        return tokens[: last_run(targets)[0]]

    def answer_tokens(self, index: int) -> np.ndarray:
        """(length,) int32: the last learned stretch of a row, its end marker included; what follows the prompt."""
        tokens, targets = self._row(index)
        return tokens[slice(*last_run(targets))]

    def of(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The split of these rows alone, in the order given."""
        chosen = [slice(self.offsets[index], self.offsets[index + 1]) for index in indices]
        return Split(
            tokens=np.concatenate([self.tokens[each] for each in chosen]),
            offsets=np.concatenate([[0], np.cumsum(self.lengths[indices])]),
            targets=np.concatenate([self.targets[each] for each in chosen]),
            indices=self.indices[indices],
            rows=[self.rows[index] for index in indices] if self.rows else [],
        )

    def batch(self, indices: Sequence[int] | np.ndarray, pad_token_id: int) -> dict[str, torch.Tensor]:
        """These rows, padded on the right to the longest.

        Returns:
            "input_ids", "attention_mask" and "labels", each (len(indices), longest) int64; labels equal the ids where
            the loss is taken and are -100 elsewhere. They are not shifted: the model does that.
        """
        import torch

        shape = (len(indices), int(self.lengths[indices].max()))
        input_ids = np.full(shape, pad_token_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        for position, index in enumerate(indices):
            tokens, targets = self._row(int(index))
            input_ids[position, : len(tokens)] = tokens
            attention_mask[position, : len(tokens)] = 1
            labels[position, : len(tokens)][targets] = tokens[targets]
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "labels": torch.from_numpy(labels),
        }

    def joined(self, indices: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """These rows one behind the other, without padding, for a model that tells them apart by their positions.

        Returns:
            "input_ids", "position_ids", which begin at 0 with each row, and "labels" as in :meth:`batch`, each
            (1, tokens of all rows) int64.
        """
        import torch

        rows = [self._row(int(index)) for index in indices]
        tokens = np.concatenate([tokens for tokens, _ in rows]).astype(np.int64)
        targets = np.concatenate([targets for _, targets in rows])
        positions = np.concatenate([np.arange(len(tokens)) for tokens, _ in rows])
        labels = np.where(targets, tokens, IGNORED)
        columns = {"input_ids": tokens, "position_ids": positions, "labels": labels}
        return {name: torch.from_numpy(column)[None] for name, column in columns.items()}

    def _row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[span], self.targets[span]


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Tokenized splits; ``test`` is None where neither a test source nor ``test_size`` was given.

    Args:
        train, eval, test: the splits.
        report: what became of the rows.
        fingerprint: hex digest of everything that determines the tokens: content of the sources, tokenizer, options.
    """

    train: Split
    eval: Split
    test: Split | None
    report: DataReport
    fingerprint: str

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        named = {"train": self.train, "eval": self.eval, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


def last_run(mask: np.ndarray) -> tuple[int, int]:
    """[begin, end) of the last unbroken stretch of True in (length,) bool; (length, length) where there is none."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return (int(edges[-2]), int(edges[-1])) if len(edges) else (len(mask), len(mask))
