"""The rows that a trainer of TRL's is given: those of its own file, or of the specification."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autolora.errors import first_line
from autolora.spec import Spec
from autolora.tasks.causal_lm.spec import default_eval_rows
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.sources import open_sources
from autolora.trainers.builtin.batches import CALIBRATION_BATCH, CALIBRATION_EXAMPLES
from autolora.trainers.randomness import EVALUATION, ORDER, generator
from autolora.trainers.trl.configuration import Configuration, TrlError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from autolora.adapters.start import Batch
    from autolora.tasks.causal_lm.limits import Limits
    from autolora.tasks.causal_lm.split import Split
    from autolora.tasks.data.table import Table


@dataclass(frozen=True)
class Rows:
    """What a trainer of TRL's is given.

    Attributes:
        train, eval: rows.
        test: rows that are scored once, at the end; None if there are none.
        lines: what became of the rows, for people.
        split: the training rows as tokens; None if TRL tokenizes them itself.
    """

    train: Dataset
    eval: Dataset
    test: Dataset | None = None
    lines: tuple[str, ...] = ()
    split: Split | None = None

    def calibration(self, pad_token_id: int, seed: int, device: torch.device) -> list[Batch] | None:
        """A fixed sample of the training rows in batches, for variants that start from data; None if they are no tokens
        yet.
        """
        if self.split is None:
            return None
        order = generator(seed, 0, ORDER, 0).permutation(len(self.split))[:CALIBRATION_EXAMPLES]
        parts = [order[at : at + CALIBRATION_BATCH] for at in range(0, len(order), CALIBRATION_BATCH)]
        batches = [self.split.batch(part, pad_token_id) for part in parts]
        return [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]

    def on_disk(self, folder: Path) -> Rows:
        """The same rows from files, of this folder unless they have some: ``datasets`` keeps what is made of such."""
        from datasets import load_from_disk

        def kept(role: str, rows: Dataset) -> Dataset:
            if rows.cache_files:
                return rows
            rows.save_to_disk(folder / role)
            return load_from_disk(folder / role)

        test = None if self.test is None else kept("test", self.test)
        return replace(self, train=kept("train", self.train), eval=kept("eval", self.eval), test=test)

    def first(self, most: int) -> Rows:
        """The first rows of each kind."""
        parts = [part and part.select(range(min(most, len(part)))) for part in (self.train, self.eval, self.test)]
        return replace(self, train=parts[0], eval=parts[1], test=parts[2])


def tokenized(spec: Spec, tokenizer: PreTrainedTokenizerBase, limits: Limits, longest: int | None, cache: Path) -> Rows:
    """The specification's rows as the builtin trainer sees them: its tokens, splits and learned stretches.

    Args:
        spec: of the study.
        tokenizer: of the model.
        limits: of the model.
        longest: most tokens of a row, as TRL's file says; None: as the specification's own "auto".
        cache: folder for the tokens.

    Returns:
        Rows with the columns "input_ids" and "labels".

    Raises:
        DataError: see :func:`autolora.tasks.causal_lm.preparation.prepare`.
    """
    from autolora.tasks.causal_lm.preparation import prepare

    assert spec.data is not None
    data = prepare(
        spec.data,
        tokenizer,
        max_length="auto" if longest is None else longest,
        examples=spec.full_run(),
        seed=spec.seed,
        cache_dir=cache,
        limits=limits,
    )
    return Rows(
        train=_dataset(data.train),
        eval=_dataset(data.eval),
        test=None if data.test is None else _dataset(data.test),
        lines=(*data.report.lines(), *data.report.warnings),
        split=data.train,
    )


def _dataset(split: Split) -> Dataset:
    from datasets import Dataset

    found = []
    for begin, end in pairwise(split.offsets):
        ids, learned = split.tokens[begin:end], split.targets[begin:end]
        found.append({"input_ids": ids.tolist(), "labels": np.where(learned, ids, -100).tolist()})
    return Dataset.from_list(found)


def untouched(spec: Spec) -> Rows:
    """The specification's rows with all of their columns, for trainers that read columns of their own.

    Evaluation rows are those of ``data.eval``, or rows of ``data.train`` that are held out.

    Raises:
        DataError: rows cannot be read, or too few are left.
    """
    assert spec.data is not None
    sources = open_sources(spec.data)
    rows = {role: _all(source.table) for role, source in sources.items()}
    for role, size in (("eval", spec.data.eval_size), ("test", spec.data.test_size)):
        if role in rows:
            rows[role] = rows[role].select(range(min(size or len(rows[role]), len(rows[role]))))
        elif role == "eval" or size:
            rows["train"], rows[role] = held_out(rows["train"], size, spec.seed)
    return Rows(rows["train"], rows["eval"], rows.get("test"))


def _all(table: Table) -> Dataset:
    from datasets import Dataset

    if len(table) == 0:
        raise DataError(f"{table.name} holds no rows")
    return Dataset.from_list([dict(row) for row in table.fetch(range(len(table)), table.columns)])


def held_out(rows: Dataset, size: int | None, seed: int) -> tuple[Dataset, Dataset]:
    """Training rows, and rows that are held out of them for evaluation.

    Args:
        rows: all of them.
        size: how many are held out; None: a tenth, at most 512.
        seed: of the study.

    Raises:
        DataError: none would be left for training.
    """
    wanted = size or default_eval_rows(len(rows))
    if wanted >= len(rows):
        raise DataError(f"{wanted} of {len(rows)} training rows would be held out for evaluation: lower data.eval_size")
    order = generator(seed, 0, EVALUATION).permutation(len(rows))
    return rows.select(np.sort(order[wanted:])), rows.select(np.sort(order[:wanted]))


def of_file(configuration: Configuration, seed: int) -> Rows:
    """The rows that TRL's own file names.

    Raises:
        TrlError: it names none, or a split that is not there.
    """
    from datasets import IterableDataset, load_dataset
    from datasets.exceptions import DatasetsError
    from trl import get_dataset

    parsed = configuration.as_written
    script, mixture = parsed.script, parsed.data
    if not mixture.datasets and not script.dataset_name:
        raise TrlError(f"data: {configuration.where} names no dataset_name and no datasets: add one, or set data")
    try:
        if mixture.datasets:
            found = get_dataset(mixture)
        else:
            found = load_dataset(script.dataset_name, name=script.dataset_config, streaming=script.dataset_streaming)
    except (OSError, ValueError, StopIteration, DatasetsError) as error:
        said = first_line(error)
        raise TrlError(f"trainer.config: {configuration.where}: its data set cannot be read: {said}") from error
    if script.dataset_train_split not in found:
        raise TrlError(
            f"trainer.config: {configuration.where} trains on the split {script.dataset_train_split!r}, and there are "
            f"{', '.join(found)}: set dataset_train_split"
        )
    train, test = found[script.dataset_train_split], found.get(script.dataset_test_split)
    if isinstance(train, IterableDataset):
        raise TrlError("trainer.config: dataset_streaming cannot be resumed exactly: set it to false")
    if test is not None:
        return Rows(train, test)
    train, test = held_out(train, None, seed)
    line = f"{len(test)} training rows are held out for evaluation, as there is no split {script.dataset_test_split!r}"
    return Rows(train, test, lines=(line,))
