"""What a study gives back: the tuned configuration and adapter of each variant, and ``best.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autolora.errors import AutoloraError
from autolora.search.judgement import Verdict
from autolora.search.verdict import Alternative
from autolora.space import Config

BEST_FILE, BEST_FOLDER = "best.json", "best"


class ResultError(AutoloraError, FileNotFoundError):
    """There is no result to read yet."""


class NoVariantError(AutoloraError, KeyError):
    """The study holds no finished run of that variant."""

    __str__ = Exception.__str__


@dataclass(frozen=True)
class TunedVariant:
    """The outcome for one variant.

    Attributes:
        config: ``.learning_rate``, ``.batch_size``, ``.rank``, ``.alpha``, ``.options``.
        value: mean score over ``seeds``.
        spread: standard deviation over seeds, pooled over variants where this one has fewer than three; None with no
            repeats at all.
        seeds: the scores, one a seed.
        baseline: score of the baseline (the user's, or else the prior's mode), None where it did not finish.
        test: score on the test split, mean over seeds, None without one.
        adapter_dir: folder of the exported adapter, of the seed that scored best.
        seconds: wall time of all trials of the variant.
        run_seconds: wall time of one full run of the configuration, evaluations included, mean over the variant's full
            runs of this rank, batch size and options.
        noise: what "within noise" goes by: "seeds", "examples" (of the evaluation split), or None where it is unknown.
        smallest: the best configuration of the smallest rank within noise of this one, :class:`Alternative`; it may be
            this one. None where noise is unknown.
        cheapest: likewise the one whose full run takes least wall time.
    """

    config: Config
    value: float
    spread: float | None
    seeds: tuple[float, ...]
    baseline: float | None
    test: float | None
    adapter_dir: str
    seconds: float
    run_seconds: float = 0.0
    noise: Literal["seeds", "examples"] | None = None
    smallest: Alternative | None = None
    cheapest: Alternative | None = None

    @property
    def learning_rate(self) -> float:
        return self.config.learning_rate

    def as_dict(self) -> dict[str, Any]:
        return {
            "config": self.config.as_dict(),
            "value": self.value,
            "spread": self.spread,
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "test": self.test,
            "adapter_dir": self.adapter_dir,
            "seconds": self.seconds,
            "run_seconds": self.run_seconds,
            "noise": self.noise,
            "smallest": self.smallest and self.smallest.as_dict(),
            "cheapest": self.cheapest and self.cheapest.as_dict(),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], adapter_dir: str) -> TunedVariant:
        """The inverse of :meth:`as_dict`; what a result of an earlier version lacks stays unknown."""
        known = {**raw, "config": Config.of(**raw["config"]), "seeds": tuple(raw["seeds"]), "adapter_dir": adapter_dir}
        for name in ("smallest", "cheapest"):
            other = raw.get(name)
            known[name] = other and Alternative(
                **{**other, "config": Config.of(**other["config"]), "seeds": tuple(other["seeds"])}
            )
        return cls(**known)


@dataclass(frozen=True)
class TuneResult(Mapping[str, TunedVariant]):
    """A mapping from variant names to :class:`TunedVariant`, with what the study spent.

    Attributes:
        variants: the outcome of each variant that finished a full run.
        spent: full-run equivalents per variant.
        versions: of the packages that computed it.
        metric, direction: what was optimised.
        folder: run directory.
        seconds: wall time of this call: "total", "training" (and evaluation) and "driver" (deciding and recording).
        verdict: which variants differ from plain LoRA beyond noise; ``.text`` says it in words. None in results of
            earlier versions.
    """

    variants: Mapping[str, TunedVariant]
    spent: Mapping[str, float]
    versions: Mapping[str, str]
    metric: str
    direction: str
    folder: Path
    seconds: Mapping[str, float]
    verdict: Verdict | None = None

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
            "versions": dict(self.versions),
        }
        path = self.folder / BEST_FILE
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(beside, path)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> TuneResult:
        """Read ``best.json`` of a run directory.

        Raises:
            ResultError: the study has never come to its end.
        """
        folder = Path(folder)
        path = folder / BEST_FILE
        if not path.is_file():
            raise ResultError(f"{path} is not there: the study has not ended; `autolora status {folder}` shows it")
        raw = json.loads(path.read_text())
        variants = {  # the run directory may have been moved
            name: TunedVariant.from_dict(tuned, str(folder / BEST_FOLDER / name))
            for name, tuned in raw["variants"].items()
        }
        verdict = raw.get("verdict")
        return cls(
            variants,
            raw["spent"],
            raw["versions"],
            raw["metric"],
            raw["direction"],
            folder,
            raw["seconds"],
            verdict and Verdict.from_dict(verdict),
        )


def installed_versions() -> dict[str, str]:
    """Versions of what computes a result."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("autolora", "torch", "transformers", "peft", "accelerate", "datasets", "optuna", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            found[package] = "not installed"
    return found
