"""AdamW and its relatives, whose weight decay is decoupled: their best learning rates are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from autolora.adapters.groups import Group

Name = Literal["adamw", "amsgrad", "nadam", "radam"]
_TORCH: Mapping[str, tuple[str, Mapping[str, bool]]] = MappingProxyType(
    {
        "adamw": ("AdamW", {"fused": True}),
        "amsgrad": ("AdamW", {"fused": True, "amsgrad": True}),
        "nadam": ("NAdam", {"decoupled_weight_decay": True}),
        "radam": ("RAdam", {"decoupled_weight_decay": True}),
    }
)
"""Class in ``torch.optim`` and what makes it, by name."""


@dataclass(frozen=True)
class Optimizer:
    """What makes an optimizer beside learning rate and weight decay.

    Attributes:
        name: "adamw"; "amsgrad": AdamW with the largest second moment so far; "nadam": with Nesterov momentum;
            "radam": rectified.
        beta1, beta2: decay of the first and of the second moment.
        epsilon: added to the root of the second moment.
    """

    name: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def over(self, groups: Sequence[Group], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """The optimizer over groups of parameters."""
        import torch

        kind, options = _TORCH[self.name]
        made: torch.optim.Optimizer = getattr(torch.optim, kind)(
            list(groups),
            lr=learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=weight_decay,
            **options,
        )
        return made

    @property
    def source(self) -> tuple[str, str]:
        """Its class and its keywords as Python, but for learning rate and weight decay."""
        kind, options = _TORCH[self.name]
        further = "".join(f", {key}={value}" for key, value in options.items() if key != "fused")
        return f"torch.optim.{kind}", f"betas=({self.beta1!r}, {self.beta2!r}), eps={self.epsilon!r}{further}"

    @property
    def settings(self) -> dict[str, float]:
        """Betas and epsilon by the names of ``transformers.TrainingArguments``, those that are not AdamW's own."""
        found = {"adam_beta1": self.beta1, "adam_beta2": self.beta2, "adam_epsilon": self.epsilon}
        usual = (ADAMW.beta1, ADAMW.beta2, ADAMW.epsilon)
        return {key: value for (key, value), other in zip(found.items(), usual, strict=True) if value != other}


ADAMW = Optimizer()
KEYS = ("optimizer", "adam_beta1", "adam_beta2", "adam_epsilon")
"""What a specification calls them, in their order."""
