"""How fast a trial trains, over all its segments, and what of it the specification wants reported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from autolora.metrics import ReportedSpec, measures
from autolora.metrics.measures import Facts
from autolora.trainers.checkpoint import Manifest

EVAL = "eval_"
"""What trainers put before the names of what they report of an evaluation."""
AMOUNTS = ("seconds", "examples", "tokens")


class Timing:
    """Wall time of optimizer steps, and what they were trained on.

    The record is part of the manifest: a killed trial goes on with that of its newest checkpoint, and the steps after
    that, which are taken again, are counted once. A segment's first step, which allocates and compiles, is kept apart
    and only counts where no other was taken.

    Args:
        record: of a manifest, which is updated.
    """

    def __init__(self, record: dict[str, float]) -> None:
        self._record, self._began = record, False

    def step(self, seconds: float, examples: float, tokens: float = 0.0, *, first: bool | None = None) -> None:
        """Count an optimizer step, or several.

        Args:
            seconds: wall time.
            examples, tokens: trained on; 0 tokens if they are not known.
            first: whether it is the segment's first; None means that this is the first call.
        """
        first = not self._began if first is None else first
        self._began = True
        for name, amount in zip(AMOUNTS, (seconds, examples, tokens), strict=True):
            key = f"first_{name}" if first else name
            self._record[key] = self._record.get(key, 0.0) + amount

    @staticmethod
    def of(record: Mapping[str, float]) -> tuple[float | None, float | None, float | None]:
        """Seconds, examples and tokens of a record; None where they are not known."""
        prefix = "" if record.get("seconds") else "first_"
        seconds, examples, tokens = (record.get(f"{prefix}{name}") or None for name in AMOUNTS)
        return seconds, examples, tokens


def facts(manifest: Manifest, parameters: int | None = None, adapter_bytes: int | None = None) -> Facts:
    """What a manifest, and who has trained, know of a trial."""
    seconds, examples, tokens = Timing.of(manifest.timing)
    return Facts(
        seconds=manifest.seconds,
        timed_seconds=seconds,
        timed_examples=examples,
        timed_tokens=tokens,
        losses=manifest.losses,
        peak_memory=manifest.peak_memory or None,
        parameters=parameters,
        adapter_bytes=adapter_bytes,
    )


def reported(asked: Iterable[ReportedSpec], known: Facts, said: Mapping[str, object] | None = None) -> dict[str, float]:
    """What is to be reported, as far as it is known and finite.

    Args:
        asked: by the specification.
        known: of the training.
        said: by the trainer itself, by name, maybe with "eval_" in front; it wins over a measure of the same name.
    """
    found: dict[str, float] = {}
    for each in asked:
        value = _said(said or {}, (each.name, EVAL + each.name))
        if value is None and each.name in measures.registry():
            value = measures.registry()[each.name].value(known)
        if value is not None and math.isfinite(value):
            found[each.name] = float(value)
    return found


def _said(said: Mapping[str, object], names: Sequence[str]) -> float | None:
    for name in names:
        value = said.get(name)
        if value is None or isinstance(value, bool):
            continue
        try:
            return float(value)  # type: ignore[arg-type]  # text, too; what is no number is not reported
        except (TypeError, ValueError):
            continue
    return None
