"""For tests of your own data: what training sees of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def rendered(
    rows: Sequence[Mapping[str, object]], tokenizer: PreTrainedTokenizerBase, **data_keys: object
) -> list[tuple[str, list[str]]]:
    """What training sees of rows: their text, and which stretches of it are learned.

        rendered([{"question": "2 + 2?", "answer": "4"}], tokenizer, prompt="question", completion="answer")
        # [("<s>2 + 2?\\n4</s>", ["4</s>"])]

    Args:
        rows: as they are in the data.
        tokenizer: of the model.
        data_keys: keys of the ``data`` section of a specification that say how a row becomes text, such as ``format``,
            ``prompt``, ``completion`` and ``template``.

    Returns:
        For each row its tokens as text, special ones included and nothing cut, and the learned stretches of it in
        order. A row from which nothing can be learned, which a study would count and leave out, has no stretches; its
        text is "" if it has none, as when its chat template refuses it.

    Raises:
        SpecError: a key is unknown, or its value is not allowed.
        DataError: a row cannot be turned into text, or a chat template leaves out a part of it.
    """
    from autolora import spec as specs
    from autolora.tasks.causal_lm.formats.format import layout_of
    from autolora.tasks.causal_lm.tokenize import Encoder, Unlearnable
    from autolora.tasks.data.cells import whole_text
    from autolora.tasks.data.table import Table

    if not rows:
        return []
    data = specs.validate({"model": "unused", "data": {"train": "rows", **data_keys}}).data
    assert data is not None
    table = Table.of("rows", rows)
    for index, row in enumerate(rows):
        whole_text(row, table.place(index))
    layout = layout_of(table, data)
    places = [table.place(index) for index in range(len(table))]
    examples = [layout.example(row, place) for row, place in zip(rows, places, strict=True)]
    encoded = Encoder(tokenizer, max_length=sys.maxsize).encode(examples, places)
    return [
        (row.text, []) if isinstance(row, Unlearnable) else _texts(tokenizer, row.ids, row.targets) for row in encoded
    ]


def _texts(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray, targets: np.ndarray) -> tuple[str, list[str]]:
    from autolora.tasks.causal_lm.prefixes import common_prefix

    def decoded(count: int) -> str:
        """The first tokens; a tokenizer may decode a token on its own in another way."""
        return str(tokenizer.decode(ids[:count].tolist(), clean_up_tokenization_spaces=False))

    text = decoded(len(ids))
    edges = np.flatnonzero(np.diff(targets, prepend=False, append=False))
    places = [common_prefix(decoded(edge), text) for edge in edges.tolist()]
    return text, [text[start:end] for start, end in zip(places[::2], places[1::2], strict=True)]
