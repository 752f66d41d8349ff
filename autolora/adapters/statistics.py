"""What data says of a layer before training: its gradient, and second moments of its inputs and output gradients.

One pass over a small sample gives them for every layer at once. Data-aware variants start from them, and the
curvature prior (:mod:`autolora.priors.kfac`) predicts from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.layer import stored_weight
from autolora.losses import IGNORED, target_count, target_logits, token_losses

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    Batch = Mapping[str, Tensor]
    Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]

FIRST_SCALE, SCALE_STEP, LAST_SCALE = 2.0**16, 2.0**4, 2.0**-8
"""Factors of the loss in a backward pass through float16: the first, what it is divided by if a gradient overflows, and
the last. Without one, small gradients are rounded to zero."""


@dataclass(frozen=True)
class LayerStatistics:
    """Of one linear layer y = W x, W (m, n), for the loss averaged over the N target tokens of a sample.

    ``outputs (x) inputs`` is the nearest Kronecker product, after one power step (Van Loan and Pitsianis, 1993), to
    the Fisher matrix F = N sum_t g_t g_t^T (x) x_t x_t^T, where g_t = dL/dy at token t for labels drawn from the model.
    Each token's inputs count by the size of its gradient and the other way round: unweighted moments (K-FAC) suppose
    the two independent, but the tokens with the largest inputs often have next to no gradient.

    Attributes:
        gradient: G = dL/dW, (m, n) float32, for the true labels.
        inputs: S_x = sum |g|^2 x x^T / sum |g|^2, (n, n).
        outputs: S_g = N sum |x|^2 g g^T sum |g|^2 / sum |x|^2 |g|^2, (m, m): with this scale the trace is that of F.
    """

    gradient: Tensor
    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class FisherFactors:
    """K-FAC's factors of one layer y = W x, W (m, n), for the true labels; only the diagonal of the second.

    Attributes:
        gradient: G = dL/dW, (m, n), of the loss averaged over the sample's target tokens.
        inputs: Z = mean x x^T over the tokens, (n, n).
        outputs: mean g * g over the tokens, (m,), g being the gradient of the *summed* loss at a token's output.
        targets: target tokens in the sample.
    """

    gradient: Tensor
    inputs: Tensor
    outputs: Tensor
    targets: int


def layer_gradients(model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch]) -> dict[str, Tensor]:
    """dL/dW (m, n) of some layers, float32, from one pass over the batches; see :func:`layer_statistics`."""
    found = {name: _zeros(layer, *shape_of(layer)) for name, layer in layers.items()}
    targets = sum(map(target_count, batches))
    for name, x, g in _token_gradients(model, layers, batches):
        found[name].addmm_(g.T, x, alpha=1 / targets)
    return found


def fisher_factors(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch]
) -> dict[str, FisherFactors]:
    """K-FAC's factors of some layers, float32, from one pass over the batches; see :func:`layer_statistics`."""
    import torch

    shapes = {name: shape_of(layer) for name, layer in layers.items()}
    gradients = {name: _zeros(layer, *shapes[name]) for name, layer in layers.items()}
    inputs = {name: _zeros(layer, shapes[name][1], shapes[name][1]) for name, layer in layers.items()}
    outputs = {name: gradient.new_zeros(len(gradient)) for name, gradient in gradients.items()}
    tokens = dict.fromkeys(layers, 0)
    for name, x, g in _token_gradients(model, layers, batches):
        gradients[name].addmm_(g.T, x)
        inputs[name].addmm_(x.T, x)
        outputs[name] += torch.linalg.vector_norm(g, dim=0).square()
        tokens[name] += len(x)
    targets = sum(map(target_count, batches))
    return {
        name: FisherFactors(
            gradients[name] / targets,
            inputs[name] / max(1, tokens[name]),
            outputs[name] / max(1, tokens[name]),
            targets,
        )
        for name in layers
    }


def input_moments(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch], labeled: bool = False
) -> dict[str, Tensor]:
    """Mean x x^T (n, n) over the tokens that some layers see, float32, from one forward pass over the batches.

    Args:
        model, layers, batches: as for :func:`layer_statistics`.
        labeled: only tokens with a label count, not those of the prompt.
    """
    import torch

    found = {name: _zeros(layer, shape_of(layer)[1], shape_of(layer)[1]) for name, layer in layers.items()}
    tokens = dict.fromkeys(layers, 0)
    mask = torch.empty(0)

    def add(name: str) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = _kept(inputs[0].detach(), mask)
            found[name].addmm_(x.T, x)
            tokens[name] += len(x)

        return hook

    hooks = [layer.register_forward_hook(add(name)) for name, layer in layers.items()]
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                mask = attended(batch)
                if labeled:
                    mask = mask & (batch["labels"] != IGNORED)
                with training_precision(model):
                    model(input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask"), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found[name] / max(1, tokens[name]) for name in layers}


def labeled_input_moments(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch]
) -> dict[str, Tensor]:
    """:func:`input_moments` over the tokens with a label alone."""
    return input_moments(model, layers, batches, labeled=True)


def _token_gradients(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Inputs (tokens, n) and gradients (tokens, m) of the summed loss at the outputs, for each use of a layer."""
    with _recording(model, layers) as record:
        for batch in batches:
            with training_precision(model):
                losses, _, _ = token_losses(model, batch)
            yield from record.backward(losses.sum(), batch)
            del losses  # with its graph, before the next one is made


def layer_statistics(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch], seed: int = 0
) -> dict[str, LayerStatistics]:
    """Statistics of some layers: one forward pass over the batches, and two backward.

    Args:
        model: a causal language model, with or without adapters; its weights may be frozen, nothing of it changes.
        layers: linear layers of it, by any name; ``Conv1D`` counts as one. One that is used several times in a pass
            adds up its uses; one that no token reaches, as an expert may be, has zeros.
        batches: input_ids, labels and attention_mask, each (batch, seq).
        seed: of the labels drawn from the model.

    Returns:
        By the names of ``layers``, on the model's device. Beyond a backward pass it takes the memory of the result,
        4 (n n + m m + m n) bytes a layer, and of the layers' inputs and output gradients of one batch.
    """
    import torch
    from torch.nn.functional import cross_entropy

    targets = sum(map(target_count, batches))
    sums = {name: _Sums.of(layer) for name, layer in layers.items()}
    with _recording(model, layers) as record:
        generator = torch.Generator(record.device).manual_seed(seed)
        for batch in batches:
            with training_precision(model):
                logits, labels = target_logits(model, batch)
            loss = cross_entropy(logits, labels, reduction="sum") / targets
            for name, x, g in record.backward(loss, batch, retain_graph=True):
                sums[name].gradient.addmm_(g.T, x)
            drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
            loss = cross_entropy(logits, drawn, reduction="sum") / targets
            for name, x, g in record.backward(loss, batch):
                sums[name].add_moments(x, g)
            del logits, loss  # with their graph, before the next one is made
    return {name: total.statistics(targets) for name, total in sums.items()}


def memory_groups(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, in groups of at most ``limit`` bytes together, or of one that is larger."""
    groups: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if not groups or filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


@dataclass
class _Sums:
    """Sums over tokens."""

    gradient: Tensor
    inputs: Tensor
    outputs: Tensor
    of_g: float = 0.0
    of_both: float = 0.0

    @classmethod
    def of(cls, layer: nn.Module) -> _Sums:
        m, n = shape_of(layer)
        return cls(_zeros(layer, m, n), _zeros(layer, n, n), _zeros(layer, m, m))

    def add_moments(self, x: Tensor, g: Tensor) -> None:
        """x (tokens, n), g (tokens, m)."""
        of_x, of_g = (x * x).sum(1, keepdim=True), (g * g).sum(1, keepdim=True)
        self.inputs.addmm_((x * of_g).T, x)
        self.outputs.addmm_((g * of_x).T, g)
        self.of_g += float(of_g.sum())
        self.of_both += float((of_x * of_g).sum())

    def statistics(self, targets: int) -> LayerStatistics:
        """Zeros where no gradient reaches the layer."""
        if self.of_g > 0:
            self.inputs /= self.of_g
        if self.of_both > 0:
            self.outputs *= targets * self.of_g / self.of_both
        return LayerStatistics(self.gradient, self.inputs, self.outputs)


def shape_of(layer: nn.Module) -> tuple[int, int]:
    """(m, n): out_features and in_features."""
    from torch import nn

    if isinstance(layer, nn.Linear):  # the weight may be packed
        return layer.out_features, layer.in_features
    in_features, out_features = stored_weight(layer).shape  # of Conv1D
    return out_features, in_features


def _zeros(layer: nn.Module, rows: int, columns: int) -> Tensor:
    import torch

    return torch.zeros(rows, columns, device=stored_weight(layer).device)


class _Record:
    """Inputs and output gradients of the layers in the latest pass.

    Attributes:
        device: of the embeddings.
        in_float16: whether the model has weights in float16, so that gradients may overflow.
        scale: of the loss in the latest backward pass; 1 unless in float16.
    """

    def __init__(self, device: torch.device, in_float16: bool) -> None:
        self.device, self.in_float16 = device, in_float16
        self.scale = FIRST_SCALE if in_float16 else 1.0
        self._embeddings: Tensor
        self._uses: list[tuple[str, Tensor, Tensor]] = []

    def start(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Hook of the embeddings: gradients start here, so that frozen weights need none."""
        self._embeddings = output.detach().requires_grad_()
        return self._embeddings

    def keep(self, name: str) -> Hook:
        """Hook of a layer: each of its uses meets its own gradient."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach()
            if output.requires_grad:
                output.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient: self._uses.append((name, x, gradient.detach()))
                )

        return hook

    def backward(self, loss: Tensor, batch: Batch, retain_graph: bool = False) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Every use of a layer in the latest forward pass that a loss reaches.

        Yields:
            The layer's name, its inputs (tokens, n) and output gradients (tokens, m), padding left out, float32.
        """
        while not self._passed(loss * self.scale, retain_graph or self.in_float16) and self.scale > LAST_SCALE:
            self.scale /= SCALE_STEP
        mask = attended(batch)
        for name, x, g in self._uses:
            kept = _kept(g, mask)
            yield name, _kept(x, mask), kept if self.scale == 1 else kept / self.scale
        self._uses.clear()

    def _passed(self, loss: Tensor, retain_graph: bool) -> bool:
        """Take a backward pass; whether no gradient has overflowed, which is looked at in float16 alone."""
        import torch

        self._uses.clear()
        torch.autograd.grad(loss, [self._embeddings], retain_graph=retain_graph)  # its hooks see every layer
        return all(bool(g.isfinite().all()) for _, _, g in self._uses if g.dtype == torch.float16)


def attended(batch: Batch) -> Tensor:
    """Which tokens are no padding, (batch, seq)."""
    import torch

    return batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()


def _kept(values: Tensor, mask: Tensor) -> Tensor:
    """The unmasked tokens' rows, (tokens, features) float32; all where they are out of their places, as in experts."""
    kept = values[mask.to(values.device)] if values.shape[:-1] == mask.shape else values
    return kept.float().reshape(-1, values.shape[-1])


@contextmanager
def _recording(model: PreTrainedModel, layers: Mapping[str, nn.Module]) -> Iterator[_Record]:
    """Hooks that fill a record, in evaluation mode."""
    import torch

    embeddings: nn.Embedding = model.get_input_embeddings()
    in_float16 = any(parameter.dtype == torch.float16 for parameter in model.parameters())
    record = _Record(embeddings.weight.device, in_float16)
    hooks = [embeddings.register_forward_hook(record.start)]
    hooks += [layer.register_forward_hook(record.keep(name)) for name, layer in layers.items()]
    try:
        with evaluating(model), torch.enable_grad():
            yield record
    finally:
        for hook in hooks:
            hook.remove()


def training_precision(model: nn.Module) -> AbstractContextManager[object]:
    """Context of a forward pass as in training: under the autocast of 16 bits if there are weights of 16 bits.

    Without it, a model that keeps its norms in float32 would hand float32 to layers in 16 bits, which they refuse.
    """
    import torch

    narrow = next((p for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    if narrow is None:
        return half_precision(torch.device("cpu"), torch.float32)
    return half_precision(narrow.device, narrow.dtype)


def half_precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Autocast to bfloat16 or float16; switched off for any other dtype."""
    import torch

    half = dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(device.type, dtype if half else torch.bfloat16, enabled=half)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradient checkpointing, both of which go with the training mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
