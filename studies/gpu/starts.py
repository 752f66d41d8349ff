"""Seconds until an adapter is attached, on a few layers of a large model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autolora import variants
from autolora.trainers.memory import collected
from studies.gpu.models import SHAPES, Place
from studies.gpu.report import Case, Result
from studies.throughput.loops import RANK, clock_of

STARTS = {"lora": "plain LoRA: no SVD", "pissa": "PiSSA: leading SVD, subtracted from the base"}


@dataclass(frozen=True)
class Starts:
    """Which model, and how many of its layers are there."""

    shape: str
    layers: int


def cases(place: Place, asked: Starts) -> Iterator[Case]:
    """A case for each start."""
    for variant, title in STARTS.items():
        whole = SHAPES[asked.shape].layers

        def measure(variant: str = variant, whole: int = whole) -> Result:
            model = place.model(asked.shape, asked.layers).requires_grad_(False)
            clock = clock_of(place.device)
            began = clock()
            adapted = variants.get(variant).attach(model, rank=RANK, alpha=float(RANK))
            seconds = clock() - began
            matrices = sum(hasattr(module, "lora_A") for module in adapted.modules())
            del model, adapted
            collected()
            extrapolated = f"{seconds * whole / asked.layers:.3g} s for {whole} layers, extrapolated"
            return Result((str(matrices), f"{seconds:.3g}", extrapolated))

        names = (f"{title}, r = {RANK}", f"{asked.layers} of {whole} of {SHAPES[asked.shape].name}")
        yield Case("starts", names, measure)
