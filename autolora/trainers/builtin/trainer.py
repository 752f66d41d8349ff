"""The builtin trainer behind the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from autolora.adapters.errors import VariantError
from autolora.adapters.memory import Memory, size
from autolora.adapters.spec import AdapterSpec
from autolora.bases import ModelError, packed
from autolora.bases.device import dispatched, dtype_name, placed_on
from autolora.priors import Curvature
from autolora.priors.probe import RangeTest
from autolora.search import Job
from autolora.search.rungs import rows_in_words
from autolora.space import FIELDS, Config, Scope, Space, Traits, searchable
from autolora.space.dimension import UNSET
from autolora.spec import Spec
from autolora.trainers import memory
from autolora.trainers.builtin import curvature
from autolora.trainers.builtin import segment as segments
from autolora.trainers.builtin.compiling import check_compiled
from autolora.trainers.builtin.exporting import complete_export
from autolora.trainers.builtin.passes import IN_MAIN_MEMORY
from autolora.trainers.builtin.range_test import range_test
from autolora.trainers.builtin.workbench import Workbench
from autolora.trainers.trainer import OnStep, Outcome, Trainer
from autolora.variants import registry


class BuiltinTrainer(Trainer):
    """Trains segments with our own loop.

    Args:
        bench: model, data and settings.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench

    @classmethod
    def open(cls, spec: Spec, folder: Path) -> BuiltinTrainer:
        """Load model and data; see :func:`autolora.trainers.open_trainer`."""
        return cls(Workbench.open(spec, folder))

    @property
    def examples(self) -> int:
        return self.bench.examples

    def fingerprints(self) -> Mapping[str, str]:
        return self.bench.fingerprints()

    def run(self, segment: Job, on_step: OnStep | None = None) -> Outcome:
        return segments.run(self.bench, segment, on_step)

    def verify(self, trial: int) -> None:
        self.bench.finished(trial)

    def test(self, trial: int) -> float | None:
        if self.bench.data.test is None:
            return None
        with self.bench.trained(trial) as (_, adapted):
            return self.bench.evaluator.scores(adapted, self.bench.data.test).value

    def export(self, trial: int, folder: Path) -> None:
        with self.bench.trained(trial) as (variant, adapted):
            variant.export(adapted, folder)
        complete_export(self.bench.base, folder)

    def check(self, variants: Sequence[str], space: Space, baselines: Mapping[str, Config]) -> None:
        from autolora.adapters.start import Start

        model = self.bench.base.model
        for adapter, words in self._searched_layers(space).items():
            try:
                self.bench.coverage_of(adapter)
            except VariantError as error:
                if not words:
                    raise
                hint = ". Each choice is a set: write a list within the list, as in [[q_proj, v_proj], all-linear]"
                raise VariantError(f"space.fields: {words}: {error}{hint}") from None
        for name in variants:
            variant = registry.get(name)
            configs = searchable.corners(space, variant)
            if name in baselines:
                configs.append(searchable.completed(space, variant, baselines[name]))
            for config in configs:
                dropout = self.bench.training.of_trial(config).dropout
                start = Start(
                    model=model,
                    layers=self.bench.coverage_of(self.bench.adapter_of(config)).at_rank(config.rank),
                    rank=config.rank,
                    alpha=config.alpha,
                    dropout=dropout,
                )
                variant.configured(**dict(config.options)).check(start)
        if self.bench.training.compile:
            check_compiled(self.bench, variants, space)

    def _searched_layers(self, space: Space) -> dict[AdapterSpec, str]:
        """Every section of the adapter that a trial may have, with what it has of the searched fields in words."""
        own = {name: each for name, each in FIELDS.of(space).items() if name in AdapterSpec.model_fields}
        alone = {name: replace(each, when=()) for name, each in own.items()}
        if not alone:
            return {self.bench.adapter: ""}
        named = FIELDS.corners(Scope(space.model_copy(update={FIELDS.name: alone}), Traits()), UNSET)
        configs = [UNSET.replaced(**{FIELDS.name: each}) for each in named]
        return {self.bench.adapter_of(config): FIELDS.text(config) for config in configs}

    def scored_rows(self) -> Sequence[int]:
        return self.bench.scored_rows

    def test_cost(self) -> float:
        test = self.bench.data.test
        return 0.0 if test is None else float(test.lengths.sum() / self.bench.data.eval.lengths.sum())

    def about(self) -> Mapping[str, Sequence[str]]:
        from autolora.adapters.packed import parameter_count

        base = self.bench.base
        parameters = parameter_count(base.model)
        where = ", ".join(sorted(map(str, placed_on(base.model)))) if dispatched(base.model) else base.device
        return {
            "model": [f"{parameters:,} parameters, {dtype_name(base.dtype)} on {where}", *base.notes],
            "layers": self._layer_lines(),
            "data": self.bench.data.report.lines(),
            "evaluation": list(filter(None, [rows_in_words(self.bench.rungs, self.bench.scored_rows)])),
            "warning": [
                *self.bench.data.report.warnings,
                *self.bench.evaluator.warnings,
                *(line for each in self.bench.reporters.values() for line in each.warnings),
            ],
        }

    def _layer_lines(self) -> list[str]:
        """Which layers carry an adapter, for each section that is searched."""
        found = self._searched_layers(self.bench.space)
        if len(found) == 1:
            return self.bench.coverage_of(next(iter(found))).lines()
        return [
            f"{words}: {line}" for adapter, words in found.items() for line in self.bench.coverage_of(adapter).lines()
        ]

    def resolved(self) -> Mapping[str, object]:
        return {"max_length": self.bench.training.max_length}

    def fits(self) -> Sequence[str]:
        return packed.fits(self.bench.base.model)

    def peak_memory(self) -> int | None:
        peak = memory.peak(self.bench.base.device)
        return peak if peak is None else max(peak, self.bench.room.peak)

    def memory_plan(self, variants: Sequence[str], space: Space) -> Memory | None:
        known = [
            plan
            for name, adapter in product(variants, self._searched_layers(space))
            if (plan := self._memory_plan(name, searchable.largest(space, registry.get(name)), adapter)) is not None
        ]
        return max(known, key=lambda plan: plan.planned_bytes or 0, default=None)

    def too_large(self, variants: Sequence[str], space: Space) -> Mapping[str, Sequence[Config]]:
        most = self.bench.most
        if most is None:
            return {}
        if self.bench.base.device.type == "cpu" and self._besides() >= most:
            raise ModelError(
                f"max_memory: {size(most)} is less than the {size(self._besides())} that this process has taken for "
                "Python, its libraries and the data, before the model and its training: raise it"
            )
        found = {}
        for name in variants:
            corner = searchable.largest(space, registry.get(name)).replaced(batch_size=min(space.batch_size))
            for rank in sorted(space.rank, reverse=True):
                config = corner.replaced(rank=rank)
                plans = [self._memory_plan(name, config, adapter) for adapter in self._searched_layers(space)]
                if any(plan is None or plan.fits is not False for plan in plans):
                    break
                found[name] = [Config(config.learning_rate, config.batch_size, rank, config.alpha)]
                plan = plans[0]
                if rank == min(space.rank) and plan is not None:
                    raise ModelError(
                        f"max_memory: {name} does not fit, even at the smallest rank of the space, {rank}. "
                        f"{plan.verdict()} Leave the variant out, or raise max_memory"
                    )
        return found

    def _memory_plan(self, name: str, config: Config, adapter: AdapterSpec) -> Memory | None:
        """What a configuration would take; None if that is not known."""
        from autolora.bases.footprint import Footprint
        from autolora.bases.outline import Outline
        from autolora.bases.planning import Setting, Yields, blank_of, plan_memory

        bench, base = self.bench, self.bench.base
        longest = int(bench.data.train.lengths.max())
        on_cpu, asked = base.device.type == "cpu", bench.training.gradient_checkpointing
        # A machine whose memory runs out ends the process instead of saying so; max_memory is noticed in time.
        noticed = not on_cpu or bench.most is not None
        training = bench.training.of_trial(config)
        rows = min(config.batch_size, training.micro_batch or config.batch_size)
        setting = Setting(
            rank=config.rank,
            rows=min(rows, max(1, IN_MAIN_MEMORY.tokens // longest)) if on_cpu else rows,
            length=longest,
            dropout=training.dropout,
            dtype=base.dtype if base.bits else None,
            bits=base.bits,
            checkpointing=base.checkpoints if asked == "auto" else asked,
        )
        return plan_memory(
            Footprint(
                Outline(type(base.model).__name__, base.model.config, blank_of(base)),
                bench.variant(name, config),
                adapter,
            ),
            setting,
            None if dispatched(base.model) else base.device,
            base.reading,
            Yields(passes=noticed, checkpointing=noticed and asked == "auto"),
            most=bench.most,
            besides=self._besides() if on_cpu else 0,
        )

    def _besides(self) -> int:
        """Bytes that this process has taken for anything but the base's weights."""
        import psutil

        model = self.bench.base.model
        weights = sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))
        taken = int(psutil.Process().memory_info().rss)
        return max(0, taken - int(weights))

    def set_aside(self) -> None:
        _ = self.bench.identity  # what it is computed from is read off the weights
        self.bench.base.set_aside()

    def curvature_examples(self) -> int:
        return curvature.sample_size(self.bench)

    def curvature(self, variants: Sequence[str], rank: int) -> tuple[Mapping[str, Curvature], bool]:
        return curvature.cached(self.bench, variants, rank)

    def range_test(self, variant: str, config: Config, steps: int, decades_a_step: float) -> RangeTest:
        return range_test(self.bench, variant, config, steps, decades_a_step)
