"""What a training step holds in memory, counted on tensors without values.

One forward and backward pass and one optimizer step run on fake tensors, as of a CPU. Nothing is computed, so a model
of any size takes seconds and next to no memory, and whatever the architecture, the variant and the optimizer allocate
is seen. What a kernel takes for itself is not.
"""

from __future__ import annotations

import copy
import logging
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from math import isqrt
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autolora.adapters.attachment import attachment
from autolora.adapters.kernels.branch import take_half
from autolora.adapters.memory import Growth
from autolora.bases.blank import without_logs
from autolora.bases.reading import variable_length
from autolora.head import summed_loss
from autolora.losses import model_inputs, one_sequence_a_row

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from autolora.variants import Variant

Model = TypeVar("Model", bound="nn.Module")
SHORTEST = 31
"""Fewest tokens that are traced: below, other sizes of a model are too easily multiples of the number."""
OPERATIONS = 700
"""Most calls of torch in the forward pass of a block, and as many outside of blocks, that are traced at a step's own
length. Usual blocks have 200. Some models loop over tokens, ten calls each, and a call with its backward pass takes a
millisecond."""
LENGTHS = (SHORTEST, 2 * SHORTEST)
"""Tokens from which the step of a model with more operations is extended."""


class ManyOperations(Exception):
    """A forward pass has more operations than are traced."""


@dataclass(frozen=True)
class Trace:
    """A traced step.

    Attributes:
        activations: what lives beside weights, gradients and the optimizer's state.
        trained: parameters that train.
        state_bytes: of the optimizer.
    """

    activations: Growth
    trained: int
    state_bytes: int


def without_values(model: Model, device: str = "meta", dtype: torch.dtype | None = None) -> Model:
    """A copy of a model whose parameters and buffers have shapes and no values.

    Args:
        model: left as it is, on any device.
        device: of the copy.
        dtype: of its frozen floating-point parameters; None: as they are.
    """

    def bare(tensor: torch.Tensor) -> torch.Tensor:
        frozen = isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad
        own = dtype if dtype is not None and frozen and tensor.is_floating_point() else tensor.dtype
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=own, device=device)
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        return torch.nn.Parameter(made, requires_grad=tensor.requires_grad) if is_parameter else made

    with _Copying(bare):
        # Parameters do not ask the mode. A memo says what stands for an object, by its id.
        return copy.deepcopy(model, {id(parameter): bare(parameter) for parameter in model.parameters()})


class _Copying(TorchFunctionMode):
    """Copies of tensors are made by a function: of buffers, and of others that modules hold."""

    def __init__(self, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._make = make

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = self._make(tensor)
        return memo[id(tensor)]


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass.

    Attributes:
        rows, length: of the batch, and tokens of each row, all of them targets.
        dtype: of the frozen weights; None: as they are.
        half: the dtype of autocast; None: none.
        checkpointing: layers are computed again in the backward pass (non-reentrant gradient checkpointing).
        masked: with an attention mask.
        apart: the head runs on chunks of the tokens, see :mod:`autolora.head`; otherwise on all at once.
    """

    rows: int
    length: int
    dtype: torch.dtype | None = None
    half: torch.dtype | None = None
    checkpointing: bool = False
    masked: bool = False
    apart: bool = True


def trace(adapted: PeftModel, variant: Variant, each: Pass) -> Trace:
    """Trace a training step.

    Of a model whose blocks repeat, two of few blocks are traced: every further block adds what the second ones did.
    A step of more than :data:`OPERATIONS` is traced at two short lengths, and what it holds is taken to grow with the
    tokens as it does between them.

    Args:
        adapted: the model with its adapter, on any device; left as it is.
        variant: of the adapter.
        each: the pass. Its length is in fact the next prime number of which no size of the model is a multiple.

    Raises:
        Exception: whatever the model, the variant or its optimizer raise on tensors without values.
    """
    sizes = {size for tensor in adapted.parameters() for size in tensor.shape}
    repeated = _Blocks.of(adapted)
    try:
        return _traced_at(adapted, variant, each, _prime(each.length, sizes), repeated, bounded=True)
    except ManyOperations:
        short, longer = (_prime(length, sizes) for length in LENGTHS)
    before = _traced_at(adapted, variant, each, short, repeated)
    after = _traced_at(adapted, variant, each, longer, repeated)
    growth = Growth.through((short, before.activations), (longer, after.activations), each.rows)
    return replace(after, activations=growth)


def _traced_at(
    adapted: PeftModel, variant: Variant, each: Pass, tokens: int, repeated: _Blocks | None, bounded: bool = False
) -> Trace:
    """A step at a number of tokens; raises ``ManyOperations`` if it is bounded and has more."""

    def bound(blocks: int) -> int | None:
        return OPERATIONS * (blocks + 1) if bounded else None

    if repeated is None:
        return _traced(adapted, variant, each, tokens, bound(_depth(adapted)))
    with _shortened(adapted, repeated.period):
        shallow = _traced(adapted, variant, each, tokens, bound(repeated.period))
    with _shortened(adapted, 2 * repeated.period):
        deep = _traced(adapted, variant, each, tokens, bound(2 * repeated.period))
    further = repeated.number / repeated.period - 2
    return replace(deep, activations=Growth(deep.activations.peaks, shallow.activations.peaks, further))


def _traced(adapted: PeftModel, variant: Variant, each: Pass, tokens: int, operations: int | None) -> Trace:
    """A step of a model as it is.

    Raises:
        ManyOperations: its forward pass has more than ``operations``; None: any number is traced.
    """
    with one_sequence_a_row(True), _quiet(), FakeTensorMode(allow_non_fake_inputs=True):
        model = without_values(adapted, "cpu", each.dtype)
        base: PreTrainedModel = model.get_base_model()
        if variable_length(base):
            base.set_attn_implementation("sdpa")  # which keeps as much, and runs on a CPU
        base.gradient_checkpointing_disable()  # a model of the user's may have it on
        if each.checkpointing:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if each.half is not None:
            take_half(attachment(model).layers.values())  # as a workbench does
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer = variant.optimizer(model, 1e-4)
        optimizer.step()  # makes its state
        state = list(_state(optimizer))
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        batch = _batch(each, tokens)
        resident = [*model.parameters(), *model.buffers(), *gradients, *state, *batch.values()]
        with LiveBytes(resident, each.rows, tokens) as live:
            with _Bounded(operations), torch.autocast("cpu", each.half, enabled=each.half is not None):
                loss = summed_loss(model, batch, each.apart) if each.apart else _whole_loss(model, batch)
            penalty = variant.penalty(model)
            (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
            del loss, penalty
            optimizer.step()
    return Trace(
        activations=live.growth(),
        trained=sum(parameter.numel() for parameter in trained),
        state_bytes=sum(tensor.untyped_storage().nbytes() for tensor in state),
    )


def _batch(each: Pass, tokens: int) -> dict[str, torch.Tensor]:
    """Rows of which every token is a target: with one label more, as the first is none."""
    labels = torch.zeros(each.rows, tokens + 1, dtype=torch.long)
    batch = {"input_ids": torch.zeros(each.rows, tokens, dtype=torch.long), "labels": labels}
    return {**batch, "attention_mask": torch.ones(each.rows, tokens, dtype=torch.long)} if each.masked else batch


def _whole_loss(model: PeftModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """:func:`autolora.head.summed_loss` with the head on all tokens, whose places are known here without values."""
    logits = model(**model_inputs(batch)).logits.flatten(0, 1)
    targets = batch["labels"][:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits.index_select(0, targets).float(), targets, reduction="sum")


class _Bounded(TorchFunctionMode):
    """Calls of torch are counted; :class:`ManyOperations` is raised beyond the limit, if there is one.

    They are counted where Python calls them. An error further inside, as of ``TorchDispatchMode``, ends the process
    where C++ saves a tensor for the backward pass.
    """

    def __init__(self, most: int | None) -> None:
        super().__init__()
        self._most, self._calls = most, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._calls += 1
        if self._most is not None and self._calls > self._most:
            raise ManyOperations
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Blocks:
    """The blocks of a language model, which repeat.

    Attributes:
        number: of blocks.
        period: number of blocks after which their kinds repeat.
    """

    number: int
    period: int

    @classmethod
    def of(cls, adapted: PeftModel) -> _Blocks | None:
        """None where they do not repeat more than twice, or cannot be told from others."""
        found = _block_lists(adapted)
        if len(found) != 1:
            return None
        [(_, _, blocks)] = found
        kinds = [_kind(block) for block in blocks]
        layer_types = getattr(_text_config(adapted), "layer_types", None)
        signs = list(zip(kinds, layer_types or [None] * len(kinds), strict=False))
        for period in range(1, (len(signs) - 1) // 2 + 1):
            if signs[period:] == signs[:-period]:
                return cls(len(signs), period)
        return None


def _block_lists(adapted: PeftModel) -> list[tuple[nn.Module, str, nn.ModuleList]]:
    """Lists of as many modules as the language model has blocks: where they are, and their names there."""
    number = _depth(adapted)
    return [
        (module, name, child)
        for module in adapted.modules()
        for name, child in module.named_children()
        if isinstance(child, torch.nn.ModuleList) and len(child) == number > 0
    ]


def _depth(adapted: PeftModel) -> int:
    """Blocks of the language model; 0 if its configuration does not name their number."""
    return getattr(_text_config(adapted), "num_hidden_layers", None) or 0


def _text_config(adapted: PeftModel) -> PretrainedConfig:
    base: PreTrainedModel = adapted.get_base_model()
    return base.config.get_text_config()


def _kind(block: nn.Module) -> tuple[object, ...]:
    """What is the same of blocks that are alike."""
    modules = tuple((name, type(module)) for name, module in block.named_modules())
    shapes = tuple((name, parameter.shape, parameter.dtype) for name, parameter in block.named_parameters())
    return modules, shapes


@contextmanager
def _shortened(model: PeftModel, number: int) -> Iterator[None]:
    """Of a model the first blocks alone, so that the others need not be copied."""
    [(owner, name, blocks)] = _block_lists(model)
    record = attachment(model)
    layers = record.layers
    setattr(owner, name, torch.nn.ModuleList(list(blocks)[:number]))
    try:
        left: set[object] = set(model.modules())
        record.layers = {name: layer for name, layer in layers.items() if layer.module in left}
        yield
    finally:
        setattr(owner, name, blocks)
        record.layers = layers


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch logs of an operation that needs values, what transformers logs, and warnings of deprecated
    names: the oldest transformers supported does not know the new ones."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, log.disabled = log.disabled, True
    try:
        with without_logs(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.disabled = was_disabled


def _grouped_product(
    left: torch.Tensor,
    right: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """What ``torch._grouped_mm`` makes, by shape: without values it takes bfloat16 alone, unlike with them.

    Args:
        left: (groups, m, k), or (m, k) where groups share out m, or k.
        right: (groups, k, n), or (k, n) where groups share out n, or k.
        offs: (groups,), where each group ends; None if both have groups of their own.
        bias: none is supported.
        out_dtype: None: that of ``left``.
    """
    own = left.shape[:-2] if right.dim() == left.dim() else ()
    groups = offs.shape if offs is not None and left.dim() == right.dim() == 2 else own
    return left.new_empty((*groups, left.shape[-2], right.shape[-1]), dtype=out_dtype)


def _state(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for own in optimizer.state.values():
        yield from (value for value in tree_leaves(dict(own)) if isinstance(value, torch.Tensor))


def _prime(length: int, sizes: set[int]) -> int:
    """The smallest prime number from a length on, and from ``SHORTEST`` on, that divides none of these sizes."""
    return next(
        number
        for number in count(max(length, SHORTEST))
        if _is_prime(number) and not any(size and size % number == 0 for size in sizes)
    )


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, isqrt(number) + 1))


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches the bytes of what is made inside and lives at once, by how they grow with rows and tokens.

    Sizes that are multiples of the number of tokens, a prime number, are taken to grow with it; multiples of its
    square, as scores of an attention that keeps them, with the square. What a model pads to sizes of its own counts as
    fixed, so for smaller batches the bytes are at most overstated.

    Args:
        resident: tensors that were there before, which do not count.
        rows, tokens: of the batch, and of each row.
    """

    def __init__(self, resident: Iterable[torch.Tensor], rows: int, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rows, self._tokens = rows, tokens
        self._live = [0, 0, 0]
        self._known = {tensor.untyped_storage()._cdata for tensor in resident}
        self._seen: set[tuple[int, int, int]] = set()

    def growth(self) -> Growth:
        """The most that lived at once."""
        a_token, a_square = self._rows * self._tokens, self._rows * self._tokens**2
        return Growth.of((fixed, linear / a_token, squared / a_square) for fixed, linear, squared in self._seen)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.nonzero.default:
            # Where the targets are: everywhere. Without values nobody could tell.
            made = args[0].new_zeros(args[0].numel(), args[0].dim(), dtype=torch.long)
        elif func is torch.ops.aten._grouped_mm.default:
            made = _grouped_product(*args, **(kwargs or {}))
        else:
            made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.device):
            return made
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        power = self._power(size)
        self._known.add(key)
        self._live[power] += size
        self._seen.add((self._live[0], self._live[1], self._live[2]))

        def gone() -> None:
            self._known.discard(key)
            self._live[power] -= size

        weakref.finalize(storage, gone)

    def _power(self, size: int) -> int:
        if size == 0 or size % self._tokens:
            return 0
        return 1 if size % self._tokens**2 else 2
