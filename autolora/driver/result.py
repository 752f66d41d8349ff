"""What a study gives back: the tuned configuration and adapter of each variant, and ``best.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autolora import files
from autolora.analysis.best import Alternative, Best
from autolora.analysis.comparison import Difference
from autolora.analysis.durations import Gain
from autolora.analysis.pareto import Pareto, pareto_as_dict, pareto_from_dict
from autolora.analysis.verdict import Standing, Verdict
from autolora.documents import read_json, shaped
from autolora.errors import AutoloraError
from autolora.search.trials import Direction

_REMEDY = (
    "If a newer autolora wrote it, use that; otherwise run the same `autolora tune` once more, which writes it again "
    "from the study."
)
BEST_FILE, BEST_FOLDER = "best.json", "best"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Setting(_Part):
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    options: dict[str, float] = {}
    fields: dict[str, bool | int | float | str | list[str]] = {}
    __pydantic_extra__: dict[str, float]

    model_config = ConfigDict(extra="allow")


class _Alternative(_Part):
    config: _Setting
    value: float
    difference: float
    seeds: list[float]
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _known(cls, raw: object) -> object:
        return _of(Alternative, raw)


class _Tuned(_Part):
    config: _Setting
    value: float
    spread: float | None
    seeds: list[float]
    baseline: float | None
    test: float | None = None
    seconds: float = 0.0
    run_seconds: float = 0.0
    smallest: _Alternative | None = None
    cheapest: _Alternative | None = None
    untried_ranks: list[int] = []
    metrics: dict[str, float] = {}
    fraction: float = 1.0
    adapter_dir: str
    notes: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _known(cls, raw: object) -> object:
        return _of(Best, raw)


class _Difference(_Part):
    value: float
    standing: Standing

    @model_validator(mode="before")
    @classmethod
    def _known(cls, raw: object) -> object:
        return _of(Difference, raw, "standing")


class _Point(_Part):
    variant: str
    config: _Setting
    value: float
    reported: float
    seeds: int

    model_config = ConfigDict(extra="forbid")


class _Verdict(_Part):
    text: str
    reference: str | None
    noise: str | None
    differences: dict[str, _Difference]


class _Gain(_Part):
    start: float
    stop: float
    unit: str
    expected: float
    low: float | None
    high: float | None
    searched: bool


class _Result(_Part):
    """The shape of ``best.json``, that of earlier versions included."""

    variants: dict[str, _Tuned]
    spent: dict[str, float]
    versions: dict[str, str]
    metric: str
    direction: Direction
    seconds: dict[str, float]
    verdict: _Verdict | None = None
    training: dict[str, Any] = {}
    scores: int | None = None
    durations: dict[str, list[_Gain]] = {}
    pareto: dict[str, list[_Point]] = {}
    ended: str = ""

    @model_validator(mode="after")
    def _spent_of_all(self) -> _Result:
        unknown = self.variants.keys() - self.spent.keys()
        if unknown:
            raise ValueError(f"spent lacks {', '.join(sorted(unknown))}")
        return self


def _of(kind: type, raw: object, *more: str) -> object:
    """The mapping, whose keys are fields of a dataclass; a newer version may have written others."""
    unknown = raw.keys() - {each.name for each in fields(kind)} - {*more} if isinstance(raw, Mapping) else ()
    if unknown:
        raise ValueError(f"unknown here: {', '.join(sorted(map(str, unknown)))}")
    return raw


class ResultError(AutoloraError, FileNotFoundError):
    """The study has not finished, so it has no result."""


class NoVariantError(AutoloraError, KeyError):
    """The study holds no finished run of that variant."""

    __str__ = Exception.__str__


TunedVariant = Best
"""The outcome for one variant: what the search found best, tested and exported."""


@dataclass(frozen=True, kw_only=True)
class TuneResult(Mapping[str, TunedVariant]):
    """A mapping from variant names to :class:`TunedVariant`, with what the study spent.

    Attributes:
        variants: the outcome of each variant that finished a full run.
        spent: full-run equivalents per variant.
        versions: of the packages that computed it.
        metric, direction: what was optimized.
        folder: run directory.
        seconds: wall time of this call: "total", "training" (and evaluation) and "driver" (deciding and recording).
        verdict: which variants differ from plain LoRA beyond noise; ``.text`` says it in words. None in results of
            earlier versions.
        training: settings of a full run that the specification left open, such as ``max_length``.
        scores: number of scores in the study when it ended; None in results of earlier versions.
        durations: by variant, what training longer gains, see :class:`autolora.analysis.durations.Gain`; empty if
            durations were not searched.
        pareto: for each of ``metrics`` of the specification, the configurations than which no other is as good in both
            the metric and that one and better in one: :class:`autolora.analysis.pareto.ParetoPoint` objects with
            ``variant``, ``config``, ``value``, ``reported`` and ``seeds``, the best score first.
        ended: why the search ended before its budget, as by a time budget; empty if it did not.
    """

    variants: Mapping[str, TunedVariant]
    spent: Mapping[str, float]
    versions: Mapping[str, str]
    metric: str
    direction: str
    folder: Path
    seconds: Mapping[str, float]
    verdict: Verdict | None = None
    training: Mapping[str, object] = field(default_factory=dict)
    scores: int | None = None
    durations: Mapping[str, Sequence[Gain]] = field(default_factory=dict)
    pareto: Pareto = field(default_factory=dict)
    ended: str = ""

    def __getitem__(self, variant: str) -> TunedVariant:
        if variant not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise NoVariantError(
                f"no finished run of variant {variant!r} in {files.shown(self.folder)}; finished: {known}"
            )
        return self.variants[variant]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variants)

    def __len__(self) -> int:
        return len(self.variants)

    def save(self) -> Path:
        """Write ``best.json`` into the run directory, whole or not at all."""
        content: dict[str, object] = {
            "variants": {name: tuned.as_dict() for name, tuned in self.variants.items()},
            "spent": dict(self.spent),
            "metric": self.metric,
            "direction": self.direction,
            "seconds": dict(self.seconds),
            "verdict": self.verdict and self.verdict.as_dict(),
            "training": dict(self.training),
            "scores": self.scores,
            "pareto": pareto_as_dict(self.pareto),
            "ended": self.ended,
            "versions": dict(self.versions),
        }
        if self.durations:
            content["durations"] = {name: [gain.as_dict() for gain in gains] for name, gains in self.durations.items()}
        path = self.folder / BEST_FILE
        files.write(path, json.dumps(content, indent=2) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> TuneResult:
        """Read ``best.json`` of a run directory.

        Raises:
            ResultError: the study has never come to its end.
            DocumentError: the file is damaged, or of a newer version.
        """
        folder = files.expanded(folder)
        path = folder / BEST_FILE
        if not path.exists():
            raise ResultError(
                f"{files.shown(path)} is not there: the study has not ended; "
                f"`autolora status {files.argument(folder)}` shows it"
            )
        raw = read_json(path)
        shaped(raw, _Result.model_validate, path, _REMEDY)
        variants = {  # the run directory may have been moved
            name: TunedVariant.from_dict(tuned, str(folder / BEST_FOLDER / name) if tuned["adapter_dir"] else "")
            for name, tuned in raw["variants"].items()
        }
        verdict = raw.get("verdict")
        return cls(
            variants=variants,
            spent=raw["spent"],
            versions=raw["versions"],
            metric=raw["metric"],
            direction=raw["direction"],
            folder=folder,
            seconds=raw["seconds"],
            verdict=verdict and Verdict.from_dict(verdict),
            training=raw.get("training", {}),
            scores=raw.get("scores"),
            durations={name: tuple(Gain(**gain) for gain in gains) for name, gains in raw.get("durations", {}).items()},
            pareto=pareto_from_dict(raw.get("pareto", {})),
            ended=raw.get("ended", ""),
        )
