"""From a data specification to tokenized splits.

Which rows go where depends on the content and ``seed`` alone:

- ``eval`` given, or a validation split of the data set's own: its first ``eval_size`` rows that survive, in file order.
  Otherwise that many training rows, drawn at random.
- ``test`` likewise, from what ``eval`` left: a test split never changes the evaluation rows.
- ``train``: the rest. No text is in two splits; repeated rows within the training rows stay.
- With ``examples`` given, at most ``max(4 * examples, 20,000)`` training rows, drawn at random: a full run and its
  repetitions with other seeds see fresh rows, and a huge data set is not tokenized for nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autolora.tasks.causal_lm import cache
from autolora.tasks.causal_lm.chat.turns import RENDERING
from autolora.tasks.causal_lm.examples import Chat, Example, content_key
from autolora.tasks.causal_lm.formats.format import AUTO, layout_of, registry
from autolora.tasks.causal_lm.length import Length, MaxLength, percentile_of, resolved
from autolora.tasks.causal_lm.limits import Limits
from autolora.tasks.causal_lm.report import DataReport, SplitReport, told
from autolora.tasks.causal_lm.spec import EVAL_MOST, DataSpec, default_eval_rows
from autolora.tasks.causal_lm.split import EvaluationRow, PreparedData, Split
from autolora.tasks.causal_lm.tokenize import TOO_LONG, Encoded, Encoder
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.sources import Source, open_source, open_sources
from autolora.tasks.data.table import Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# purposes of random draws
HOLD_OUT, LIMIT, LENGTH = 1, 2, 3
CHUNK = 2048  # rows in one call of the tokenizer
EARLIER_RENDERING = (
    "conversations: kept as an earlier version of autolora rendered them, since this study began with them; a new "
    "directory treats tools, turns that are not to be learned and earlier turns as this version does"
)
LIMIT_FACTOR, LIMIT_LEAST = 4, 20_000
LENGTH_SAMPLE = 10_000
"""Training rows that are looked at for ``max_length: auto``, drawn at random if there are more."""


def prepare(
    spec: DataSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: MaxLength,
    examples: int | None,
    seed: int,
    cache_dir: Path | None,
    whole_rows: bool = False,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> PreparedData:
    """Read, tokenize and split the data, or find it in the cache.

    Args:
        spec: where the rows come from and how they become text.
        tokenizer: a ``transformers`` tokenizer; a row begins with BOS where :attr:`Encoder.start` says so, and a
            completion or text ends with EOS.
        max_length: tokens in a row at most; completions are cut, rows whose prompt fills it are dropped. "auto" or
            None: the 99th percentile of the training rows' lengths, as rendered and before any is cut.
        examples: training examples of a full run; may exceed the rows, for several epochs.
        seed: which rows are held out derives from it, and from nothing else.
        cache_dir: where the tokens are kept between runs; None: nowhere.
        whole_rows: whether the held-out rows carry all columns of their table, for a metric that asks for them.
        limits: of the model; ``max_length`` is lowered to a hard one.

    Raises:
        DataError: naming file, row, column and value, and what to do; or a token that the model has no embedding of.
    """
    sources = open_sources(spec)
    length = resolved(
        max_length, limits, lambda: _percentile(sources["train"], spec, tokenizer, seed=seed, cache_dir=cache_dir)
    )
    limit = max(LIMIT_FACTOR * examples, LIMIT_LEAST) if examples is not None else None
    options = spec.model_dump(exclude={"train", "eval", "test"})
    options |= {"max_length": length.tokens, "seed": seed, "limit": limit}
    identities = {role: source.identity for role, source in sources.items()}
    # what this version renders in another way has a fingerprint of its own: nothing of another version mixes with it
    earlier = cache.fingerprint_of(identities, tokenizer, options)
    rendered = cache.fingerprint_of(identities, tokenizer, options | {"rendering": RENDERING})

    data = None
    if cache_dir is not None:
        data = _kept(cache.load(cache_dir, earlier)) or cache.load(cache_dir, rendered)
    if data is None:
        fingerprint = rendered if any(_is_renewed(source, spec) for source in sources.values()) else earlier
        encoder = Encoder(tokenizer, length.tokens)
        data = _build(sources, spec, encoder, length, limit=limit, seed=seed, fingerprint=fingerprint)
        if cache_dir is not None:
            cache.save(cache_dir, data)
    _check_enough_to_train(data.report, examples, length)
    _check_vocabulary(data, sources, tokenizer, limits)
    data = replace(data, report=_explained(data, spec, sources, length, limits))
    return _with_columns(data, sources) if whole_rows else data


def _is_renewed(source: Source, spec: DataSpec) -> bool:
    """Whether an earlier version made other text of the rows of a source."""
    layout = Reader(source, spec).layout
    return layout.renewed or registry()[layout.format].makes is Chat


def _kept(data: PreparedData | None) -> PreparedData | None:
    """Cached data; of conversations that an earlier version rendered it says so."""
    if data is None or not any(registry()[split.format].makes is Chat for split in data.report.splits.values()):
        return data
    return replace(data, report=replace(data.report, notes=(*data.report.notes, EARLIER_RENDERING)))


def _percentile(
    source: Source, spec: DataSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, cache_dir: Path | None
) -> int:
    """:func:`percentile_of` the training rows' lengths, found in the cache or tokenized for."""
    options = spec.model_dump(exclude={"train", "eval", "test", "eval_size", "test_size"}) | {"seed": seed}
    options |= {"rendering": RENDERING}
    fingerprint = cache.fingerprint_of({"train": source.identity}, tokenizer, options)
    known = cache.load_percentile(cache_dir, fingerprint) if cache_dir is not None else None
    if known is not None:
        return known
    reader, encoder = Reader(source, spec), Encoder(tokenizer, sys.maxsize)
    indices = np.arange(len(reader))
    if len(reader) > LENGTH_SAMPLE:
        drawn = np.random.default_rng([seed, LENGTH]).choice(len(reader), size=LENGTH_SAMPLE, replace=False)
        indices = np.sort(drawn)
    found = percentile_of([len(row.ids) for row in _take(reader, indices.tolist(), None, encoder).encoded])
    if cache_dir is not None:
        cache.save_percentile(cache_dir, fingerprint, found)
    return found


def _explained(
    data: PreparedData, spec: DataSpec, sources: Mapping[str, Source], length: Length, limits: Limits
) -> DataReport:
    """The report with what this call adds to it; the same rows may have been prepared for another specification."""
    report = data.report
    notes = [*report.notes, *length.notes]
    if spec.eval == AUTO and "eval" in sources:
        notes.append(
            "eval: the data set's own validation split; data.eval: null holds rows of the training split out instead"
        )
    longest = max(int(split.lengths.max()) for split in data.splits.values())
    warnings = [length.warning] if length.warning and longest > (limits.positions or 0) else []
    return replace(report, notes=tuple(notes), warnings=(*warnings, *report.losses(length.remedy)))


def _check_vocabulary(
    data: PreparedData, sources: Mapping[str, Source], tokenizer: PreTrainedTokenizerBase, limits: Limits
) -> None:
    """Raise :class:`DataError` if a row needs a token of which the model has no embedding."""
    if limits.vocabulary is None:
        return
    for role, split in data.splits.items():
        missing = np.flatnonzero(split.tokens >= limits.vocabulary)
        if not len(missing):
            continue
        token = int(split.tokens[missing[0]])
        row = int(np.searchsorted(split.offsets, missing[0], side="right")) - 1
        place = sources.get(role, sources["train"]).table.place(int(split.indices[row]))
        raise DataError(
            f"{place} needs the token {tokenizer.convert_ids_to_tokens(token)!r}, id {token}, but the model has "
            f"embeddings for the ids 0 to {limits.vocabulary - 1} ({len(missing):,} such tokens in the {role} split; "
            f"the tokenizer has {len(tokenizer)}). Use the tokenizer that the model was trained with, or add the rows "
            f"to the model with model.resize_token_embeddings({len(tokenizer)}), and save both in one folder"
        )


def _with_columns(data: PreparedData, sources: dict[str, Source]) -> PreparedData:
    """The same data, whose held-out rows carry the columns of their table."""

    def whole(role: str, split: Split) -> Split:
        table = sources.get(role, sources["train"]).table
        columns = table.fetch(split.indices.tolist(), table.columns)
        rows = [EvaluationRow(text, row) for text, row in zip(split.rows, columns, strict=True)]
        return replace(split, rows=rows)

    test = None if data.test is None else whole("test", data.test)
    return replace(data, eval=whole("eval", data.eval), test=test)


class Reader:
    """The rows of a source as examples."""

    def __init__(self, source: Source, spec: DataSpec) -> None:
        self.table: Table = source.table
        if len(self.table) == 0:
            raise DataError(f"{source.name} holds no rows")
        self.layout = layout_of(self.table, spec)

    @classmethod
    def of(cls, role: str, spec: DataSpec) -> Reader:
        """The rows of "train", "eval" or "test"; raises ``DataError`` if they cannot be read."""
        source = open_source(role, spec)
        if source is None:
            raise DataError(f"data.{role} names no rows")
        return cls(source, spec)

    def __len__(self) -> int:
        return len(self.table)

    def examples(self, indices: Sequence[int]) -> tuple[list[Example], list[str]]:
        """The examples of these rows, and the file and row of each."""
        places = [self.table.place(i) for i in indices]
        rows = self.table.fetch(indices, self.layout.columns)
        return [self.layout.example(row, place) for row, place in zip(rows, places, strict=True)], places

    @cached_property
    def keys(self) -> list[bytes]:
        """A hash of the content of every row; reads, and thereby checks, them all."""
        keys: list[bytes] = []
        for begin in range(0, len(self), CHUNK):
            keys += map(content_key, self.examples(range(begin, min(begin + CHUNK, len(self))))[0])
        return keys


@dataclass(frozen=True, eq=False)
class _Taken:
    """Rows that survived tokenization: their indices in the table, and what became of others on the way.

    Attributes:
        dropped: how many were too long.
        unlearnable: by reason, how many have nothing to learn, and where the first is.
    """

    indices: list[int]
    encoded: list[Encoded]
    dropped: int
    unlearnable: dict[str, tuple[int, str]]

    @property
    def unusable(self) -> int:
        """How many rows did not survive."""
        return self.dropped + sum(count for count, _ in self.unlearnable.values())

    def told(self, length: Length) -> list[str]:
        """Why rows did not survive, in plain words."""
        dropped = [f"{self.dropped} have a prompt that fills max_length={length.tokens} tokens"] if self.dropped else []
        return dropped + told(self.unlearnable)


def _take(reader: Reader, indices: Sequence[int], wanted: int | None, encoder: Encoder) -> _Taken:
    """The first ``wanted`` rows of ``indices`` that survive, in file order; None: all."""
    kept: dict[int, Encoded] = {}
    dropped = 0
    unlearnable: dict[str, tuple[int, str]] = {}
    position = 0
    while position < len(indices) and (wanted is None or len(kept) < wanted):
        size = CHUNK if wanted is None else min(CHUNK, max(wanted - len(kept), CHUNK // 32))
        chunk = indices[position : position + size]
        position += size
        examples, places = reader.examples(chunk)
        for index, place, row in zip(chunk, places, encoder.encode(examples, places), strict=True):
            if isinstance(row, Encoded):
                kept[index] = row
            elif row is TOO_LONG:
                dropped += 1
            else:
                count, first = unlearnable.get(row.reason, (0, place))
                unlearnable[row.reason] = (count + 1, first)
            if len(kept) == wanted:
                break
    order = sorted(kept)
    return _Taken(order, [kept[index] for index in order], dropped, unlearnable)


def _build(
    sources: dict[str, Source],
    spec: DataSpec,
    encoder: Encoder,
    length: Length,
    *,
    limit: int | None,
    seed: int,
    fingerprint: str,
) -> PreparedData:
    train = Reader(sources["train"], spec)
    splits: dict[str, Split] = {}
    reports: dict[str, SplitReport] = {}
    held_keys: set[bytes] = set()
    held_rows: set[int] = set()
    own = "eval" if spec.eval == AUTO else None
    for role, size in (("eval", spec.eval_size), ("test", spec.test_size)):
        if role in sources:
            reader = Reader(sources[role], spec)
            fresh = [i for i in range(len(reader)) if reader.keys[i] not in held_keys]
            # as many as are held out by default: a data set's own split may be very long
            taken = _take(reader, fresh, size or (min(EVAL_MOST, len(fresh)) if own == role else None), encoder)
            read, duplicates = len(reader), len(reader) - len(fresh)
        elif role == "eval" or (size and spec.test is None):
            reader = train
            candidates = [i for i in _shuffled_distinct(train, seed) if train.keys[i] not in held_keys]
            wanted = size or default_eval_rows(len(candidates))
            taken = _take(train, candidates, wanted, encoder)
            read, duplicates = len(taken.indices) + taken.unusable, 0
            held_rows.update(taken.indices)
        else:
            continue
        _check_enough_held_out(role, size, reader, taken, duplicates, length)
        splits[role] = _split(taken, [EvaluationRow(encoder.texts(row)) for row in taken.encoded])
        reports[role] = _report(reader, splits[role], taken, read=read, duplicates=duplicates)
        held_keys.update(reader.keys[i] for i in taken.indices)

    fresh = [i for i in range(len(train)) if i not in held_rows and train.keys[i] not in held_keys]
    duplicates = len(train) - len(held_rows) - len(fresh)
    if limit is not None and len(fresh) > limit:
        drawn = np.random.default_rng([seed, LIMIT]).choice(len(fresh), size=limit, replace=False)
        taken = _take(train, [fresh[i] for i in np.sort(drawn)], None, encoder)
    else:
        taken = _take(train, fresh, None, encoder)
    if not taken.indices:
        raise DataError(
            f"no training rows remain: of {len(train)} rows of {train.table.name}, "
            + "; ".join(
                [
                    f"{len(held_rows)} are held out for evaluation or test",
                    f"{duplicates} are also in another split",
                    *_repeats(train),
                    *taken.told(length),
                ]
            )
            + f". {_remedy(taken, length)}"
        )
    splits["train"] = _split(taken, [])
    reports["train"] = _report(
        train, splits["train"], taken, read=len(train), duplicates=duplicates, held_out=len(held_rows)
    )
    in_order: dict[str, SplitReport] = {name: reports[name] for name in ("train", "eval", "test") if name in reports}
    notes = (
        *(f"train: {repeats} and trained all the same" for repeats in _repeats(train)),
        *encoder.notes({split.format for split in reports.values()}),
    )
    report = DataReport(in_order, length.tokens, notes)
    return PreparedData(splits["train"], splits["eval"], splits.get("test"), report, fingerprint)


def _shuffled_distinct(reader: Reader, seed: int) -> list[int]:
    """One row of each content, in random order."""
    first: dict[bytes, int] = {}
    for index, key in enumerate(reader.keys):
        first.setdefault(key, index)
    distinct = np.array(list(first.values()), dtype=np.int64)
    return [int(index) for index in np.random.default_rng([seed, HOLD_OUT]).permutation(distinct)]


def _split(taken: _Taken, rows: list[EvaluationRow]) -> Split:
    offsets = np.zeros(len(taken.encoded) + 1, dtype=np.int64)
    np.cumsum([len(row.ids) for row in taken.encoded], out=offsets[1:])
    tokens = np.concatenate([row.ids for row in taken.encoded])
    targets = np.concatenate([row.targets for row in taken.encoded])
    return Split(tokens, offsets, targets, np.array(taken.indices, dtype=np.int64), rows)


def _report(
    reader: Reader, split: Split, taken: _Taken, *, read: int, duplicates: int, held_out: int = 0
) -> SplitReport:
    return SplitReport(
        source=reader.table.name,
        format=reader.layout.format,
        columns=reader.layout.found,
        unread=reader.layout.unread(reader.table),
        read=read,
        rows=len(split),
        dropped=taken.dropped,
        cut=sum(row.cut for row in taken.encoded),
        lost=sum(row.lost for row in taken.encoded),
        duplicates=duplicates,
        held_out=held_out,
        unused=read - len(split) - taken.unusable - duplicates - held_out,
        tokens=len(split.tokens),
        targets=int(split.targets.sum()),
        unlearnable=taken.unlearnable,
        left_out=dict(sum((row.left_out for row in taken.encoded), Counter())),
    )


def _check_enough_held_out(
    role: str, wanted: int | None, reader: Reader, taken: _Taken, duplicates: int, length: Length
) -> None:
    if len(taken.indices) >= (wanted or 1):
        return
    asked = f"data.{role}_size asks for {wanted} rows" if wanted else f"the {role} split needs a row"
    raise DataError(
        f"{asked}, but only {len(taken.indices)} of the {len(reader)} rows of "
        f"{reader.table.name} can be used ("
        + "; ".join([*taken.told(length), *_repeats(reader), f"{duplicates} are also in the evaluation split"])
        + f"). {_remedy(taken, length)}"
    )


def _repeats(reader: Reader) -> list[str]:
    """How many rows repeat an earlier one; empty if none does."""
    repeats = len(reader) - len(set(reader.keys))
    return [f"{repeats} of the {len(reader)} rows are identical to an earlier one"] if repeats else []


def _remedy(taken: _Taken, length: Length) -> str:
    remedies = ["Give more rows", "ask for fewer", *[length.remedy] * bool(taken.dropped)]
    return ", ".join(remedies[:-1]) + f" or {remedies[-1]}"


def _check_enough_to_train(report: DataReport, examples: int | None, length: Length) -> None:
    """More examples than there ever were rows mean several epochs; fewer rows than examples by dropping do not."""
    train = report.splits["train"]
    unlearnable = sum(count for count, _ in train.unlearnable.values())
    if examples is not None and train.rows < examples <= train.rows + train.dropped + unlearnable:
        dropped = f"{train.dropped} have a prompt that fills max_length={report.max_length} tokens"
        reasons = "; ".join([*[dropped] * bool(train.dropped), *told(train.unlearnable)])
        raise DataError(
            f"training.examples asks for {examples} rows, but only {train.rows} of {train.source} remain, because "
            f"{reasons}; {length.remedy}, or lower training.examples"
        )
