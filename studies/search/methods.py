"""The methods of the benchmark, by name."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from ledger import Ledger, Step
from problem import Problem


@dataclass(frozen=True)
class Method:
    """Where a method is found, so that a library is loaded only where it is used.

    Attributes:
        module, function: of this folder; the function trains through a Ledger until its budget holds no more.
        needs: the package that must be installed, or None.
    """

    module: str
    function: str
    needs: str | None = None

    @property
    def missing(self) -> str | None:
        """The package that this method lacks here."""
        return self.needs if self.needs and importlib.util.find_spec(self.needs) is None else None

    @property
    def run(self) -> Callable[[Ledger], None]:
        found: Callable[[Ledger], None] = getattr(importlib.import_module(self.module), self.function)
        return found


METHODS = {
    "autolora": Method("own_methods", "with_laws"),
    "autolora, no prior": Method("own_methods", "without_prior"),
    "grid": Method("plain_methods", "grid"),
    "random": Method("plain_methods", "random_search"),
    "one rung, then top k": Method("plain_methods", "one_rung"),
    "Optuna TPE": Method("optuna_methods", "tpe"),
    "Optuna GP": Method("optuna_methods", "gp", "torch"),
    "Optuna TPE + Hyperband": Method("optuna_methods", "tpe_hyperband"),
    "Ray ASHA": Method("ray_asha", "asha", "ray"),
    "SMAC multi-fidelity": Method("smac_methods", "multi_fidelity", "smac"),
    "NePS PriorBand": Method("neps_methods", "priorband", "neps"),
}


def traced(name: str, problem: Problem, budget: float, seed: int) -> list[Step]:
    """Everything that a method trains on a problem with so many full runs for each variant."""
    ledger = Ledger(problem, budget, seed)
    METHODS[name].run(ledger)
    return ledger.trace
