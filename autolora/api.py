"""Public functions and classes that combine several rooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autolora import search
from autolora.analysis.best import Best, best
from autolora.analysis.verdict import Verdict, judge
from autolora.priors.prior import Prior
from autolora.search.rungs import RUNGS
from autolora.search.trials import Direction
from autolora.space import Config, Space, searchable
from autolora.variants import registry

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class Search(search.Search):
    """Tunes LoRA variants by a model of all their scores, given those of partial and full trainings.

    Args:
        variants: registered names, or references as ``"my_package.module:MyVariant"``.
        space: a :class:`autolora.Space`.
        budget: full-run equivalents per variant, everything included, in total for the study.
        rungs: fractions of a full run at which a trial is scored, ascending to 1.
        direction: "minimize" or "maximize" the score.
        seed: all randomness derives from it and the trial's number.
        prior: "laws", a :class:`autolora.priors.Prior`, or None for no belief but the searched range.
        confirm: full runs kept for further seeds of the finalists; "auto": min(4, floor(budget / 4)); 0: none.
        storage: any Optuna storage URL, or the path of an SQLite file, where a search of the same name and terms
            continues; None: in memory.
        baseline: configurations trained first and to the end, by variant. Options that the space names and a
            configuration leaves open are as pinned, or as the variant has them by default.
        name: of the Optuna study.
        examples: training examples of a full run, the unit of the steps at which the study shows scores, and known
            to the laws; None: steps count thousandths of a full run.
        context: what the scores depend on besides the configuration, such as fingerprints of model and data; a
            storage whose search was started with another context is refused.

    Raises:
        ValueError: an unknown variant or option, terms out of range, a budget that does not hold what the prior cost,
            or a storage that holds a search on other terms.
        StudyInUseError: another process writes to the storage.
    """

    def __init__(
        self,
        variants: Sequence[str],
        space: Space | None = None,
        budget: float = 8.0,
        rungs: Sequence[float] = RUNGS,
        direction: Direction = "minimize",
        seed: int = 0,
        prior: Literal["laws"] | Prior | None = "laws",
        confirm: int | Literal["auto"] = "auto",
        storage: str | Path | None = None,
        baseline: Mapping[str, Config] | None = None,
        name: str = "autolora",
        examples: int | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        chosen = {} if isinstance(variants, str) else {each.name: each for each in map(registry.resolve, variants)}
        if not variants or len(chosen) < len(variants):
            raise ValueError(f"variants must be a list of different names, not {variants!r}")
        searchable.check(space or Space(), chosen, registry.names())
        super().__init__(
            variants=chosen,
            space=space,
            budget=budget,
            rungs=rungs,
            direction=direction,
            seed=seed,
            prior=(_prior_begun_with(storage, name) or prior) if prior == "laws" else prior,
            confirm=confirm,
            baseline=baseline,
            examples=examples,
            context=context,
            recorder=None if storage is None else _recorder(storage, name),
        )

    def best(self) -> dict[str, Best]:
        """Per variant with a full-length score: the best configuration by its mean over seeds."""
        return best(self.table, self.plan.variants, self.space.rank)

    def verdict(self) -> Verdict:
        """Which differences between the tuned variants exceed noise, in numbers and in words."""
        found = self.best()
        shortfalls = self.shortfalls({name: one.config for name, one in found.items()})
        return judge(self.table, found, registry.simple(self.plan.variants), shortfalls)


def _prior_begun_with(storage: str | Path | None, name: str) -> Prior | None:
    """The prior of the laws that a search continues with: as its version had them, which others may state otherwise."""
    if storage is None:
        return None
    from autolora.study.study import Study

    begun = Study.find(storage, name)
    recorded = begun and begun.prior
    return recorded if recorded and all(piece.source == "laws" for piece in recorded.evidence) else None


def _recorder(storage: str | Path, name: str) -> search.Recorder:
    from autolora.study.recorder import StudyRecorder  # needs Optuna

    return StudyRecorder(storage, name)


def load_adapter(model: PreTrainedModel, folder: str | Path) -> PeftModel:
    """Put an exported adapter on its base, for use: in evaluation mode, nothing trainable.

    Most adapters load with ``PeftModel.from_pretrained`` alone. Those that cannot be written as a matrix added to the
    weights, such as a mixture of experts, have a format of their own, which this function reads, too.

    Args:
        model: the unmodified base, without adapters, in as many bits as the adapter was trained on; otherwise you are
            warned. Its layers are wrapped in place, unless the adapter cannot be loaded. A base in 4 bits computes from
            here on as it did in training, see :func:`autolora.bases.packed.settle`. ``unload()`` of what is returned
            takes the adapter off again; :func:`autolora.variants.detach` does if the format is its own.
        folder: as ``export`` wrote it, ``best/<variant>`` of a run directory.

    Returns:
        A ``PeftModel``.

    Raises:
        VariantError: the folder holds no whole adapter, or one of another model; or the variant it names is unknown.
    """
    from autolora.adapters.loading import load_exported
    from autolora.bases.packed import settle
    from autolora.variants import get

    adapted = load_exported(model, folder, lambda name, options: get(name).configured(**options))
    settle(model)
    return adapted
