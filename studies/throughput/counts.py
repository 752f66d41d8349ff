"""What a training step asks of a device: reads that the host waits for, operators, and copies to another precision.

    python -m studies.throughput.counts            # writes counts.md beside this file; five minutes

Counted on a CPU, on the shipped model, batch 8. Unlike times, counts do not depend on the machine or on what else runs
there, and an accelerator is waited for where the host reads a result.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from autolora import bases, variants
from autolora import spec as specs
from autolora.space import Config
from autolora.trainers.builtin.stepping import Stepper
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from studies.throughput.commit import commit

SPEC: dict[str, Any] = {
    "model": "builtin:quickstart",
    "data": {"train": "builtin:quickstart/train.jsonl", "eval": "builtin:quickstart/test.jsonl", "eval_size": 8},
    "variants": ["lora"],
    "training": {"examples": 72, "max_length": 64, "device": "cpu"},
}
CONFIG = Config(1e-3, 8, 4, 4.0)
PASSES = {1: 8, 4: 2}
"""Rows of a pass, by how many passes make a batch."""
ATEN = torch.ops.aten
WAITING = (
    ATEN._local_scalar_dense.default,
    ATEN.nonzero.default,
    ATEN.masked_select.default,
    ATEN._unique2.default,
    ATEN.equal.default,
)
"""Operators whose result, or the shape of it, the host reads; of what training uses."""
BY_INDEX = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default)
"""Operators that do so where an index is a mask."""
READING = (Tensor.tolist, Tensor.numpy, Tensor.cpu)
"""Methods that read a whole tensor; no operator tells of them on a CPU."""
HEAD = (
    "| variant | reads, 1 pass | reads, 4 passes | operators | of the optimizer | copies in float32 | in bfloat16 |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


class Counts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts inside ``with``, forward and backward.

    Attributes:
        reads: results that the host reads, for which it would wait for an accelerator.
        operators: that were called, views included.
        casts: copies to another floating-point precision, by shape.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads, self.operators = 0, 0
        self.casts: Counter[tuple[int, ...]] = Counter()
        self._methods = _Methods(self)

    def __enter__(self) -> Counts:
        self._methods.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._methods.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operators += 1
        masks = func in BY_INDEX and any(index is not None and index.dtype == torch.bool for index in args[1])
        self.reads += masks or func in WAITING
        made = func(*args, **(kwargs or {}))
        if func is ATEN._to_copy.default and made.is_floating_point() and made.dtype != args[0].dtype:
            self.casts[tuple(made.shape)] += 1
        return made


class _Methods(TorchFunctionMode):
    """Adds :data:`READING` to the reads of some counts."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._counts.reads += func in READING
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Step:
    """Counts of one step: of its gradients, clipping included, and of the optimizer."""

    gradients: Counts
    optimizer: Counts

    @property
    def reads(self) -> int:
        """Of both."""
        return self.gradients.reads + self.optimizer.reads

    @property
    def casts(self) -> int:
        """Of both."""
        return self.gradients.casts.total() + self.optimizer.casts.total()


@contextmanager
def stepping(bench: Workbench, name: str) -> Iterator[Stepper]:
    """A variant in training, its batches read uncounted: they are made on the CPU wherever the model is."""
    read = bench.batches.read

    def uncounted(rows: Any) -> Any:
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return read(rows)

    with torch.random.fork_rng(devices=[]), bench.attached(name, CONFIG, seed=0) as adapted:
        variant = bench.variant(name, CONFIG)
        adapted.train()
        optimizer = variant.optimizer(adapted, CONFIG.learning_rate)
        bench.batches.read = uncounted  # type: ignore[method-assign]
        try:
            yield Stepper(bench, variant, CONFIG, 0, adapted, optimizer)
        finally:
            del bench.batches.read


def count(bench: Workbench, name: str, rows: int = 8, at: int = 2) -> Step:
    """Counts of a step, 0-based, of a variant with that many rows in a pass."""
    bench.training = bench.training.model_copy(update={"micro_batch": rows})
    with stepping(bench, name) as stepper:
        for step in range(at):
            stepper.gradients(step)
            stepper.step()
        with Counts() as gradients:
            stepper.gradients(at)
        with Counts() as optimizer:
            stepper.step()
    return Step(gradients, optimizer)


def opened(folder: Path, dtype: str) -> Workbench:
    """The shipped model in a dtype, and its task."""
    spec = specs.load({**SPEC, "training": {**SPEC["training"], "dtype": dtype}})
    base = bases.load(spec)
    return Workbench.of(spec, folder, base, prepare_data(spec, base.tokenizer, folder / "tokens", base.limits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=variants.names(), help="names of variants")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("counts.md"))
    arguments = parser.parse_args()
    lines = [f"Commit {commit()}. Explained in [README.md](README.md).", "", *HEAD]
    with tempfile.TemporaryDirectory() as folder:
        full, half = (opened(Path(folder) / dtype, dtype) for dtype in ("float32", "bfloat16"))
        for name in arguments.only:
            one, four = (count(full, name, rows) for rows in PASSES.values())
            narrow = count(half, name)
            lines.append(
                f"| {name} | {one.reads} | {four.reads} | {one.gradients.operators} | {one.optimizer.operators} "
                f"| {one.casts} | {narrow.casts} |"
            )
            print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
