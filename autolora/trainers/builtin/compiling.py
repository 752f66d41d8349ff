"""Compiled training: which variants can be, found out before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from autolora.bases import ModelError
from autolora.bases.compiling import compiled, graphs
from autolora.space import Config, Space, searchable
from autolora.trainers.builtin.workbench import Workbench
from autolora.variants import registry

if TYPE_CHECKING:
    from peft import PeftModel

ROWS = 2
"""Of a pass: with one, torch would compile for one row alone."""
PLAIN = "lora"
"""Stands for all variants whose step is its own."""


def compiling(bench: Workbench, adapted: PeftModel, variant: str, config: Config) -> AbstractContextManager[None]:
    """Context in which an attached model is compiled, if the specification asks for it."""
    if not bench.training.compile:
        return nullcontext()
    return compiled(adapted, f"{variant}, rank {config.rank}{bench.layers_in_words(config)},")


def check_compiled(bench: Workbench, variants: Sequence[str], space: Space) -> None:
    """Take rows of two lengths through each kind of adapter, compiled, forward and backward.

    The graphs stay in the process, so for the largest rank a trial in it finds them.

    Raises:
        ModelError: naming the variant that cannot be compiled, or only for each length of rows again.
    """
    import torch

    # Torch takes two equal sizes for one, so no pass has as many rows as tokens.
    rows = min(ROWS, bench.training.micro_batch or ROWS)
    order = np.argsort(bench.data.train.lengths, kind="stable")
    longer = order[bench.data.train.lengths[order] > rows]
    order = longer if len(longer) >= rows else order
    base, asked = bench.base, bench.training.gradient_checkpointing
    for name in dict.fromkeys(name if registry.get(name).own_step else PLAIN for name in variants):
        config = searchable.largest(space, registry.get(name))
        with torch.random.fork_rng(bench.base.seeded_devices), bench.attached(name, config, seed=0) as adapted:
            adapted.train()
            with (
                base.memory_for(f"compiling {name} (training.compile)"),
                base.fast_matmuls(),
                base.checkpointing(base.checkpoints if asked == "auto" else asked),
                compiling(bench, adapted, name, config),
            ):
                _pass(bench, adapted, order[:rows])
                before = graphs()
                _pass(bench, adapted, order[-rows:])
            if graphs() > before:
                raise ModelError(
                    f"training.compile is true, but with {name} the blocks of {type(bench.base.model).__name__} are "
                    "compiled again for rows of another length: set it to false"
                )


def _pass(bench: Workbench, adapted: PeftModel, rows: np.ndarray) -> None:
    from autolora.head import summed_loss

    batch = bench.base.placed(bench.batches.read(rows))
    with bench.base.autocast():
        loss = summed_loss(adapted, batch, bench.base.reading.apart)
    bench.accelerator.backward(loss)
