"""The frozen model that all trials of a process share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

from autolora.bases.device import dispatched
from autolora.bases.limits import limits_of
from autolora.tasks.causal_lm.limits import Limits

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from autolora.bases.merged import Merged


@dataclass(frozen=True)
class Reading:
    """How to read with a model.

    Attributes:
        masked: rows padded on the right need an attention mask. A causal model needs none, as no token sees what is
            behind it, unless it takes its positions from the mask; without one, attention may use faster kernels.
        apart: the head can run on target tokens alone, see :mod:`autolora.head`.
        joined: rows can stand one behind the other in one row, told apart by their positions.
    """

    masked: bool = True
    apart: bool = False
    joined: bool = False


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
        reading: the shortcuts that it can be read with, see :mod:`autolora.bases.reading`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    notes: tuple[str, ...] = ()
    merged: Merged | None = None
    revision: str | None = None
    reading: Reading = Reading()

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

    def plain_tokens(self) -> Iterator[int]:
        """Tokens that the model has an embedding of and that mean nothing special, in order."""
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        ids = range(self.limits.vocabulary) if self.limits.vocabulary else count()
        return (token for token in ids if token not in special)

    def autocast(self) -> AbstractContextManager[object]:
        """Context of a forward pass: bfloat16 if the base is, so that adapters in float32 cost no more."""
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    @contextmanager
    def checkpointing(self, wanted: bool) -> Iterator[None]:
        """Context in which training computes activations again in the backward pass instead of keeping them, or keeps
        them. What is computed is the same (Chen et al., arXiv 1604.06174).
        """
        if wanted == self.model.is_gradient_checkpointing:
            yield
            return
        self._checkpoint(wanted)
        try:
            yield
        finally:
            self._checkpoint(not wanted)

    def _checkpoint(self, wanted: bool) -> None:
        if wanted:
            # The reentrant kind gives no gradient where the inputs of a block need none, as with a frozen embedding.
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_disable()

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
