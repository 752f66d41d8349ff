"""Acquisitions of each variant, kept for as long as they hold.

A model takes a tenth of a second to fit and its joint draws some tens of milliseconds. While little is known both are
made again whenever something happens: every score counts, and they cost nothing beside a training. Where much is known,
or many trials are under way, one score more changes little and many come in: then the model is kept until what was told
since is a small share of that, and its draws serve several decisions, each of which counts on those before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from autolora.search.acquisition import Acquisition, Acquisitions
from autolora.search.sampler import Sampler, View
from autolora.search.surrogate import MOST_SCORES, Surrogate
from autolora.search.trials import Event, Finished, Scored, TrialTable

SHARE = 0.02
"""Share of what is known and under way, beyond the MOST_SCORES that a model sees, that may be new to it."""


class Forecast:
    """Looks ahead on behalf of a policy.

    A forecast begun amid a study fits a model at once: where models are kept, a search that was interrupted may decide
    otherwise than it would have, as with the order in which results come in.

    Args:
        sampler: judges and proposes.
        table: everything that has happened; :meth:`note` is to be told of each further event.
    """

    def __init__(self, sampler: Sampler, table: TrialTable) -> None:
        self._sampler, self._table = sampler, table
        self._surrogate: Surrogate | None = None
        self._news = 0
        self._views: dict[str, View] = {}
        self._acquisitions: dict[str, tuple[float, Acquisitions]] = {}
        self._paused: dict[str, Mapping[int, Acquisition]] = {}

    def acquisitions(self, variant: str, room: float = math.inf) -> Acquisitions:
        """What the variant may train next, if a new trial may cost ``room`` full runs."""
        room = min(room, 1.0)  # none that is searched costs more
        if self._acquisitions.get(variant, (None,))[0] != room:
            self._acquisitions[variant] = room, self._view(variant).acquisitions(self._table, room)
        return self._acquisitions[variant][1]

    def paused_acquisitions(self, variant: str) -> Mapping[int, Acquisition]:
        """The forecasts of its paused trials, from the draws for all trials if those are kept, else for these."""
        if variant not in self._paused:
            if self._patience:
                self._paused[variant] = self._view(variant).paused_acquisitions(self._table)
            else:
                self._paused[variant] = self._sampler.paused_acquisitions(self._table, variant, self._model)
        return self._paused[variant]

    def note(self, event: Event) -> None:
        """Forget what the event, now in the table, has changed."""
        variant = self._table.trials[event.number].variant
        diverged = isinstance(event, Finished) and event.outcome == "diverged"
        self._news += diverged or isinstance(event, Scored)
        if self._news > self._patience:
            self._surrogate = None
        if self._surrogate is None or not self._patience:
            self._views.clear()
            self._acquisitions.clear()
            self._paused.clear()
        else:
            self._acquisitions.pop(variant, None)
            self._paused.pop(variant, None)
        if diverged:  # the view's candidates may lie beyond
            self._views.pop(variant, None)

    @property
    def _patience(self) -> float:
        """Scores and divergences that may be new to a model before there is another."""
        return SHARE * max(0, self._table.scored + len(self._table.pending()) - MOST_SCORES)

    @property
    def _model(self) -> Surrogate:
        if self._surrogate is None:
            self._surrogate, self._news = self._sampler.surrogate(self._table), 0
        return self._surrogate

    def _view(self, variant: str) -> View:
        view = self._views.get(variant)
        if view is None or not view.holds(self._table):
            view = self._views[variant] = self._sampler.view(self._table, variant, self._model)
        return view
