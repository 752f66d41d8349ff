"""Greedy generation, whatever a model's generation config says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from autolora.bases import Base
from autolora.trainers.builtin.stops import Stops

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel


def greedy(
    adapted: PeftModel,
    base: Base,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stops: Stops,
    batch_size: int,
) -> list[list[int]]:
    """The most probable next token, again and again, up to the first stop.

    Args:
        adapted: the base with an adapter, in eval mode.
        base: of the adapter.
        prompts: token ids of each row.
        limits: most tokens to generate for each row.
        stops: where an answer ends.
        batch_size: rows in one forward pass, at most; those of one limit go together.

    Returns:
        For each row the ids generated before its first stop.
    """
    answers: dict[int, list[int]] = {}
    with _no_preferences(adapted.get_base_model()) as model:
        order = sorted(range(len(prompts)), key=lambda row: -limits[row])
        for limit, group in groupby(order, key=lambda row: limits[row]):
            rows = list(group)
            for begin in range(0, len(rows), batch_size):
                chunk = rows[begin : begin + batch_size]
                generated = _generated(model, base, [prompts[row] for row in chunk], limit, stops)
                answers |= {row: stops.cut(ids) for row, ids in zip(chunk, generated.tolist(), strict=True)}
    return [answers[row] for row in range(len(prompts))]


def _generated(
    model: PreTrainedModel, base: Base, prompts: Sequence[Sequence[int]], limit: int, stops: Stops
) -> torch.Tensor:
    """(batch, tokens): what follows the prompts, up to ``limit`` tokens; what follows a stop has no meaning."""
    import torch
    from transformers import StoppingCriteriaList

    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), base.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padded on the left: generation goes on at the right
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1

    def stopped(sequences: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return stops.reached(sequences[:, width:])

    with base.autocast():
        # The method of the class: a repository may put a decoding of its own on the object.
        sequences = type(model).generate(
            model,
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            generation_config=_plain(max_new_tokens=limit, pad_token_id=base.pad_token_id),
            stopping_criteria=StoppingCriteriaList([stopped]),
        )
    generated: torch.Tensor = sequences[:, width:]
    return generated


def _plain(**settings: object) -> GenerationConfig:
    from transformers import GenerationConfig

    return GenerationConfig(do_sample=False, num_beams=1, use_cache=True, **settings)


@contextmanager
def _no_preferences(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model without the defaults of its generation config, which ``generate`` puts wherever it is told nothing."""
    own = model.generation_config
    model.generation_config = _plain()
    try:
        yield model
    finally:
        model.generation_config = own
