"""What a metric is and what it sees, and the registry. A new one is one file in this folder: a Metric, registered.

    from autolora.metrics.metric import Evaluation, Metric, register

    def my_metric(evaluation: Evaluation) -> Scores: ...

    register(Metric("my_metric", "maximize", my_metric, needs=frozenset({"prompts"})))

torch is imported inside its function, so that a specification can name metrics without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from autolora.errors import AutoloraError
from autolora.scores import Scores
from autolora.search.trials import Direction

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

Need = Literal["prompts", "columns"]
"""What a metric asks of the data beside tokens: "prompts" to generate from, or "columns", all those of the table."""


class MetricError(AutoloraError, ValueError):
    """A metric is missing, the data lack what it needs, or it returned something that is not a number.

    It is never replaced by another.
    """


class Evaluation(Protocol):
    """An adapter on a split, as a metric sees it.

    Attributes:
        model: with its adapter, in eval mode; gradients are off.
        tokenizer: of the model.
        rows: mappings with "prompt" and "completion", the text before what is learned last and that itself, without
            EOS; and if the metric needs "columns", with every column of the table.
    """

    @property
    def model(self) -> PeftModel: ...
    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...
    @property
    def rows(self) -> Sequence[Mapping[str, Any]]: ...

    def generate(self) -> list[str]:
        """What the model says in place of what is learned last in each row, without special tokens.

        It is greedy whatever the model's generation config says, and ends where the model's own stops or the end marker
        that the rows taught come first, or after ``metric.max_new_tokens`` tokens.
        """

    def references(self) -> list[str]:
        """What :meth:`generate` gives of a model that says exactly what is learned last in each row."""

    def over_tokens(self, quantity: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Scores:
        """The mean of a quantity over all target tokens of the split, with the sum and the count of each row.

        Args:
            quantity: of losses, predicted tokens and true tokens, each (targets,); gives one value a target.
        """


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: as in ``metric:`` of a specification.
        direction: "minimize" or "maximize", the only one that makes sense.
        scores: the score of an adapter on a split, with what each row adds to it.
        needs: what it asks of the data; checked before anything is trained.
    """

    name: str
    direction: Direction
    scores: Callable[[Evaluation], Scores]
    needs: frozenset[Need] = frozenset()


_metrics: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Add a metric to the registry and return it; raises ``ValueError`` if the name is taken or not a plain word."""
    if metric.name in _metrics or not metric.name.isidentifier():
        raise ValueError(f"a metric cannot be named {metric.name!r}: give it a name of its own, in letters and _")
    _metrics[metric.name] = metric
    return metric


def registry() -> dict[str, Metric]:
    """All metrics by name, the loss first, the others in alphabetical order."""
    return dict(sorted(_metrics.items(), key=lambda item: (item[0] != "eval_loss", item[0])))
