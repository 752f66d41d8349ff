"""The GPUs that a process sees, against those that it is to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from autolora.spec import Spec


class DevicesError(AutoloraError, RuntimeError):
    """There are fewer GPUs than were asked for."""


def check_cards(spec: Spec) -> None:
    """Refuse to train where a base is to be spread over more GPUs than this process sees.

    Raises:
        DevicesError: there are too few.
        ModelError: the model cannot be spread, see :func:`autolora.bases.device.cards_for`.
    """
    from autolora.bases.device import cards_for, visible_cards

    asked = int(spec.resources.gpu or 0)
    if asked > 1 and isinstance(spec.model, str) and cards_for(spec) < asked:
        there = visible_cards()
        raise DevicesError(
            f"resources.gpu is {asked}, which spreads the model over {asked} GPUs, and this process sees {there}: "
            f"set resources.gpu to {max(there, 1)}, make more GPUs visible (CUDA_VISIBLE_DEVICES), or use "
            f"--executor ray on a cluster that has a node with {asked}"
        )


def idle_cards(spec: Spec) -> list[str]:
    """A line on GPUs that one process leaves idle, and how to use them; empty if there are none."""
    from autolora.bases.device import cards_for, dispatched, visible_cards

    there = visible_cards()
    if spec.model is None or not spec.training.device.startswith(("auto", "cuda")):
        return []
    used = cards_for(spec) if isinstance(spec.model, str) or not dispatched(spec.model) else there
    if there <= used:
        return []
    return [
        f"devices: {used} of {there} GPUs {'is' if used == 1 else 'are'} used; --executor ray trains trials on all of "
        'them at once (pip install "autolora-tune[ray]"), resources.gpu above 1 spreads a model that one cannot hold'
    ]
