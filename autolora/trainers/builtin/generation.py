"""Greedy generation, whatever a model's generation config says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from autolora.adapters.statistics import evaluating
from autolora.bases import Base
from autolora.metrics import MetricError
from autolora.trainers.builtin.stops import Stops
from autolora.trainers.memory import out_of_memory

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel


CHECKED, TOKENS = 8, 4
"""Tokens of the longer prompt and of the answers in :func:`check_generation`."""
BEHIND = 0.05
"""A generated token's logit may be so far behind the largest, relative to their range: rounding, not another model."""


def check_generation(base: Base, prompt: Sequence[int]) -> None:
    """Generate from two beginnings of a prompt, and compare with forward passes without padding and cache.

    Some models take padding for text (RWKV, Doge), or have a cache that does not work (xLSTM).

    Raises:
        MetricError: generation fails, or takes other tokens than the model thinks most probable.
    """
    import torch

    room = (base.limits.positions or math.inf) - TOKENS
    whole = prompt[: int(min(CHECKED, room))]
    prompts = [whole, whole[: max(1, len(whole) // 2)]]
    name = type(base.model).__name__
    with evaluating(base.model), torch.no_grad():
        try:
            answers = greedy(base.model, base, prompts, [TOKENS] * 2, Stops(()), 2)
        except Exception as error:  # a cache that does not fit the model fails in any way
            if out_of_memory(error):
                raise
            raise MetricError(
                f"{name} cannot generate ({type(error).__name__}: {error}): use a metric without generation, such as "
                "eval_loss"
            ) from error
        for begin, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([[*begin, *answer]], device=base.device)
            with base.autocast():
                logits = base.model(input_ids=ids, use_cache=False).logits[0, len(begin) - 1 : -1].float()
            low, high = logits.aminmax(dim=-1)
            taken = logits.gather(1, ids[0, len(begin) :, None])[:, 0]
            if bool((high - taken > BEHIND * (high - low)).any()):
                raise MetricError(
                    f"{name} generates other tokens in a batch with its cache than its own forward pass predicts, as "
                    "models do that take padding for text: use a metric without generation, such as eval_loss"
                )


def greedy(
    model: PreTrainedModel,
    base: Base,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stops: Stops,
    batch_size: int,
) -> list[list[int]]:
    """The most probable next token, again and again, up to the first stop.

    Args:
        model: the base's, with an adapter or without, in eval mode.
        base: the base.
        prompts: token ids of each row.
        limits: most tokens to generate for each row.
        stops: where an answer ends.
        batch_size: rows in one forward pass, at most; those of one limit go together, those of similar length first.

    Returns:
        For each row the ids generated before its first stop.
    """
    answers: dict[int, list[int]] = {}
    with _no_preferences(model):
        order = sorted(range(len(prompts)), key=lambda row: (-limits[row], -len(prompts[row])))
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
def _no_preferences(model: PreTrainedModel) -> Iterator[None]:
    """A model without the defaults of its generation config, which ``generate`` puts wherever it is told nothing."""
    own = model.generation_config
    model.generation_config = _plain()
    try:
        yield
    finally:
        model.generation_config = own
