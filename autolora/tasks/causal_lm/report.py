"""What became of the rows, in numbers and in plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHOWN = 5
"""Reasons that are told; there may be as many as rows, since a chat template can quote what it refuses."""


def told(unlearnable: Mapping[str, tuple[int, str]]) -> list[str]:
    """Why rows have nothing to learn, in plain words, the most frequent first."""
    by_count = sorted(unlearnable.items(), key=lambda item: -item[1][0])
    lines = [f"{count:,} not used ({first}: {reason})" for reason, (count, first) in by_count[:SHOWN]]
    others = sum(count for _, (count, _) in by_count[SHOWN:])
    return [*lines, f"{others:,} not used, for {len(by_count) - SHOWN:,} other reasons"] if others else lines


LOST_SHARE, DROPPED_SHARE = 0.05, 0.1
"""Shares of the target tokens and of the rows whose loss to ``max_length`` is warned of."""


@dataclass(frozen=True)
class SplitReport:
    """Rows of one split: ``read = rows + dropped + duplicates + held_out + unused`` and those of ``unlearnable``.

    Args:
        source: file, hub id or data set.
        format: the format found or named.
        columns: the columns it was read from.
        read: rows in the source; for a split taken from the training rows, those looked at.
        rows: rows in the split.
        dropped: rows whose prompt leaves no room for a target.
        cut: rows of the split whose right end was cut off.
        duplicates: rows left out because another split holds the same text.
        held_out: training rows that went into the evaluation or test split.
        unused: rows that were not needed.
        tokens, targets: tokens in the split, and those on which the loss is taken.
        unlearnable: by reason, how many rows have nothing to learn, and file and row of the first.
        unread: the columns that were not read; "" if none.
        left_out: by what they are, how many pieces of the rows are not in the tokens, or not learned.
        lost: tokens that the loss would be taken on, had they not been cut off; not counted by earlier versions.
    """

    source: str
    format: str
    columns: str
    read: int
    rows: int
    dropped: int
    cut: int
    duplicates: int
    held_out: int
    unused: int
    tokens: int
    targets: int
    unread: str = ""
    unlearnable: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0


@dataclass(frozen=True)
class DataReport:
    """What was made of the data.

    Args:
        splits: by name, "train", "eval" and where there is one "test".
        max_length: the limit of a row in tokens.
        notes: how a row begins and ends, and what was chosen without being asked for.
        warnings: what may spoil a study, each a line of its own.
    """

    splits: dict[str, SplitReport]
    max_length: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def losses(self, remedy: str) -> list[str]:
        """Warnings of the splits that lose more than a few target tokens or rows to ``max_length``.

        Args:
            remedy: what to do about it.
        """
        found = []
        for name, split in self.splits.items():
            parts = []
            if split.lost > LOST_SHARE * (split.targets + split.lost):
                share = split.lost / (split.targets + split.lost)
                parts.append(f"{split.lost:,} tokens to be learned ({share:.0%}) are cut off")
            if split.dropped > DROPPED_SHARE * (split.rows + split.dropped):
                share = split.dropped / (split.rows + split.dropped)
                parts.append(f"{split.dropped:,} rows ({share:.0%}) are dropped")
            if parts:
                found.append(f"{name}: {' and '.join(parts)} at max_length {self.max_length}; {remedy}")
        return found

    def lines(self) -> list[str]:
        """One line a split, then the notes; counts of zero are left out."""
        return [self._line(name, split) for name, split in self.splits.items()] + list(self.notes)

    def _line(self, name: str, split: SplitReport) -> str:
        counts = [
            (split.held_out, "held out for evaluation or test"),
            (split.duplicates, "left out, also in another split"),
            (split.dropped, f"dropped, the prompt fills {self.max_length} tokens"),
            (split.cut, f"cut on the right to {self.max_length} tokens"),
            (split.unused, "not needed"),
        ]
        parts = [f"{count:,} {what}" for count, what in counts if count] + told(split.unlearnable)
        parts += [f"{what}: {count:,}" for what, count in split.left_out.items()]
        parts += [f"columns not read: {split.unread}"] if split.unread else []
        size = f"{split.tokens:,} tokens, {split.targets / split.tokens:.0%} of them learned"
        return (
            f"{name}: {split.rows:,} of {split.read:,} rows of {split.source} "
            f"({split.format}: {split.columns}; {size})" + "".join(f"; {part}" for part in parts)
        )
