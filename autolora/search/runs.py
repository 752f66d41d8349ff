"""Full-length results of a variant, by configuration: which of them are finalists, and which one wins."""

from __future__ import annotations

from itertools import islice
from statistics import fmean

from autolora.search.trials import Trial, TrialTable
from autolora.space import Config


def finalists(table: TrialTable, variant: str, count: int) -> list[Config]:
    """The best configurations by their first seed at full length, those that failed on any seed left out."""
    unstable = _unstable(table, variant)
    stable = (trial.config for trial in table.leaders(variant) if trial.config not in unstable)
    return list(islice(stable, count))


def runs_by_config(table: TrialTable, variant: str) -> dict[Config, list[Trial]]:
    """Trials at full length by configuration, one a seed; configurations that failed on any seed are left out.

    Of a result that was lost and trained again, the last trial stands for the seed.
    """
    unstable = _unstable(table, variant)
    found: dict[Config, dict[int, Trial]] = {}
    for trial in table.complete(variant):
        if trial.config not in unstable:
            found.setdefault(trial.config, {})[trial.seed] = trial
    return {config: list(seeds.values()) for config, seeds in found.items()}


def ranking(table: TrialTable, variant: str) -> list[list[Trial]]:
    """The runs of each configuration, one a seed, by their mean score, the best configuration first.

    Those with several seeds go before those with one, whose score was chosen for being good.
    """
    last = len(table.rungs) - 1

    def place(runs: list[Trial]) -> tuple[bool, float]:
        return len(runs) == 1, table.sign * fmean(trial.scores[last] for trial in runs)

    return sorted(runs_by_config(table, variant).values(), key=place)


def winner(table: TrialTable, variant: str) -> list[Trial]:
    """The runs of the best configuration, one a seed; empty where nothing is trained to full length."""
    return next(iter(ranking(table, variant)), [])


def _unstable(table: TrialTable, variant: str) -> set[Config]:
    """Those that failed on any seed. A run that was trained already tells nothing by failing here, as for memory."""
    return {trial.config for trial in table.of(variant) if not trial.healthy and trial.purpose != "repeat"}
