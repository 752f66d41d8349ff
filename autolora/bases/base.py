"""The frozen model that all trials of a process share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from autolora.bases.device import dispatched
from autolora.bases.limits import limits_of
from autolora.tasks.causal_lm.limits import Limits

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from autolora.bases.merged import Merged


@dataclass(frozen=True)
class Base:
    """A frozen causal language model on its device, and its tokenizer.

    Attributes:
        model, tokenizer: as loaded or given.
        device: of the inputs, and of the whole model unless its parts were dispatched to several.
        dtype: of most of its weights; some may be float32 on purpose.
        notes: lines for people about how it was loaded.
        merged: the adapter that was merged into it; None if there was none.
        revision: of the hub's repository that it was loaded from, as in ``from_pretrained``; None if none was named.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    notes: tuple[str, ...] = ()
    merged: Merged | None = None
    revision: str | None = None

    @cached_property
    def limits(self) -> Limits:
        """Which tokens and how many the model can take."""
        return limits_of(self.model)

    @cached_property
    def pad_token_id(self) -> int:
        """Padding is masked everywhere, so any token will do that the model has an embedding of."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None and token < (self.limits.vocabulary or math.inf):
                return int(token)
        return 0

    def autocast(self) -> AbstractContextManager[object]:
        """Context of a forward pass: bfloat16 if the base is, so that adapters in float32 cost no more."""
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def placed(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of a batch on the base's device."""
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """The base on the CPU for a while, so that a worker on the same machine has all of its device."""
        import torch

        if self.device.type == "cpu" or dispatched(self.model):
            yield
            return
        self.model.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            yield
        finally:
            self.model.to(self.device)

    def fingerprint(self) -> str:
        """A digest of the model's parameters and the adapter merged into them, the same on every device and dtype."""
        import torch

        digest = hashlib.sha256()
        for name, parameter in sorted(self.model.named_parameters()):
            sample = parameter.detach().flatten()[:16].to(torch.bfloat16).float().cpu()
            digest.update(f"{name} {tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
        if self.merged is not None:  # of the parameters, too few are looked at to see what an adapter changes
            digest.update(self.merged.digest().encode())
        return digest.hexdigest()[:16]

    @property
    def seeded_devices(self) -> list[torch.device]:
        """Devices beside the CPU whose generators a training draws from."""
        return [self.device] if self.device.type == "cuda" else []
