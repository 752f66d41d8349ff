"""Metrics over a split: token-weighted loss, token accuracy, exact match by greedy generation, or the user's own.

A built-in metric is a function of an :class:`Evaluation`, registered in METRICS.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.errors import AutoloraError
from autolora.losses import token_losses
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

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of rows of similar length, so that little is spent on padding; the metrics are order-free."""
        order = self.split.lengths.argsort(kind="stable")
        for begin in range(0, len(order), self.batch_size):
            batch = self.split.batch(order[begin : begin + self.batch_size], self.base.pad_token_id)
            yield {name: tensor.to(self.base.device) for name, tensor in batch.items()}


def eval_loss(evaluation: Evaluation) -> float:
    """Cross-entropy averaged over all target tokens of the split. May be non-finite: the caller calls it diverged."""
    total = count = 0.0
    for batch in evaluation.batches():
        with evaluation.autocast():
            losses, _, _ = token_losses(evaluation.model, batch)
        total += float(losses.double().sum())
        count += len(losses)
    return total / count


def token_accuracy(evaluation: Evaluation) -> float:
    """Share of target tokens that the model puts first, given the true tokens before them."""
    right = count = 0
    for batch in evaluation.batches():
        with evaluation.autocast():
            _, predicted, targets = token_losses(evaluation.model, batch)
        right += int((predicted == targets).sum())
        count += len(targets)
    return right / count


def exact_match(evaluation: Evaluation) -> float:
    """Share of rows whose greedily generated last turn equals the reference, white space at the ends aside."""
    import torch

    tokenizer, base, split = evaluation.base.tokenizer, evaluation.base, evaluation.split
    prompts = [split.prompt_tokens(row).tolist() for row in range(len(split))]
    if min(map(len, prompts)) < 2:
        raise MetricError("exact_match needs prompts to generate from; these rows are plain text: use eval_loss")
    right = 0
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
        right += sum(a.strip() == b.strip() for a, b in zip(answers, references, strict=True))
    return right / len(prompts)


METRICS: dict[str, Callable[[Evaluation], float]] = {
    "eval_loss": eval_loss,
    "token_accuracy": token_accuracy,
    "exact_match": exact_match,
}


def load_metric(spec: MetricSpec) -> Callable[[Evaluation], float]:
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

    def custom(evaluation: Evaluation) -> float:
        value = function(evaluation.model, evaluation.base.tokenizer, evaluation.split.rows)
        value = value.item() if hasattr(value, "item") else value
        if not isinstance(value, (int, float)):
            raise MetricError(f"metric {spec.name!r} returned {value!r}; it must return a number")
        return float(value)  # one that is not finite is the trial's own failure, and ends it as diverged

    return custom
