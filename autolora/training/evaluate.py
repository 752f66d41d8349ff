"""Metrics over a split: token-weighted loss, token accuracy, exact match by greedy generation, or the user's own.

A built-in metric is a function of an :class:`Evaluation`, registered in METRICS; it gives :class:`Scores`, the score
with what each row contributes to it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autolora.errors import AutoloraError
from autolora.losses import IGNORED, token_losses
from autolora.scores import Scores
from autolora.spec import MetricSpec
from autolora.training.data import Split
from autolora.training.model import Base

if TYPE_CHECKING:
    import torch

EVAL_BATCH = 32


class MetricError(AutoloraError, ValueError):
    """A metric is missing, or returned something that is not a number. It is never replaced by another."""


@dataclass(frozen=True)
class Evaluation:
    """What a metric sees.

    Attributes:
        model: with its adapter, in eval mode.
        base: tokenizer and device.
        split: tokenised rows and, for generation, their texts.
        spec: the metric's own options.
        autocast: context factory for the forward pass.
        batch_size: rows in one forward pass.
    """

    model: Any
    base: Base
    split: Split
    spec: MetricSpec
    autocast: Callable[[], Any]
    batch_size: int

    def batches(self) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """Batches with the rows in them, of similar length, so that little is spent on padding."""
        order = self.split.lengths.argsort(kind="stable")
        for begin in range(0, len(order), self.batch_size):
            rows = order[begin : begin + self.batch_size]
            batch = self.split.batch(rows, self.base.pad_token_id)
            yield rows, {name: tensor.to(self.base.device) for name, tensor in batch.items()}

    def over_tokens(self, quantity: Callable[..., torch.Tensor]) -> Scores:
        """The mean over all target tokens of the split.

        Args:
            quantity: of what :func:`autolora.losses.token_losses` gives, one value a target token.
        """
        totals, weights = np.zeros(len(self.split)), np.zeros(len(self.split))
        for rows, batch in self.batches():
            with self.autocast():
                values = quantity(*token_losses(self.model, batch)).cpu().double().numpy()
            places = (batch["labels"][:, 1:] != IGNORED).nonzero()[:, 0].cpu().numpy()  # row of each target token
            totals[rows] = np.bincount(places, values, minlength=len(rows))
            weights[rows] = np.bincount(places, minlength=len(rows))
        return Scores.of(totals, weights)


def eval_loss(evaluation: Evaluation) -> Scores:
    """Cross-entropy averaged over all target tokens of the split. May be non-finite: the caller calls it diverged."""
    return evaluation.over_tokens(lambda losses, predicted, targets: losses)


def token_accuracy(evaluation: Evaluation) -> Scores:
    """Share of target tokens that the model puts first, given the true tokens before them."""
    return evaluation.over_tokens(lambda losses, predicted, targets: predicted == targets)


def exact_match(evaluation: Evaluation) -> Scores:
    """Share of rows whose greedily generated last turn equals the reference, white space at the ends aside."""
    import torch

    tokenizer, base, split = evaluation.base.tokenizer, evaluation.base, evaluation.split
    prompts = [split.prompt_tokens(row).tolist() for row in range(len(split))]
    if min(map(len, prompts)) < 2:
        raise MetricError("exact_match needs prompts to generate from; these rows are plain text: use eval_loss")
    right: list[bool] = []
    for begin in range(0, len(prompts), evaluation.batch_size):
        chunk = prompts[begin : begin + evaluation.batch_size]
        width = max(map(len, chunk))
        ids = torch.full((len(chunk), width), base.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(chunk):  # padded on the left: generation goes on at the right
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        with evaluation.autocast():
            generated = evaluation.model.generate(
                input_ids=ids.to(base.device),
                attention_mask=mask.to(base.device),
                max_new_tokens=evaluation.spec.max_new_tokens,
                do_sample=False,
                pad_token_id=base.pad_token_id,
            )
        answers = tokenizer.batch_decode(generated[:, width:], skip_special_tokens=True)
        references = [row["completion"] for row in split.rows[begin : begin + evaluation.batch_size]]
        right += [a.strip() == b.strip() for a, b in zip(answers, references, strict=True)]
    return Scores.of(right)


METRICS: dict[str, Callable[[Evaluation], Scores]] = {
    "eval_loss": eval_loss,
    "token_accuracy": token_accuracy,
    "exact_match": exact_match,
}


def load_metric(spec: MetricSpec) -> Callable[[Evaluation], Scores]:
    """The metric function; the user's own is imported, with the working directory on the path.

    Raises:
        MetricError: the module or the function is not there.
    """
    if spec.name in METRICS:
        return METRICS[spec.name]
    module_name, function_name = spec.name.split(":", 1)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise MetricError(
            f"metric {spec.name!r}: {error} (looked in {os.getcwd()} and the installed packages)"
        ) from error
    except AttributeError:
        raise MetricError(f"metric {spec.name!r}: the module {module_name!r} has no {function_name!r}") from None

    def custom(evaluation: Evaluation) -> Scores:
        return _own(spec.name, function(evaluation.model, evaluation.base.tokenizer, evaluation.split.rows), evaluation)

    return custom


def _own(name: str, value: Any, evaluation: Evaluation) -> Scores:
    """What the user's metric returned: a number, or a number for each row, of which the score is the mean.

    One that is not finite is the trial's own failure, and ends it as diverged.
    """
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's and torch's, scalars too
    if isinstance(value, (int, float)):
        return Scores(float(value))
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, (int, float)) for each in value):
        raise MetricError(f"metric {name!r} returned {value!r}; it must return a number, or one for each row")
    if len(value) != len(evaluation.split):
        raise MetricError(
            f"metric {name!r} returned {len(value)} numbers for {len(evaluation.split)} rows; "
            "it must return one number, or one for each row"
        )
    return Scores.of(value)
