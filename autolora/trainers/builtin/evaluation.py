"""Scores of an adapter on a split, by a metric of :mod:`autolora.metrics` or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autolora.bases import Base
from autolora.losses import IGNORED, token_losses
from autolora.metrics import Metric, MetricError, MetricSpec, find
from autolora.scores import Scores
from autolora.tasks.causal_lm.split import EvaluationRow, PreparedData, Split
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
    max_new_tokens: int
    batch_size: int

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.base.tokenizer

    @property
    def rows(self) -> list[EvaluationRow]:
        return self.split.rows

    def generate(self) -> list[str]:
        import torch

        prompts = [self.split.prompt_tokens(row).tolist() for row in range(len(self.split))]
        answers: list[str] = []
        for begin in range(0, len(prompts), self.batch_size):
            chunk = prompts[begin : begin + self.batch_size]
            width = max(map(len, chunk))
            ids = torch.full((len(chunk), width), self.base.pad_token_id, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, prompt in enumerate(chunk):  # padded on the left: generation goes on at the right
                ids[row, width - len(prompt) :] = torch.tensor(prompt)
                mask[row, width - len(prompt) :] = 1
            with self.base.autocast():
                generated = self.model.generate(  # type: ignore[no-untyped-call]  # PEFT's
                    input_ids=ids.to(self.base.device),
                    attention_mask=mask.to(self.base.device),
                    max_new_tokens=self.max_new_tokens,
                    do_sample=False,
                    pad_token_id=self.base.pad_token_id,
                )
            answers += self.tokenizer.batch_decode(generated[:, width:], skip_special_tokens=True)
        return answers

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
    """

    base: Base
    spec: MetricSpec
    metric: Metric

    @classmethod
    def of(cls, base: Base, spec: MetricSpec, data: PreparedData) -> Evaluator:
        """The evaluator of a specification.

        Raises:
            MetricError: the metric is not there, or the data lack what it needs.
        """
        metric = find(spec)
        if "prompts" in metric.needs:
            for name, split in data.splits.items():
                if name != "train" and min(len(split.prompt_tokens(row)) for row in range(len(split))) < 2:
                    raise MetricError(
                        f"{metric.name} needs prompts to generate from, and rows of the {name} split have none: use "
                        "eval_loss for plain text"
                    )
        return cls(base, spec, metric)

    def scores(self, adapted: PeftModel, split: Split) -> Scores:
        """The metric with what each row contributes to it; the batch halves when memory runs out."""
        import torch

        training, batch_size = adapted.training, EVAL_BATCH
        adapted.eval()
        try:
            while True:
                view = SplitEvaluation(adapted, self.base, split, self.spec.max_new_tokens, batch_size)
                try:
                    with torch.no_grad():
                        return self.metric.scores(view)
                except (RuntimeError, MemoryError) as error:
                    if batch_size == 1 or not out_of_memory(error):
                        raise
                batch_size = halved(batch_size)
        finally:
            adapted.train(training)
