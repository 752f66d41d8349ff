"""The methods of the benchmark, by name."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from studies.search.ledger import Ledger, Step
from studies.search.problem import Problem, family

Group = Literal["peers", "priors", "ablations"]
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True)
class Method:
    """Where a method is found, so that a library is loaded only where it is used.

    Attributes:
        module, function: of this package; the function trains through a Ledger until its budget holds no more.
        needs: the package that must be installed, or None.
        group: "peers": this project's search and what a user would pick instead; "priors": the search given others;
            "ablations": with a part left out.
        families: of problems that it can be run on; none: all.
    """

    module: str
    function: str
    needs: str | None = None
    group: Group = "peers"
    families: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """The package that this method lacks here."""
        return self.needs if self.needs and importlib.util.find_spec(self.needs) is None else None

    def takes(self, problem: str) -> bool:
        """Whether it can be run on the problem of this name."""
        return not self.families or family(problem) in self.families

    @property
    def run(self) -> Callable[[Ledger], None]:
        module = importlib.import_module(f"studies.search.{self.module}")
        found: Callable[[Ledger], None] = getattr(module, self.function)
        return found


OWN, UNSEEN, UNINFORMED = "autolora", "autolora, unseen laws", "autolora, no prior"

METHODS = {
    OWN: Method("own_methods", "with_laws"),
    UNSEEN: Method("own_methods", "with_unseen_laws", families=("paper", "paper-wide", "curves")),
    UNINFORMED: Method("own_methods", "without_prior"),
    "grid": Method("plain_methods", "grid"),
    "random": Method("plain_methods", "random_search"),
    "random from the prior": Method("plain_methods", "random_from_prior"),
    "pattern search": Method("recipe_methods", "pattern_search"),
    "three short runs": Method("recipe_methods", "three_short_runs"),
    "one rung, then top k": Method("plain_methods", "one_rung"),
    "Optuna TPE": Method("optuna_methods", "tpe"),
    "Optuna TPE, prior": Method("optuna_methods", "tpe_with_prior"),
    "Optuna GP": Method("optuna_methods", "gp", "torch"),
    "Optuna GP, prior": Method("optuna_methods", "gp_with_prior", "torch"),
    "Optuna TPE + Hyperband": Method("optuna_methods", "tpe_hyperband"),
    "Ray ASHA": Method("ray_asha", "asha", "ray"),
    "SMAC multi-fidelity": Method("smac_methods", "multi_fidelity", "smac"),
    "SMAC, prior": Method("smac_methods", "with_prior", "smac"),
    "NePS PriorBand": Method("neps_methods", "priorband", "neps"),
    "autolora, prior good": Method("prior_methods", "good", group="priors"),
    "autolora, prior medium": Method("prior_methods", "medium", group="priors"),
    "autolora, prior 10x too high": Method("prior_methods", "too_high", group="priors"),
    "autolora, prior 10x too low": Method("prior_methods", "too_low", group="priors"),
    "autolora, prior worst of many": Method("prior_methods", "worst", group="priors"),
    "no transfer": Method("ablation_methods", "no_transfer", group="ablations"),
    "no laws": Method("ablation_methods", "no_laws", group="ablations"),
    "no short runs": Method("ablation_methods", "no_short_runs", group="ablations"),
    "no early stop": Method("ablation_methods", "no_early_stop", group="ablations"),
    "no opening": Method("ablation_methods", "no_opening", group="ablations"),
    "promotion by rank": Method("ablation_methods", "promotion_by_rank", group="ablations"),
    "confirm": Method("ablation_methods", "confirm", group="ablations"),
    "curvature": Method("prior_methods", "curvature", group="ablations", families=("curves",)),
}


def in_group(group: Group) -> list[str]:
    return [name for name, method in METHODS.items() if method.group == group]


def traced(name: str, problem: Problem, budget: float, seed: int) -> list[Step]:
    """Everything that a method trains on a problem with so many full runs for each variant."""
    ledger = Ledger(problem, budget, seed)
    METHODS[name].run(ledger)
    return ledger.trace
