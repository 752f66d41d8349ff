"""Share of rows generated right."""

from __future__ import annotations

from autolora.metrics.metric import Evaluation, Metric, register
from autolora.scores import Scores


def exact_match(evaluation: Evaluation) -> Scores:
    """Share of rows whose greedily generated last turn equals the reference, white space at the ends aside.

    The reference is the text of the row, or what its tokens decode to: a tokenizer need not give a text back as it was.
    """
    texts = (row["completion"] for row in evaluation.rows)
    rows = zip(evaluation.generate(), texts, evaluation.references(), strict=True)
    return Scores.of([answer.strip() in (text.strip(), decoded.strip()) for answer, text, decoded in rows])


register(Metric("exact_match", "maximize", exact_match, needs=frozenset({"prompts"})))
