"""lambda_max of the joint {A, B} block of single layers at initialization, per variant: exact, or fast.

Where a variant's curvature is higher than plain LoRA's, its best learning rate is lower (LR-matters, arXiv 2602.04998).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from autolora import variants as registry
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.targets import DEFAULT, linear_layers
from autolora.errors import AutoloraError, closest

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from autolora.adapters.targets import LinearLayer
    from autolora.priors.kfac import Start

    Batch = Mapping[str, Tensor]
    Estimator = Callable[[PeftModel, str], float]

STATISTICS_BYTES = 2 << 30
"""Most memory that the fast method's statistics take at once, unless those of one layer are larger."""
EXACT_BLOCKS = 6
"""Blocks of the exact method where none are named: of different matrix types first, then of different depths."""


class CurvatureError(AutoloraError, ValueError):
    """The curvature cannot be had as asked for; the message names the argument."""


@dataclass(frozen=True)
class Curvature:
    """Largest eigenvalue of the loss Hessian in {A, B} of one layer at a time, at initialization; in what trains there
    where there are no such factors.

    Attributes:
        per_block: by module name.
        per_type: median over the blocks of each matrix type, the last part of the name (``q_proj``, ...).
        median: over all blocks. Types differ by more than variants do: compare variants type by type.
    """

    per_block: Mapping[str, float]

    @property
    def per_type(self) -> dict[str, float]:
        kinds = dict.fromkeys(matrix_type(block) for block in self.per_block)
        return {kind: median(self.of_type(kind)) for kind in kinds}

    def of_type(self, kind: str) -> list[float]:
        """The blocks' values of one matrix type, in the model's order."""
        return [value for block, value in self.per_block.items() if matrix_type(block) == kind]

    @property
    def median(self) -> float:
        return median(self.per_block.values())


def curvature(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    variants: Sequence[str],
    rank: int = 8,
    alpha: float | None = 8.0,
    method: Literal["kfac", "lanczos"] = "kfac",
    blocks: Sequence[str] | None = None,
    seed: int = 0,
    start_batches: Sequence[Batch] | None = None,
    adapter: AdapterSpec = DEFAULT,
) -> dict[str, Curvature]:
    """Curvature of LoRA variants at initialization.

    Args:
        model: a causal language model without adapters; it is as before afterwards.
        batches: input_ids, labels and attention_mask, each (batch, seq), on the model's device. The loss is averaged
            over all their target tokens, as in training.
        variants: registered names.
        rank, alpha: of the adapters; alpha None: whatever makes s = 1.
        method: "kfac": one pass over the batches for all variants, then closed forms (:mod:`autolora.priors.kfac`);
            several passes where the statistics of all the blocks exceed STATISTICS_BYTES.
            "lanczos": exact, by Hessian-vector products (:mod:`autolora.priors.lanczos`): dozens of passes a block.
        blocks: module names; None: all, for "lanczos" six.
        seed: of the adapters' initialization.
        start_batches: what data-aware variants start from, as in training; None: ``batches``.
        adapter: which layers carry an adapter; the curvature is that of linear layers, so experts get none here.

    Returns:
        A :class:`Curvature` per variant.

    Raises:
        CurvatureError: an unknown method or block, or no batches.
        VariantError: an unknown variant, or one that cannot be attached so.
    """
    from autolora.adapters.attachment import attachment
    from autolora.adapters.statistics import memory_groups

    there = linear_layers(model, adapter)
    blocks_there = list(there)
    if not blocks_there:
        raise CurvatureError("adapter names no linear layer: curvature is measured on these, not on experts")
    alone = AdapterSpec(target_modules=tuple(blocks_there))
    unknown = [block for block in blocks or () if block not in blocks_there]
    if unknown:
        close = closest(unknown[0], blocks_there)
        hint = f"; did you mean {close!r}?" if close else ""
        raise CurvatureError(f"blocks: {unknown[0]!r} is no linear layer of the model{hint}")
    if not batches:
        raise CurvatureError("batches is empty: curvature needs a sample of tokenized examples")
    if method not in ("kfac", "lanczos"):
        raise CurvatureError(f"method={method!r} must be 'kfac' or 'lanczos'")
    fast = method == "kfac"
    chosen = list(blocks or (blocks_there if fast else spread_blocks(blocks_there, EXACT_BLOCKS)))
    sizes = _statistics_bytes(there)
    groups = memory_groups({block: sizes[block] for block in chosen}, STATISTICS_BYTES) if fast else [chosen]
    starts = [registry.get(name) for name in variants]
    for variant in starts:
        if fast and not variant.factored:
            raise CurvatureError(
                f"variants: {variant.name} trains no factors A and B, whose curvature the fast method gives in closed "
                "form; method='lanczos' takes it as it is"
            )
    found: dict[str, dict[str, float]] = {variant.name: {} for variant in starts}
    for group in groups:
        estimate = _fast(model, batches, group, seed) if fast else _exact(batches, seed)
        for variant in starts:
            scale = alpha if alpha is not None else variant.traits.unit_alpha(rank)
            sample = batches if start_batches is None else start_batches
            adapted = variant.attach(model, rank=rank, alpha=scale, batches=sample, horizon=1, seed=seed, adapter=alone)
            try:
                layers = attachment(adapted).layers  # without those that a variant leaves out
                found[variant.name] |= {block: estimate(adapted, block) for block in group if block in layers}
            finally:
                registry.detach(adapted)
        del estimate  # with its statistics, before the next group's are collected
    return {name: Curvature(per_block) for name, per_block in found.items()}


def matrix_type(block: str) -> str:
    return block.rsplit(".", 1)[-1]


def spread_blocks(layers: Sequence[str], count: int) -> list[str]:
    """So many blocks: every matrix type before any twice, depths spread evenly within a type."""
    by_type: dict[str, list[str]] = {}
    for block in layers:
        by_type.setdefault(matrix_type(block), []).append(block)
    quota = dict.fromkeys(by_type, 0)
    for place in range(min(count, len(layers))):
        open_types = [kind for kind in by_type if quota[kind] < len(by_type[kind])]
        quota[min(open_types, key=lambda kind: (quota[kind], place))] += 1
    chosen = {
        blocks[(2 * index + 1) * len(blocks) // (2 * quota[kind])]
        for kind, blocks in by_type.items()
        for index in range(quota[kind])
    }
    return [block for block in layers if block in chosen]


def affordable_blocks(model: nn.Module, adapter: AdapterSpec = DEFAULT) -> list[str]:
    """As many blocks, spread over types and depths, as one pass of the fast method has memory for; at least one."""
    there = linear_layers(model, adapter)
    sizes, layers = _statistics_bytes(there), list(there)
    count = len(layers)
    while count > 1 and sum(sizes[block] for block in spread_blocks(layers, count)) > STATISTICS_BYTES:
        count -= 1
    return spread_blocks(layers, count)


def _statistics_bytes(layers: Mapping[str, LinearLayer]) -> dict[str, int]:
    """Bytes of each layer's S_x, S_g and G in float32."""
    return {
        name: 4 * (layer.in_features**2 + layer.out_features**2 + layer.in_features * layer.out_features)
        for name, layer in layers.items()
    }


def _fast(model: nn.Module, batches: Sequence[Batch], blocks: Sequence[str], seed: int) -> Estimator:
    from autolora.adapters.statistics import layer_statistics
    from autolora.priors.kfac import KfacBlock

    modules = {block: model.get_submodule(block) for block in blocks}
    fitted = {
        block: KfacBlock(statistics) for block, statistics in layer_statistics(model, modules, batches, seed).items()
    }
    return lambda adapted, block: fitted[block].curvature(_start(adapted, block))


def _exact(batches: Sequence[Batch], seed: int) -> Estimator:
    import torch

    from autolora.priors.hessian import hessian_product, twice_differentiable
    from autolora.priors.lanczos import largest_eigenvalue

    def estimate(adapted: PeftModel, block: str) -> float:
        parameters = _factors(adapted, block)
        with twice_differentiable(adapted):
            product = hessian_product(adapted, batches, parameters)
            size = sum(parameter.numel() for parameter in parameters)
            generator = torch.Generator().manual_seed(seed)
            return largest_eigenvalue(product, torch.randn(size, generator=generator).to(parameters[0])).value

    return estimate


def _factors(adapted: PeftModel, block: str) -> tuple[Tensor, ...]:
    """A and B of one layer of an attached model, or what else trains there."""
    from autolora.adapters.attachment import attachment

    parameters = attachment(adapted).layers[block].parameters
    factors = tuple(p for key, p in parameters.items() if key.startswith(("lora_A.", "lora_B.")))
    return factors or tuple(parameters.values())


def _start(adapted: PeftModel, block: str) -> Start:
    """A0, B0 and s of one layer of an attached model."""
    from autolora.adapters.attachment import attachment
    from autolora.priors.kfac import Start

    layer = attachment(adapted).layers[block]
    return Start(layer.a, layer.b, layer.scaling)
