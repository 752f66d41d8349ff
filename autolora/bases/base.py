"""The frozen model that all trials of a process share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from typing import TYPE_CHECKING

from autolora.adapters import factors
from autolora.adapters.statistics import half_precision
from autolora.bases.aside import digest, empty, fill
from autolora.bases.device import dispatched, dtype_name, placed_on
from autolora.bases.errors import ModelError
from autolora.bases.limits import limits_of
from autolora.bases.memory import Weights, collected, exceeded, out_of_memory
from autolora.bases.packed import bits_held
from autolora.tasks.causal_lm.limits import Limits

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from autolora.bases.merged import Merged


_SWITCH, _FUNCTION = "gradient_checkpointing", "_gradient_checkpointing_func"
"""Attributes of modules of ``transformers``: whether they compute activations again, and what does so."""


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
        digest: of the parameters before they were rounded to float16, see :func:`fingerprint`; None means that they
            were not.
        again: loads the same model once more, to the same devices; None if it is an object of the user's.
        left: of a base whose parameters were dropped, its fingerprint, and a digest of all bits; empty while
            they are here.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    notes: tuple[str, ...] = ()
    merged: Merged | None = None
    revision: str | None = None
    reading: Reading = Reading()
    digest: str | None = None
    again: Callable[[], PreTrainedModel] | None = None
    left: list[str] = field(default_factory=list, init=False, compare=False, repr=False)

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

    @cached_property
    def bits(self) -> int | None:
        """Bits of the packed linear layers: 4 or 8, or None if none is packed."""
        return bits_held(self.model)

    @property
    def in_half(self) -> bool:
        """Whether it has 16 bits, and so runs under :meth:`autocast`."""
        return dtype_name(self.dtype) in ("bfloat16", "float16")

    def autocast(self) -> AbstractContextManager[object]:
        """Context of a forward pass: in 16 bits if the base is, so that adapters in float32 cost no more."""
        return half_precision(self.device, self.dtype)

    @contextmanager
    def fast_matmuls(self) -> Iterator[None]:
        """Context of training and evaluation: matrix products of a float32 base use TF32 where CUDA has it.

        The setting is the process's, and is restored. It also holds for backward passes, which run outside
        :meth:`autocast`. What a user has chosen beforehand stays.
        """
        import torch

        if self.device.type != "cuda" or self.dtype != torch.float32 or not _full_precision_matmuls():
            yield
            return
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision("highest")

    @contextmanager
    def memory_for(self, doing: str) -> Iterator[None]:
        """Context of what must fit into memory for a study to start or go on.

        Args:
            doing: what is done, as in "generating from the first prompt".

        Raises:
            ModelError: memory has run out in it; says what the weights take, what the device has, and what to do.
        """
        try:
            yield
            return
        except (RuntimeError, MemoryError, OSError) as error:
            if not out_of_memory(error):
                raise
            answer = exceeded(doing, self.device, Weights.of(self.model, self.dtype, self.bits), error)
        collected()
        raise answer

    @cached_property
    def _checkpointable(self) -> list[nn.Module]:
        """Modules that can compute their activations again; they carry the switch of ``transformers``."""
        return [module for module in self.model.modules() if hasattr(module, _SWITCH)]

    @property
    def can_checkpoint(self) -> bool:
        """Whether the model can compute activations again instead of keeping them."""
        return bool(self.model.supports_gradient_checkpointing and self._checkpointable)

    @property
    def checkpoints(self) -> bool:
        """Whether it does so now, as a model of the user's may have been set to."""
        return any(getattr(module, _SWITCH) for module in self._checkpointable)

    @contextmanager
    def checkpointing(self, wanted: bool) -> Iterator[None]:
        """Context in which training computes activations again in the backward pass instead of keeping them, or keeps
        them. What is computed is the same (Chen et al., arXiv 1604.06174).

        It is always the non-reentrant kind. With the other, what a module keeps aside in a forward pass, as a mixture
        of experts does with its balance, has no gradient.
        """
        if not wanted and not self.checkpoints:
            yield
            return
        from torch.utils.checkpoint import checkpoint

        ours = {_SWITCH: wanted, _FUNCTION: partial(checkpoint, use_reentrant=False)}
        modules = map(vars, self._checkpointable)
        before = [(attributes, {key: attributes[key] for key in ours if key in attributes}) for attributes in modules]
        for attributes, _ in before:
            attributes.update(ours)
        try:
            yield
        finally:
            for attributes, own in before:
                for key in ours:
                    del attributes[key]
                attributes.update(own)

    def placed(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of a batch on the base's device; a CUDA device copies them without being waited for."""
        if self.device.type != "cuda":
            return {name: tensor.to(self.device) for name, tensor in batch.items()}
        # From pinned memory, which stays reserved until its copy is done. Pageable memory would be waited for.
        pinned = {name: tensor.pin_memory() if tensor.is_cpu else tensor for name, tensor in batch.items()}
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in pinned.items()}

    def set_aside(self) -> None:
        """Leave device and memory to workers on the same machine, until :meth:`recall`.

        What can be loaded again is dropped, factorizations of it included. A model object of the user's goes to the
        CPU, unless its parts were dispatched to devices or are packed.

        Raises:
            ModelError: the CPU has no memory for a model object.
        """
        if self.left:
            return
        factors.forget(self.model)
        if self.again is not None:
            self.left[:] = self.fingerprint(), digest(self.model)
            empty(self.model)
        elif self.device.type != "cpu" and not dispatched(self.model) and not self.bits:
            with self.memory_for("moving it to the CPU"):
                self.model.to("cpu")
        collected()

    def recall(self) -> None:
        """Have the base where it was before :meth:`set_aside`; nothing happens if it is there.

        Raises:
            ModelError: the device has no memory for it, or it cannot be loaded again, or is another model by now.
        """
        if self.left:
            assert self.again is not None
            with self.memory_for("loading it again"):
                fresh = self.again()
            if digest(fresh) != self.left[1]:
                raise ModelError(
                    f"model: {self.model.name_or_path} holds other weights than when it was loaded before. Completed "
                    "work is saved. Put the weights back and rerun the same command"
                )
            fill(self.model, fresh)
            self.left.clear()
        elif self.device.type != "cpu" and not dispatched(self.model) and not self.bits:
            with self.memory_for("moving it back to its device"):
                self.model.to(self.device)

    def fingerprint(self) -> str:
        """A digest of the model's parameters and the adapter merged into them, the same on every device and dtype."""
        return self.left[0] if self.left else self.digest or fingerprint(self.model, self.merged)

    @property
    def seeded_devices(self) -> list[torch.device]:
        """Devices beside the CPU whose generators a training draws from."""
        if not dispatched(self.model):
            return [self.device] if self.device.type == "cuda" else []
        return sorted((each for each in placed_on(self.model) if each.type == "cuda"), key=str)


def fingerprint(model: PreTrainedModel, merged: Merged | None = None) -> str:
    """A digest of a model's parameters and of the adapter merged into them.

    It is the same in float32 and in bfloat16. Rounding to float16 first gives other parameters.
    """
    import torch

    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        sample = parameter.detach().flatten()[:16].to(torch.bfloat16).float().cpu()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
    if merged is not None:  # of the parameters, too few are looked at to see what an adapter changes
        digest.update(merged.digest().encode())
    return digest.hexdigest()[:16]


def _full_precision_matmuls() -> bool:
    """Whether float32 matrix products are exact, as PyTorch has them by default."""
    import torch

    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # chosen by ``torch.backends.cuda.matmul.fp32_precision``, which this older call does not read
        return False
