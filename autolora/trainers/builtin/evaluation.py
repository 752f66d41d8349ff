"""Scores of an adapter on a split, by a metric of :mod:`autolora.metrics` or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autolora.bases import Base
from autolora.losses import IGNORED, token_losses
from autolora.metrics import Metric, MetricError, MetricSpec, find
from autolora.scores import Scores
from autolora.tasks.causal_lm.split import EvaluationRow, PreparedData, Split
from autolora.trainers.builtin.generation import check_generation, greedy
from autolora.trainers.builtin.stops import Stops
from autolora.trainers.memory import halved, out_of_memory

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

EVAL_BATCH = 32


@dataclass(frozen=True)
class SplitEvaluation:
    """One adapter on one split: what a metric sees; see :class:`autolora.metrics.Evaluation`."""

    model: PeftModel
    base: Base
    split: Split
    stops: Stops
    max_new_tokens: int
    batch_size: int

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.base.tokenizer

    @property
    def rows(self) -> list[EvaluationRow]:
        return self.split.rows

    def generate(self) -> list[str]:
        rows = range(len(self.split))
        prompts = [self.split.prompt_tokens(row).tolist() for row in rows]
        answers = greedy(
            self.model.get_base_model(), self.base, prompts, list(map(self._limit, rows)), self.stops, self.batch_size
        )
        return self._texts(answers)

    def references(self) -> list[str]:
        return self._texts([self.stops.cut(self.split.answer_tokens(row).tolist()) for row in range(len(self.split))])

    def _texts(self, answers: Sequence[Sequence[int]]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return texts

    def _limit(self, row: int) -> int:
        """Tokens to generate for a row: no more than the model has positions for, but as many as it was taught."""
        if self.base.limits.positions is None:
            return self.max_new_tokens
        room = self.base.limits.positions - len(self.split.prompt_tokens(row)) + 1
        return min(self.max_new_tokens, max(room, len(self.split.answer_tokens(row))))

    def over_tokens(self, quantity: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Scores:
        totals, weights = np.zeros(len(self.split)), np.zeros(len(self.split))
        for rows, batch in self._batches():
            with self.base.autocast():
                values = quantity(*token_losses(self.model, batch)).cpu().double().numpy()
            places = (batch["labels"][:, 1:] != IGNORED).nonzero()[:, 0].cpu().numpy()  # row of each target token
            totals[rows] = np.bincount(places, values, minlength=len(rows))
            weights[rows] = np.bincount(places, minlength=len(rows))
        return Scores.of(totals, weights)

    def _batches(self) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """Batches with the rows in them, of similar length, so that little is spent on padding."""
        order = self.split.lengths.argsort(kind="stable")
        for begin in range(0, len(order), self.batch_size):
            rows = order[begin : begin + self.batch_size]
            yield rows, self.base.placed(self.split.batch(rows, self.base.pad_token_id))


@dataclass(frozen=True)
class Evaluator:
    """Scores adapters of a base by the metric of a study.

    Attributes:
        base: the resident model.
        spec: of the metric.
        metric: what it names.
        stops: where generated answers end.
        warnings: what may spoil the metric, each a line of its own.
    """

    base: Base
    spec: MetricSpec
    metric: Metric
    stops: Stops
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, base: Base, spec: MetricSpec, data: PreparedData) -> Evaluator:
        """The evaluator of a specification.

        Raises:
            MetricError: the metric is not there, or the data lack what it needs.
        """
        metric = find(spec)
        stops = Stops.of(base, data)
        if "prompts" not in metric.needs:
            return cls(base, spec, metric, stops)
        if not base.model.can_generate():
            raise MetricError(f"{metric.name} generates, which {type(base.model).__name__} cannot: use eval_loss")
        held_out = {name: split for name, split in data.splits.items() if name != "train"}
        for name, split in held_out.items():
            if min(len(split.prompt_tokens(row)) for row in range(len(split))) < 2:
                raise MetricError(
                    f"{metric.name} needs prompts to generate from, and rows of the {name} split have none: use "
                    "eval_loss for plain text"
                )
        check_generation(base, next(iter(held_out.values())).prompt_tokens(0).tolist())
        warnings = [_too_long(metric.name, spec.max_new_tokens, name, split, stops) for name, split in held_out.items()]
        return cls(base, spec, metric, stops, tuple(filter(None, warnings)))

    def scores(self, adapted: PeftModel, split: Split) -> Scores:
        """The metric with what each row contributes to it; the batch halves when memory runs out."""
        import torch

        training, batch_size = adapted.training, EVAL_BATCH
        adapted.eval()
        try:
            while True:
                view = SplitEvaluation(adapted, self.base, split, self.stops, self.spec.max_new_tokens, batch_size)
                try:
                    with torch.no_grad():
                        return self.metric.scores(view)
                except (RuntimeError, MemoryError) as error:
                    if batch_size == 1 or not out_of_memory(error):
                        raise
                batch_size = halved(batch_size)
        finally:
            adapted.train(training)


def _too_long(metric: str, limit: int, name: str, split: Split, stops: Stops) -> str:
    """A warning where references are longer than what is generated; empty where none is."""
    lengths = [len(stops.cut(split.answer_tokens(row).tolist())) for row in range(len(split))]
    longer = sum(length > limit for length in lengths)
    if not longer:
        return ""
    return (
        f"{longer} of {len(split)} answers of the {name} split are longer than metric.max_new_tokens={limit}, "
        f"so {metric} counts them as wrong; the longest has {max(lengths)} tokens"
    )
