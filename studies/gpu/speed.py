"""Tokens a second of our loop beside others, and beside what no loop can do without; and memory beside its plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from unittest import mock

import torch

from autolora.adapters.memory import Memory
from autolora.bases.device import dtype_name
from autolora.space import Config, Space
from autolora.trainers.builtin.trainer import BuiltinTrainer
from autolora.trainers.builtin.workbench import Workbench
from autolora.trainers.memory import collected
from studies.gpu.models import EXAMPLES, SHAPES, Place
from studies.gpu.report import AGREES, DIFFERS, MEASURED, NOTHING, Case, Result, Skip
from studies.throughput import loops, memory
from studies.throughput.loops import RANK, RATE, Measured, clock_of

WARM_UP = 2
"""Steps before those that are timed, in which libraries allocate and compile."""
PRODUCTS = 10
"""Matrix products between two looks at the clock."""
CLOSE = 0.2
"""How far a plan may be from the peak, as a share of the peak."""
PEFT_S_OWN = {"lora": False, "dora": True}
"""Variants that PEFT has, too, and whether they are its DoRA."""


@dataclass(frozen=True)
class Comparison:
    """What is timed on one model.

    Attributes:
        shape: a key of ``SHAPES``.
        variants: of ours.
        batches: micro-batches, each a step of its own.
        length: tokens of a row.
        steps: that are timed.
        packed: whether the model's linear layers are in 4 bits.
    """

    shape: str
    variants: tuple[str, ...]
    batches: tuple[int, ...]
    length: int
    steps: int
    packed: bool = False

    @property
    def name(self) -> str:
        """Of the model."""
        return SHAPES[self.shape].name + (" in 4 bits" if self.packed else "")

    @property
    def package(self) -> str | None:
        """What it cannot be made without, beside what all need."""
        return "bitsandbytes" if self.packed else None


@dataclass
class Roofline:
    """The rate of large matrix products, in operations a second; None until it is measured."""

    rate: float | None = None

    def cases(self, place: Place, width: int) -> Iterator[Case]:
        """Products of two matrices of this width."""

        def measure() -> Result:
            a, b = (torch.randn(width, width, device=place.device).to(place.dtype) for _ in range(2))
            clock, best = clock_of(place.device), float("inf")
            for _ in range(4):  # the first warms up
                began = clock()
                for _ in range(PRODUCTS):
                    a @ b
                best = min(best, clock() - began)
            self.rate = 2 * width**3 * PRODUCTS / best
            rate = f"{self.rate / 1e12:.3g} TFLOP/s"
            return Result((NOTHING, NOTHING, NOTHING, "100%"), f"{MEASURED}: {rate} in {dtype_name(place.dtype)}")

        yield Case("speed", (f"none, {width} x {width}", NOTHING, NOTHING, "matrix product"), measure)


def cases(place: Place, asked: Comparison, roofline: Roofline) -> Iterator[Case]:
    """All loops on one model."""
    timed = _Timed(place, asked, roofline)
    try:
        yield from timed.cases()
    finally:
        timed.close()


def processes() -> Iterator[Case]:
    """The plan against the peak of a process on the CPU, where no GPU tells its own."""
    case = memory.Case("33M", "lora", rows=1, length=128)

    def measure() -> Result:
        if sys.platform != "linux":
            raise Skip("the peak of a process is read from /proc, which Linux alone has")
        return _planned(memory.plan(case), memory.measure(case))

    yield Case("memory", (f"a Llama of {case.model}", case.variant, f"{case.rows} x {case.length}"), measure)


@dataclass
class _Timed:
    """One model, and what was measured on it so far.

    Attributes:
        floors: tokens a second of the floor, by micro-batch.
        own: of our loop, by variant and micro-batch.
    """

    place: Place
    asked: Comparison
    roofline: Roofline
    floors: dict[int, float] = field(default_factory=dict)
    own: dict[tuple[str, int], Measured] = field(default_factory=dict)
    _bench: Workbench | None = None
    _failure: str = ""
    _attached: ExitStack = field(default_factory=ExitStack)  # ends with what is timed on one variant

    def cases(self) -> Iterator[Case]:
        for batch in self.asked.batches:
            yield self._case("base alone", batch, "floor", partial(self._floor, batch))
        for variant in self.asked.variants:
            with ExitStack() as self._attached:
                for batch in self.asked.batches:
                    yield self._case(variant, batch, "autolora", partial(self._ours, variant, batch))
            if self.place.device.type == "cuda":
                yield from self._memory(variant)
            if variant in PEFT_S_OWN:
                yield from self._others(variant, PEFT_S_OWN[variant])

    def close(self) -> None:
        """Give the model's memory back."""
        self._bench = None
        collected()

    @property
    def bench(self) -> Workbench:
        """Made when it is first asked for."""
        if self._failure:
            raise Skip(self._failure)
        if self._bench is None:
            asked = self.asked
            self._failure = "there is no model: making it has failed, see above"
            model = self.place.model(asked.shape, packed=asked.packed)
            data = self.place.timed(asked.shape, asked.length)
            self._bench = self.place.bench(model, data, examples=EXAMPLES)
            self._failure = ""
        return self._bench

    def _case(self, variant: str, batch: int, loop: str, run: Callable[[], Result]) -> Case:
        return Case("speed", (self.asked.name, variant, str(batch), loop), run, self.asked.package)

    def _floor(self, batch: int) -> Result:
        measured = self._run(loops.floor, batch)
        self.floors[batch] = measured.tokens / measured.seconds
        return self._result(measured, "lora", batch, operations=self._operations(adapter=False))

    def _ours(self, variant: str, batch: int) -> Result:
        self._attach(variant)
        measured = self._run(partial(loops.autolora, variant=variant), batch)
        self.own[variant, batch] = measured
        return self._result(measured, variant, batch, operations=self._operations(adapter=True))

    def _attach(self, variant: str) -> None:
        """Attach a variant once for all micro-batches, since the start of some takes longer than what is timed."""
        bench = self.bench
        if "attached" in vars(bench):
            return
        collected()  # what other trainers have left would count in the peak
        identity = bench.identity  # is read off the base while it has no adapter
        config = Config(RATE, self.asked.batches[0], RANK, RANK)
        adapted = self._attached.enter_context(bench.attached(variant, config, seed=0))
        attached = mock.Mock(return_value=nullcontext(adapted))
        self._attached.enter_context(mock.patch.multiple(bench, identity=identity, attached=attached))

    def _others(self, variant: str, dora: bool) -> Iterator[Case]:
        own: dict[str, loops.Loop] = {
            "bare PyTorch and PEFT": partial(loops.bare, dora=dora),
            "transformers.Trainer": partial(loops.transformers_trainer, dora=dora),
        }
        for batch in self.asked.batches:
            for name, loop in own.items():
                yield self._case(variant, batch, name, partial(self._other, loop, variant, batch))

    def _other(self, loop: loops.Loop, variant: str, batch: int) -> Result:
        measured = self._run(loop, batch)
        return self._result(measured, variant, batch, operations=self._operations(adapter=True))

    def _run(self, loop: loops.Loop, batch: int) -> Measured:
        loop(self.bench, batch, WARM_UP)
        return loop(self.bench, batch, self.asked.steps)

    def _result(self, measured: Measured, variant: str, batch: int, operations: float) -> Result:
        rate = measured.tokens / measured.seconds
        own, floor = self.own.get((variant, batch)), self.floors.get(batch)
        ours = None if own is None else own.tokens / own.seconds
        passes = measured.passes // self.asked.steps
        return Result(
            (
                f"{rate:.0f}",
                _share(rate, ours),
                _share(rate, floor),
                _share(rate * operations, self.roofline.rate),
                f"{measured.peak / 1e9:.2f}" if measured.peak else NOTHING,
            ),
            f"{MEASURED}, {passes} passes a step" if passes > 1 else MEASURED,
        )

    def _operations(self, adapter: bool) -> float:
        """Operations a token that training cannot do without, those of matrix products alone.

        The frozen layers forward, and backward to their inputs; the head on the half of the tokens that is learned;
        attention to earlier tokens, twice as much backward as forward; and the factors of the adapter, with their own
        gradients.
        """
        shape, layers = SHAPES[self.asked.shape], self.bench.coverage.layers.values()
        frozen = 4 * sum(layer.in_features * layer.out_features for layer in layers)
        head = 4 * shape.hidden * shape.vocabulary / 2
        attention = 6 * shape.layers * shape.hidden * self.asked.length
        factors = 6 * RANK * sum(layer.in_features + layer.out_features for layer in layers) if adapter else 0
        return frozen + head + attention + factors

    def _memory(self, variant: str) -> Iterator[Case]:
        plans: list[Memory] = []

        def measure(batch: int) -> Result:
            own = self.own.get((variant, batch))
            if own is None:
                raise Skip("the loop was not measured")
            if not plans:
                space = Space(learning_rate=RATE, batch_size=1, rank=RANK)
                plan = BuiltinTrainer(self.bench).memory_plan([variant], space)
                if plan is None:
                    raise Skip("there is no plan of this variant")
                plans.append(plan)
            rows = batch * self.asked.steps // own.passes
            planned = replace(plans[0], rows=rows).planned_bytes
            if planned is None:
                raise Skip(f"there is no plan of this model: {plans[0].formula}")
            return _planned(planned, own.peak)

        for batch in self.asked.batches:
            names = (self.asked.name, variant, f"{batch} x {self.asked.length}")
            yield Case("memory", names, partial(measure, batch), self.asked.package)


def _planned(planned: int, measured: int) -> Result:
    ratio = planned / measured
    cells = (f"{planned / 1e6:.0f}", f"{measured / 1e6:.0f}", f"{ratio:.2f}")
    return Result(cells, AGREES if abs(ratio - 1) <= CLOSE else DIFFERS)


def _share(rate: float, whole: float | None) -> str:
    return NOTHING if whole is None else f"{rate / whole:.0%}"
