"""The GPUs that a process sees, against those that it is to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from autolora.spec import Spec


class DevicesError(AutoloraError, RuntimeError):
    """There are fewer GPUs than were asked for."""


def check_cards(spec: Spec) -> None:
    """Refuse to train with more GPUs than this process sees.

    Raises:
        DevicesError: there are too few.
        ModelError: the model cannot be spread, see :func:`autolora.bases.device.cards_for`.
    """
    from autolora.bases.device import cards_for, visible_cards

    asked = int(spec.resources.gpu or 0)
    if spec.trainer.own_process:
        from autolora.trainers.command.errors import CommandError
        from autolora.trainers.command.place import shown_cards

        try:
            shown_cards(spec.resources.gpu)
        except CommandError as error:
            raise DevicesError(str(error)) from None
        return
    if asked > 1 and isinstance(spec.model, str) and cards_for(spec) < asked:
        there = visible_cards()
        raise DevicesError(
            f"resources.gpu is {asked}, which spreads the model over {asked} GPUs, and this process sees {there}: "
            f"set resources.gpu to {max(there, 1)}, make more GPUs visible (CUDA_VISIBLE_DEVICES), or use "
            f"--executor ray on a cluster that has a node with {asked}"
        )


def check_alone(spec: Spec) -> None:
    """Refuse what one process on one machine cannot do.

    Raises:
        DevicesError: several nodes are asked for.
    """
    if spec.resources.nodes > 1:
        raise DevicesError(
            f"resources.nodes is {spec.resources.nodes}, and this is one machine: use --executor ray on a cluster that "
            "has them, or set resources.nodes to 1"
        )


def idle_cards(spec: Spec) -> list[str]:
    """A line on GPUs that one process leaves idle, and how to use them; empty if there are none."""
    from autolora.bases.device import cards_for, dispatched, visible_cards

    there = visible_cards()
    if spec.trainer.own_process or spec.model is None or not spec.training.device.startswith(("auto", "cuda")):
        return []
    used = cards_for(spec) if isinstance(spec.model, str) or not dispatched(spec.model) else there
    if there <= used:
        return []
    return [
        f"devices: {used} of {there} GPUs {'is' if used == 1 else 'are'} used; --executor ray trains trials on all of "
        'them at once (pip install "autolora-tune[ray]"), resources.gpu above 1 spreads a model that one cannot hold'
    ]
