"""A metric that is a function of the user's, named by a specification as ``module:function``."""

from __future__ import annotations

from autolora import references
from autolora.metrics.metric import Evaluation, Metric, MetricError, registry
from autolora.metrics.spec import MetricSpec
from autolora.scores import Scores


def find(spec: MetricSpec) -> Metric:
    """The metric that a specification names; one of the user's is imported, with the working directory on the path.

    Raises:
        MetricError: the module or the function is not there, or the module cannot be imported.
    """
    if not spec.own:
        return registry()[spec.name]
    try:
        function = references.named(spec.name)
    except references.NoAttribute:
        module, _, attribute = spec.name.partition(":")
        raise MetricError(f"metric {spec.name!r}: the module {module!r} has no {attribute!r}") from None
    except references.ReferenceFault as fault:
        raise MetricError(f"metric {spec.name!r}: {fault}") from fault
    if not callable(function):
        raise MetricError(f"metric {spec.name!r} is {function!r}, which is not a function")

    def scores(evaluation: Evaluation) -> Scores:
        from autolora.adapters.kernels.branch import widening

        with widening(evaluation.model):
            returned = function(evaluation.model, evaluation.tokenizer, evaluation.rows)
        return _checked(spec.name, returned, len(evaluation.rows))

    return Metric(spec.name, spec.resolved_direction, scores, needs=frozenset({"columns"}))


def _checked(name: str, returned: object, rows: int) -> Scores:
    """What the user's metric returned: a number, or a number for each row, of which the score is the mean.

    One that is not finite is the trial's own failure, and ends it as diverged.
    """
    value = returned.tolist() if hasattr(returned, "tolist") else returned  # NumPy's and torch's, scalars too
    if isinstance(value, (int, float)):
        return Scores(float(value))
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, (int, float)) for each in value):
        raise MetricError(f"metric {name!r} returned {value!r}; it must return a number, or one for each row")
    if len(value) != rows:
        raise MetricError(
            f"metric {name!r} returned {len(value)} numbers for {rows} rows; "
            "it must return one number, or one for each row"
        )
    return Scores.of(value)
