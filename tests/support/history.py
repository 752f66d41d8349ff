"""Trial tables written by hand."""

from __future__ import annotations

from autolora import variants
from autolora.priors import Prior
from autolora.search.features import Features
from autolora.search.sampler import Sampler
from autolora.search.trials import Finished, Outcome, Purpose, Sampled, Scored, TrialTable
from autolora.space import Config, Space
from tests.support.simulation import SPACE

RUNGS = (1 / 9, 1 / 3, 1.0)
NAMES = ("lora", "dora", "pissa")
TRAITS = {name: variants.get(name).traits for name in NAMES}
PRIOR = Prior.from_laws(64, 800)


class History:
    """Trials, each with its scores at the first rungs; those scored at all of them are complete."""

    def __init__(
        self, rungs: tuple[float, ...] = RUNGS, direction: str = "minimize", scored_rows: tuple[int, ...] = ()
    ) -> None:
        self.table = TrialTable(rungs, direction, scored_rows=scored_rows)

    def add(
        self,
        variant: str,
        config: Config,
        *scores: float,
        outcome: Outcome | None = None,
        at: float | None = None,
        purpose: Purpose = "search",
        target: int | None = None,
    ) -> History:
        number = len(self.table.trials)
        target = max(0, len(scores) - 1) if target is None else target
        self.table.apply(Sampled(number, variant, config, 0, purpose, target, ""))
        for rung, score in enumerate(scores):
            self.table.apply(Scored(number, rung, score))
        if len(scores) == len(self.table.rungs):
            outcome = outcome or "complete"
        if outcome:
            self.table.apply(Finished(number, outcome, "", at=at))
        return self


def sampler(space: Space = SPACE, prior: Prior | None = PRIOR, seed: int = 0, rungs=RUNGS) -> Sampler:
    starts = {
        name: tuple((option, choices[0]) for option, choices in space.options_of(name).items()) for name in TRAITS
    }
    return Sampler(space, TRAITS, prior, rungs, seed, starts)


def features(space: Space = SPACE) -> Features:
    return Features(space, TRAITS, PRIOR.coordinates, RUNGS, PRIOR.sd)


def at(z: float, variant: str = "lora", rank: int = 8, batch: int = 8) -> Config:
    """The configuration at z with the law's alpha."""
    alpha = SPACE.alphas(TRAITS[variant], rank)[0]
    return Config(PRIOR.coordinates.learning_rate(TRAITS[variant], z, batch, rank, alpha), batch, rank, alpha)


def z_of(variant: str, config: Config) -> float:
    return PRIOR.coordinates.z(TRAITS[variant], config)
