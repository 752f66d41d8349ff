"""Share of rows generated right."""

from __future__ import annotations

from autolora.metrics.metric import Evaluation, Metric, register
from autolora.scores import Scores


def exact_match(evaluation: Evaluation) -> Scores:
    """Share of rows whose greedily generated last turn equals the reference, white space at the ends aside."""
    references = (row["completion"] for row in evaluation.rows)
    answers = evaluation.generate()
    return Scores.of([a.strip() == b.strip() for a, b in zip(answers, references, strict=True)])


register(Metric("exact_match", "maximize", exact_match, needs=frozenset({"prompts"})))
