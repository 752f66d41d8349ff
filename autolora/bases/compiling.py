"""``torch.compile`` of a model's blocks while it trains: few large kernels in place of many small ones.

Blocks are compiled one by one, and not the model as a whole: they are alike, so a few graphs do for all of them. Rows
and tokens are symbols in a graph, so that no batch needs another one; a single row does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import TYPE_CHECKING

from autolora.bases.errors import ModelError
from autolora.bases.memory import out_of_memory
from autolora.errors import first_line

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

MOST_GRAPHS = 1024
"""Of one block's code in a process, for all kinds of adapters together: each variant and rank has some of its own."""
_COMPILERS = ("torch._dynamo.convert_frame", "torch._inductor.compile_fx")
"""Modules that are at work where something cannot be compiled, and not where what is compiled runs."""


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model of ``transformers``, which it also computes again for gradient checkpointing."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def check_compiling(model: nn.Module, device: torch.device) -> None:
    """Make sure that the blocks of a model can be compiled, as far as that can be told without doing so.

    Raises:
        ModelError: the model has no blocks that are known here, or no compiler works for the device.
    """
    import torch

    if not blocks_of(model):
        raise ModelError(
            f"training.compile is true, but {type(model).__name__} has no blocks (GradientCheckpointingLayer of "
            "transformers) to compile: set it to false"
        )

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    try:
        torch.compile(doubled)(torch.ones(8, device=device))
    except Exception as error:  # of the compiler, of finding it, or of a torch that cannot compile: whatever it is
        if out_of_memory(error):
            raise
        raise ModelError(
            f"training.compile is true, but nothing can be compiled for {device} here ({first_line(error)}): set it to "
            "false, or install what torch.compile needs: a C++ compiler such as g++, and on a GPU Triton"
        ) from error


def graphs() -> int:
    """Graphs that this process has compiled."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@contextmanager
def compiled(model: PeftModel, title: str) -> Iterator[None]:
    """Context in which the blocks of a model are compiled, each graph when it is first needed.

    What is computed is the same but for rounding; dropout draws the same numbers. Graphs are kept in the process, so
    another adapter of the same variant and rank finds them.

    Args:
        model: with its adapter.
        title: of the adapter, for the error.

    Raises:
        ModelError: something in it cannot be compiled.
    """
    import torch
    import torch._dynamo
    import torch._inductor.config
    from torch._inductor.runtime.cache_dir_utils import cache_dir as default_cache_dir

    base: PreTrainedModel = model.get_base_model()
    blocks = blocks_of(base)
    own = [block._compiled_call_impl for block in blocks]
    limits: dict[str, object] = {"recompile_limit": MOST_GRAPHS, "accumulated_recompile_limit": MOST_GRAPHS}
    try:
        for block in blocks:
            # As a whole: torch would leave parts, or all beyond the limit, uncompiled without a word.
            block._compiled_call_impl = torch.compile(block._call_impl, dynamic=True, fullgraph=True)
        with torch._dynamo.config.patch(limits), torch._inductor.config.patch(fallback_random=True):
            yield
    except Exception as error:
        if out_of_memory(error) or not _of_a_compiler(error):
            raise
        said = f"{type(error).__name__}: {first_line(error)}"
        if isinstance(error.__cause__ or error.__context__, (ImportError, OSError)) or "ImportError" in said:
            raise ModelError(
                f"training.compile is true, but what torch has compiled before cannot be read ({said}); a process that "
                f"was killed may have left half a file. Remove the folder {default_cache_dir()} and rerun the same "
                "command"
            ) from error
        raise ModelError(
            f"training.compile is true, but the blocks of {type(base).__name__} with {title} cannot be compiled "
            f"({said}): set it to false, or leave the variant out of variants"
        ) from error
    finally:
        for block, before in zip(blocks, own, strict=True):
            block._compiled_call_impl = before


def _of_a_compiler(error: Exception) -> bool:
    """Whether it was raised while something was compiled. Not all those errors are of torch's own class."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException) or any(
        frame.f_globals.get("__name__") in _COMPILERS for frame, _ in walk_tb(error.__traceback__)
    )
