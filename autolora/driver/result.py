"""What a study gives back: the tuned configuration and adapter of each variant, and ``best.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autolora import files
from autolora.analysis.best import Best
from autolora.analysis.verdict import Verdict
from autolora.errors import AutoloraError

BEST_FILE, BEST_FOLDER = "best.json", "best"


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

    def __getitem__(self, variant: str) -> TunedVariant:
        if variant not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise NoVariantError(f"no finished run of variant {variant!r} in {self.folder}; finished: {known}")
        return self.variants[variant]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variants)

    def __len__(self) -> int:
        return len(self.variants)

    def save(self) -> Path:
        """Write ``best.json`` into the run directory, whole or not at all."""
        content = {
            "variants": {name: tuned.as_dict() for name, tuned in self.variants.items()},
            "spent": dict(self.spent),
            "metric": self.metric,
            "direction": self.direction,
            "seconds": dict(self.seconds),
            "verdict": self.verdict and self.verdict.as_dict(),
            "training": dict(self.training),
            "versions": dict(self.versions),
        }
        path = self.folder / BEST_FILE
        files.write(path, json.dumps(content, indent=2) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> TuneResult:
        """Read ``best.json`` of a run directory.

        Raises:
            ResultError: the study has never come to its end.
        """
        folder = files.expanded(folder)
        path = folder / BEST_FILE
        if not path.is_file():
            raise ResultError(
                f"{files.shown(path)} is not there: the study has not ended; "
                f"`autolora status {files.argument(folder)}` shows it"
            )
        raw = json.loads(path.read_text(encoding="utf-8"))
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
        )
