"""Loss scaling: on a float16 base small gradients would be rounded to zero, and large ones overflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from autolora.bases import Base

FIRST = 2.0**16
"""Scale of a run's first step, as of PyTorch's ``GradScaler``, which halves it at an overflow and doubles it after 2000
steps without one."""
LEAST = 1.0
"""A run whose gradients overflow at this scale has diverged: their true values exceed the range of float16."""


class Scaler:
    """No scaling: what float32 and bfloat16 bases need, whose gradients have the range of float32."""

    def early(self, share: float) -> float:
        """Factor of gradients that are computed along with a loss, before it is multiplied by a share and scaled."""
        return 1.0

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to take the backward pass of."""
        return loss

    def unscale(self, optimizer: torch.optim.Optimizer) -> bool:
        """Make the gradients those of the loss itself, once a step's backward passes are done.

        Returns:
            Whether the step can be taken. If not, gradients have overflowed: skip it, and go on with the next.
        """
        return True

    @property
    def exhausted(self) -> str | None:
        """Why no scale is left to try, in words; None if the run can go on."""
        return None

    def state(self) -> dict[str, float]:
        """What :meth:`restore` needs so that a cut run goes on as an uncut one; empty if nothing."""
        return {}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a state; an empty one, as of a run that began in another dtype, changes nothing."""


class LossScaler(Scaler):
    """Scales the loss of a float16 base by a power of two that falls with every overflow.

    Args:
        device: of the base.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self._scaler = torch.amp.GradScaler(device.type, init_scale=FIRST)
        self._scale = FIRST  # as of the scaler's own, which lives on the device
        self._exhausted = False

    def early(self, share: float) -> float:
        return self._scale * share

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizer: torch.optim.Optimizer) -> bool:
        self._scaler.unscale_(optimizer)
        self._scaler.update()  # not its step(), since gradients are clipped before that
        before, self._scale = self._scale, float(self._scaler.get_scale())  # the one read of the device
        overflowed = self._scale < before
        self._exhausted = overflowed and before <= LEAST
        return not overflowed

    @property
    def exhausted(self) -> str | None:
        if not self._exhausted:
            return None
        return f"the gradients overflowed float16 with the loss scaled by {LEAST:g}, the least"

    def state(self) -> dict[str, float]:
        return dict(self._scaler.state_dict())

    def restore(self, state: Mapping[str, float]) -> None:
        if state:
            self._scaler.load_state_dict(dict(state))
            self._scale = float(state["scale"])


def scaler_for(base: Base) -> Scaler:
    """The scaling that the training of a base needs."""
    import torch

    return LossScaler(base.device) if base.dtype == torch.float16 else Scaler()
