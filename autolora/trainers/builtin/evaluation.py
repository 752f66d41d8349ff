"""Scores of an adapter on a split, by a metric of :mod:`autolora.metrics` or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from autolora.bases import Base
from autolora.metrics import Metric, MetricError, MetricSpec, find
from autolora.scores import Scores
from autolora.tasks.causal_lm.split import EvaluationRow, PreparedData, Split
from autolora.trainers.builtin.batches import given
from autolora.trainers.builtin.generation import check_generation, greedy
from autolora.trainers.builtin.passes import IN_MAIN_MEMORY, Passes
from autolora.trainers.builtin.stops import Stops
from autolora.trainers.memory import collected, out_of_memory

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

ON_A_GPU = Passes(tokens=16384, overhead=512)
"""Without gradients a pass keeps the activations of one layer alone."""
GENERATED = 32
"""Rows that are generated at once, at most."""
GROWS_AFTER = 8
"""Evaluations without a fault after which twice as much is tried."""


@dataclass(frozen=True)
class SplitEvaluation:
    """One adapter on one split: what a metric sees; see :class:`autolora.metrics.Evaluation`.

    Attributes:
        passes: what one forward pass may hold.
        generated: rows that are generated at once, at most.
        asked: what a metric has made use of so far, "passes" or "generated".
    """

    model: PeftModel
    base: Base
    split: Split
    stops: Stops
    max_new_tokens: int
    passes: Passes
    generated: int
    asked: set[str] = field(default_factory=set)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.base.tokenizer

    @property
    def rows(self) -> list[EvaluationRow]:
        return self.split.rows

    def generate(self) -> list[str]:
        self.asked.add("generated")
        rows = range(len(self.split))
        prompts = [self.split.prompt_tokens(row).tolist() for row in rows]
        answers = greedy(
            self.model.get_base_model(), self.base, prompts, list(map(self._limit, rows)), self.stops, self.generated
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
        from autolora.head import token_predictions

        self.asked.add("passes")
        totals, weights = np.zeros(len(self.split)), self.split.target_counts.astype(float)
        for rows in self.passes.cut(self.split.lengths):
            batch = self.base.placed(given(self.split, rows, self.base))
            with self.base.autocast():
                found = token_predictions(self.model, batch, self.base.reading.apart)
                values = quantity(*found).cpu().double().numpy()
            places = np.repeat(np.arange(len(rows)), self.split.target_counts[rows])  # row of each target token
            totals[rows] = np.bincount(places, values, minlength=len(rows))
        return Scores.of(totals, weights)


@dataclass
class Evaluator:
    """Scores adapters of a base by the metric of a study.

    Attributes:
        base: the resident model.
        spec: of the metric.
        metric: what it names.
        stops: where generated answers end.
        warnings: what may spoil the metric, each a line of its own.
        passes, generated: see :class:`SplitEvaluation`. They shrink when memory runs out, and grow again after
            GROWS_AFTER evaluations in which it did not.
    """

    base: Base
    spec: MetricSpec
    metric: Metric
    stops: Stops
    warnings: tuple[str, ...] = ()
    passes: Passes = IN_MAIN_MEMORY
    generated: int = GENERATED
    _without_fault: int = 0

    def __post_init__(self) -> None:
        self._most = self.passes if self.base.device.type == "cpu" else ON_A_GPU
        self.passes = self._most

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

    def generated_tokens(self, split: Split) -> int:
        """Tokens that the metric generates for a split, if answers are as long as the longest reference; else 0."""
        if "prompts" not in self.metric.needs:
            return 0
        return len(split) * min(self.spec.max_new_tokens, max(_answer_lengths(split, self.stops)))

    def scores(self, adapted: PeftModel, split: Split) -> Scores:
        """The metric with what each row contributes to it; passes shrink when memory runs out."""
        import torch

        training = adapted.training
        adapted.eval()
        self._grow()
        try:
            while True:
                view = SplitEvaluation(
                    model=adapted,
                    base=self.base,
                    split=split,
                    stops=self.stops,
                    max_new_tokens=self.spec.max_new_tokens,
                    passes=self.passes,
                    generated=self.generated,
                )
                try:
                    with torch.no_grad(), self.base.fast_matmuls():
                        return self.metric.scores(view)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error) or not self._shrink(view):
                        raise
                collected()
        finally:
            adapted.train(training)

    def _grow(self) -> None:
        self._without_fault += 1
        if self._without_fault > GROWS_AFTER:
            self.passes = replace(self.passes, tokens=min(2 * self.passes.tokens, self._most.tokens))
            self.generated = min(2 * self.generated, GENERATED)
            self._without_fault = 0

    def _shrink(self, view: SplitEvaluation) -> bool:
        """Make what a metric made use of half as large; False if that is one row each already, or nothing."""
        self._without_fault = 0
        lengths = view.split.lengths
        tokens = int(max(len(rows) * lengths[rows].max() for rows in self.passes.cut(lengths)))
        shrinks = False
        if "passes" in view.asked and tokens > lengths.max():
            self.passes, shrinks = self.passes.smaller(tokens), True
        if "generated" in view.asked and self.generated > 1:
            self.generated, shrinks = self.generated // 2, True
        return shrinks


def _too_long(metric: str, limit: int, name: str, split: Split, stops: Stops) -> str:
    """A warning where references are longer than what is generated; empty where none is."""
    lengths = _answer_lengths(split, stops)
    longer = sum(length > limit for length in lengths)
    if not longer:
        return ""
    return (
        f"{longer} of {len(split)} answers of the {name} split are longer than metric.max_new_tokens={limit}, "
        f"so {metric} counts them as wrong; the longest has {max(lengths)} tokens"
    )


def _answer_lengths(split: Split, stops: Stops) -> list[int]:
    """Tokens of each row's reference."""
    return [len(stops.cut(split.answer_tokens(row).tolist())) for row in range(len(split))]
