"""What to tune. One schema for YAML files, command-line flags and Python arguments; validated before anything runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from autolora import documents, files, quantities, quickstart, references, urls, variants
from autolora.adapters import optimizers
from autolora.adapters.spec import AdapterSpec
from autolora.errors import AutoloraError
from autolora.files import Document
from autolora.metrics import EvaluationSpec, MetricSpec, ReportedSpec, reported_specs
from autolora.mistakes import explain, shortened
from autolora.search.rungs import RUNGS, ascend_to_one
from autolora.search.trials import Direction
from autolora.sections import Section, nearby, required
from autolora.space import FIELDS, Config, Space, registry, searchable
from autolora.space.dimensions.alpha import HIGHEST as HIGHEST_ALPHA
from autolora.space.dimensions.duration import UNITS
from autolora.space.dimensions.learning_rate import HIGHEST as HIGHEST_RATE
from autolora.space.space import specified
from autolora.study import storage, terms
from autolora.tasks.causal_lm.spec import DataSpec, located_data
from autolora.tasks.data.sources import ROLES
from autolora.trainer_specs import TrainerSpec, trainer_of
from autolora.trainer_specs.builtin import BuiltinTrainerSpec

SHORT_FOR = {"data": "train", "metric": "name"}
"""The key that a bare value stands for."""
URLS = ("storage", "checkpoints")
"""Keys whose values may be URLs with secrets."""
IMPORTED_FROM = "imported_from"
"""The key of a record beside those of the specification: folders that hold the modules of the user's."""
PRIOR_NAMES: dict[str, dict[str, bool]] = {"auto": {}, "laws": {"curvature": False}}


LATER = ("epochs", *optimizers.KEYS)
"""Keys of ``training`` that the identity of earlier checkpoints lacks."""


class SpecError(AutoloraError, ValueError):
    """The specification is wrong; the message names the key, the value, and what would be right."""


class TrainingSpec(Section):
    """How one full run trains.

    Args:
        examples: training examples of a full run; None: every training row once. More than the rows: several epochs.
        epochs: the same in passes over the training rows, in place of ``examples``.
        max_length: longest example in tokens; completions are cut, rows whose prompt fills it are dropped. "auto": the
            99th percentile of the training rows' lengths, at most the model's positions.
        schedule: a ``transformers.get_scheduler`` name, laid out over the full run.
        warmup_ratio: share of the optimizer steps spent warming up.
        weight_decay, dropout: AdamW's weight decay; dropout on the adapter's input.
        max_grad_norm: global gradient-norm clip; 0: none.
        optimizer: "adamw", or a relative of it whose weight decay is decoupled, too: "amsgrad", "nadam" or "radam".
            Variants with an optimizer of their own refuse another.
        adam_beta1, adam_beta2, adam_epsilon: of the optimizer.
        micro_batch: most examples in one forward pass; None: as many as memory has room for. Examples of a batch are
            sorted by length and cut into passes, as is cheapest. The gradient is that of the whole batch, but for
            LoRAMoE's balance between experts, which is that of each pass.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them, which takes a
            third more time, less memory, and gives equal results; "auto": where not one example fits otherwise.
        compile: train with ``torch.compile``: blocks become few large kernels, which pays where a GPU waits for the
            next one to be started, as with small models and short rows. Every variant and rank is compiled once in a
            process, at its first step. Results are equal but for rounding; evaluation is not compiled.
        checkpoint_seconds: longest time between two checkpoints of a running trial.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: of the frozen base: "auto" is bfloat16 on a GPU that has it, float16 on a CUDA GPU that does not, else
            float32. In float16 the loss is scaled, and a step whose gradients overflow is skipped.
    """

    examples: int | None = Field(default=None, ge=1, le=10**12)
    epochs: float | None = Field(default=None, gt=0, le=10**6)
    max_length: Annotated[int, Field(ge=8)] | Literal["auto"] = Field(
        default="auto", description='"auto" or a whole number of at least 8'
    )
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    max_grad_norm: float = Field(default=1.0, ge=0)
    optimizer: optimizers.Name = "adamw"
    adam_beta1: float = Field(default=optimizers.ADAMW.beta1, ge=0, lt=1)
    adam_beta2: float = Field(default=optimizers.ADAMW.beta2, ge=0, lt=1)
    adam_epsilon: float = Field(default=optimizers.ADAMW.epsilon, gt=0, le=1)
    micro_batch: int | None = Field(default=None, ge=1)
    gradient_checkpointing: bool | Literal["auto"] = Field(default="auto", description='"auto", true or false')
    compile: bool = False
    checkpoint_seconds: float = Field(default=120.0, ge=0)
    device: str = Field(default="auto", min_length=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSpec:
        if self.examples is not None and self.epochs is not None:
            raise ValueError("examples and epochs are both given: set one of them")
        return self

    def identity(self) -> Document:
        """What a trial's training depends on, as plain data; as in earlier versions where nothing newer is set."""
        plain: Document = self.model_dump(exclude=mutable_in("training"))
        defaults = TrainingSpec.model_fields
        return {key: value for key, value in plain.items() if key not in LATER or value != defaults[key].default}

    def of_trial(self, config: Config) -> TrainingSpec:
        """These settings with the values that a configuration has of them."""
        values = {dimension.sets: config.value(dimension.name) for dimension in registry() if dimension.sets}
        found = {name: value for name, value in values.items() if value is not None}
        found |= {name: value for name, value in config.value(FIELDS.name) or () if name in type(self).model_fields}
        return self.model_copy(update=found) if found else self

    @property
    def optimized(self) -> optimizers.Optimizer:
        """What the optimizer is made of."""
        return optimizers.Optimizer(*(getattr(self, key) for key in optimizers.KEYS))

    def baseline(self, config: Config, space: Space) -> Config:
        """A configuration with the values that these settings have of what the space searches of them."""
        values = {
            dimension.name: getattr(self, dimension.sets)
            for dimension in registry()
            if dimension.sets and dimension.searched(space)
        }
        return config.replaced(**values) if values else config


class BaseSpec(Section):
    """How the frozen model is held and computed.

    Args:
        attn_implementation: of attention, by the name that ``from_pretrained`` takes, such as "sdpa", "eager" or
            "flash_attention_2"; None: the model's own default. It may change between two starts.
        load_in_4bit, load_in_8bit: hold linear layers in 4 or 8 bits, through bitsandbytes: NF4 with double
            quantization (QLoRA), or LLM.int8(). ``training.dtype`` is then that of all else, and what 4 bits are
            computed in.
    """

    attn_implementation: str | None = Field(default=None, min_length=1)
    load_in_4bit: bool = False
    load_in_8bit: bool = False

    @model_validator(mode="after")
    def _one_width(self) -> BaseSpec:
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit are both true: set one of them")
        return self


class ResourcesSpec(Section):
    """What one worker of a cluster gets; a worker trains one trial at a time. Without meaning inline, but for GPUs
    above 1.

    Args:
        cpu: CPU cores, on each node.
        gpu: GPUs, on each node; below 1, several workers share one. Above 1, a trainer in a process of its own gets
            them all, and with others the model is spread over them, layer by layer; inline, too. None: 1 where the
            cluster has any when it is looked at, else 0.
        nodes: nodes on which the command of a trial is started, once on each; above 1 with Ray alone.
        workers: most workers at once; None: as many as fit into the cluster.
        stall_minutes: a worker that takes no optimizer step for so long, while it loads the base or evaluates too, is
            killed, and its trial goes on elsewhere from its newest checkpoint.
    """

    cpu: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    gpu: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    nodes: int = Field(default=1, ge=1)
    workers: int | None = Field(default=None, ge=1)
    stall_minutes: float = Field(default=30.0, gt=0, allow_inf_nan=False)

    @field_validator("gpu")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError(f"{value:g} is not allowed; a share of a GPU is below 1, more of them a whole number")
        return value


class BaselineSpec(Section):
    """What the user runs today: trained first at full length and compared with."""

    learning_rate: float = Field(gt=0, le=HIGHEST_RATE)
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0, le=HIGHEST_ALPHA)
    batch_size: int | None = Field(default=None, ge=1, description="None: the smallest batch size of the space")


class PriorSpec(Section):
    """What the search believes before its first trial, on top of the scaling laws.

    Args:
        curvature: measure each variant's curvature at its start, on 16 training examples, where the budget has that to
            spare.
        probe: run a learning-rate range test of at most 40 optimizer steps first; charged to the budget.
        learning_rate: what you expect to be best for plain LoRA at the largest rank, the smallest batch size and the
            first alpha of the space; ``autolora prior`` shows that setting.
        sd: how sure you are of it, in decades; None: 0.3. How the best rate goes with alpha is uncertain besides.
        study: run directory of an earlier, finished study to start from, of this or a similar model and task.
    """

    curvature: bool = True
    probe: bool = False
    learning_rate: float | None = Field(default=None, gt=0, le=HIGHEST_RATE)
    sd: float | None = Field(default=None, gt=0, le=100)
    study: str | None = None

    @field_validator("study")
    @classmethod
    def _from_any_folder(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            raise ValueError(f"{urls.shown(value)} is a URL; give the run directory of an earlier study")
        return value if value is None else str(files.absolute(value))

    @model_validator(mode="after")
    def _sd_is_of_a_learning_rate(self) -> PriorSpec:
        if self.sd is not None and self.learning_rate is None:
            raise ValueError("sd says how sure you are of learning_rate, which is not given")
        return self


def _prior(value: object) -> object:
    if isinstance(value, str):
        if value not in PRIOR_NAMES:
            raise ValueError(f"{value!r} must be one of {', '.join(map(repr, PRIOR_NAMES))}, null or a mapping")
        return PRIOR_NAMES[value]
    return value


def _wrap(section: str) -> BeforeValidator:
    key = SHORT_FOR[section]
    plain = (Mapping, BaseModel, type(None))
    return BeforeValidator(lambda value: value if isinstance(value, plain) else {key: value})


def _checked_by(reading: Callable[[object], float]) -> Callable[[Any], Any]:
    """A validator that leaves a quantity as it was written, if it can be read."""

    def check(value: object) -> object:
        if value is not None:
            reading(value)
        return value

    return check


class Spec(Section):
    """A whole study.

    Args:
        trainer: who trains: "builtin", a function of yours as ``"my_training:make_trainer"``, or a mapping as in
            :mod:`autolora.trainer_specs`.
        model: path or hub id of a causal language model, or a loaded ``PreTrainedModel``. None where the trainer has
            its own.
        data: a :class:`autolora.tasks.causal_lm.spec.DataSpec`, or just the training file, hub id or
            ``datasets.Dataset``. None where the trainer has its own.
        variants: names of registered LoRA variants, or references to those of other packages:
            ``my_package.module:MyVariant``.
        space: the :class:`autolora.Space` searched.
        base: a :class:`BaseSpec`: how the model is held and computed.
        adapter: an :class:`autolora.adapters.spec.AdapterSpec`: which layers carry an adapter.
        training: the :class:`TrainingSpec` of one full run.
        metric: name of a metric, or a :class:`autolora.metrics.MetricSpec`. Of trainers other than the builtin one,
            the name under which they report the score.
        metrics: what is reported beside the metric and never steers the search: names, or
            :class:`autolora.metrics.ReportedSpec` sections. It may change between two starts.
        evaluation: an :class:`autolora.metrics.EvaluationSpec`: on how many rows rungs are scored.
        budget: full-run equivalents per variant, everything included, in total for the study.
        time_budget: wall time in which the study ends, whatever is left of the budget: seconds, or text such as "90m",
            "4h" or "1h30m". It covers everything, over all starts that have a time budget. None: no limit. It may
            change between two starts.
        max_memory: what a trial may take at most: bytes, or text such as "20GB" or "16GiB"; on CUDA of the device, on a
            CPU of the process, Python and its libraries included. None: what there is. It may change between two
            starts.
        rungs: fractions of a full run at which a trial is scored, ending in 1.
        confirm: "auto" keeps min(4, floor(budget / 4)) full runs for further seeds of the finalists; 0: none.
        baseline: what the user runs today, trained first and to the end to compare with; None: nothing.
        prior: a :class:`PriorSpec`; "laws" for the scaling laws alone, None for no belief but the searched range.
        seed: all randomness derives from it.
        storage: an Optuna storage URL; write its password as ${VARIABLE}, or leave it to PGPASSWORD or ~/.pgpass. None:
            SQLite in the run directory.
        checkpoints: folder or fsspec URL, such as s3://bucket/study, that all workers reach; None: the run directory.
            Secrets of a URL may be written as ${VARIABLE}, too; they are not recorded.
        keep: completed trials of a variant whose adapters stay, the best; the finalists' always do.
        resources: a :class:`ResourcesSpec`.
        revision, trust_remote_code: as in ``from_pretrained``.
    """

    trainer: Annotated[SerializeAsAny[TrainerSpec], BeforeValidator(trainer_of)] = BuiltinTrainerSpec()
    model: Any = Field(default=None, validate_default=True)
    data: Annotated[DataSpec | None, _wrap("data")] = Field(default=None, validate_default=True)
    variants: list[str] = Field(default=["lora"], min_length=1)
    space: Annotated[Space, BeforeValidator(specified)] = Space()
    base: BaseSpec = BaseSpec()
    adapter: AdapterSpec = AdapterSpec()
    training: TrainingSpec = TrainingSpec()
    metric: Annotated[MetricSpec, _wrap("metric")] = Field(default=MetricSpec(), validate_default=True)
    metrics: Annotated[tuple[ReportedSpec, ...], BeforeValidator(reported_specs)] = ()
    evaluation: EvaluationSpec = EvaluationSpec()
    budget: float = Field(default=8.0, ge=1, le=1e6)
    time_budget: Annotated[float | str | None, AfterValidator(_checked_by(quantities.seconds))] = None
    max_memory: Annotated[float | str | None, AfterValidator(_checked_by(quantities.size_in_bytes))] = None
    rungs: tuple[float, ...] = Field(default=RUNGS, validate_default=True)
    confirm: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description='"auto" or a whole number of at least 0'
    )
    baseline: BaselineSpec | None = None
    prior: Annotated[PriorSpec | None, BeforeValidator(_prior)] = PriorSpec()
    seed: int = Field(default=0, ge=0)
    storage: str | None = Field(default=None, repr=False)
    checkpoints: str | None = Field(default=None, repr=False)
    keep: int = Field(default=4, ge=0, le=10**9)
    resources: ResourcesSpec = ResourcesSpec()
    revision: str | None = None
    trust_remote_code: bool = False

    @field_validator("variants", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        return [v.strip() for v in value.split(",")] if isinstance(value, str) else value

    @field_validator("variants")
    @classmethod
    def _known_variants(cls, value: list[str]) -> list[str]:
        if len({variants.resolve(reference).name for reference in value}) < len(value):
            raise ValueError(f"a variant is named twice in {value}")
        return value

    @property
    def references(self) -> list[str]:
        """What it names of the user's own modules, as ``"package.module:attribute"``."""
        own_metrics = [] if self.trainer.reports_metrics else [self.metric.name, *(each.name for each in self.metrics)]
        return [name for name in (*self.variants, *own_metrics, *self.trainer.references) if ":" in name]

    @property
    def time_limit(self) -> float | None:
        """Seconds of ``time_budget``; None without one."""
        return None if self.time_budget is None else quantities.seconds(self.time_budget)

    @property
    def memory_limit(self) -> int | None:
        """Bytes of ``max_memory``; None without one."""
        return None if self.max_memory is None else quantities.size_in_bytes(self.max_memory)

    @property
    def reported(self) -> dict[str, Direction]:
        """Which values are better of what is reported beside the metric, by name."""
        return {each.name: each.resolved_direction for each in self.metrics}

    @property
    def names(self) -> list[str]:
        """Names of the variants; those that are named by a reference are registered by that."""
        return [variants.resolve(reference).name for reference in self.variants]

    @field_validator("model", "data", mode="before")
    @classmethod
    def _given_where_required(cls, value: object, info: ValidationInfo) -> object:
        trainer = info.data.get("trainer")  # missing if it is wrong itself
        return required(value) if trainer is not None and info.field_name in trainer.requires else value

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, value: MetricSpec, info: ValidationInfo) -> MetricSpec:
        trainer = info.data.get("trainer")
        if trainer is not None:
            value.check(reported=trainer.reports_metrics)
        return value

    @field_validator("resources")
    @classmethod
    def _spread_where_possible(cls, value: ResourcesSpec, info: ValidationInfo) -> ResourcesSpec:
        trainer = info.data.get("trainer")
        if trainer is not None and value.nodes > 1 and not trainer.spans_nodes:
            raise ValueError(
                f"nodes: {value.nodes} is for trainer: {{command: ...}}, which is started once on each node; trainer "
                f"{trainer.kind!r} trains on one: set nodes to 1"
            )
        return value

    @field_validator("metrics")
    @classmethod
    def _metrics_are_known(cls, value: tuple[ReportedSpec, ...], info: ValidationInfo) -> tuple[ReportedSpec, ...]:
        trainer, metric = info.data.get("trainer"), info.data.get("metric")
        names = [each.name for each in value]
        if trainer is not None:
            for each in value:
                each.check(reported=trainer.reports_metrics)
        if len(set(names)) < len(names):
            raise ValueError(f"one is named twice in {names}")
        if metric is not None and metric.name in names:
            raise ValueError(f"{metric.name!r} is the metric itself, which is reported anyway; leave it out here")
        return value

    @field_validator("rungs", mode="before")
    @classmethod
    def _only_the_end_where_nothing_stops(cls, value: object, info: ValidationInfo) -> object:
        trainer = info.data.get("trainer")
        if trainer is None or trainer.stops_early:
            return value
        given = tuple(value) if isinstance(value, (list, tuple)) else value
        if given not in (RUNGS, (1.0,)):
            raise ValueError(f"{value} cannot be reached with early_stop: false; leave rungs out, or write [1.0]")
        return (1.0,)

    @field_validator("model")
    @classmethod
    def _model_path_exists(cls, value: object) -> object:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, (int, float, bytes, list, tuple, Mapping, date)):
            raise ValueError(f"{shortened(value)} is not allowed; use a path, a hub id or a loaded model")
        if isinstance(value, str):
            path = files.expanded(quickstart.resolve(value))
            looks_local = value.startswith((".", "/", "~")) or value.count("/") > 1 or path.is_symlink()
            if looks_local and not path.exists():  # a file is refused when it is loaded, by what it is
                raise ValueError(f"no such model directory: {files.shown(path)}{nearby(path)}")
            value = _located_model(value)
        return value

    @field_validator("storage")
    @classmethod
    def _from_any_folder(cls, value: str | None) -> str | None:
        return value and storage.located(value)

    @field_validator("checkpoints")
    @classmethod
    def _wherever_it_is_started(cls, value: str | None) -> str | None:
        if value is None or "://" in value or urls.REFERENCE.fullmatch(value):
            return value
        return str(files.expanded(value).absolute())

    @field_validator("rungs")
    @classmethod
    def _ascending_to_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not ascend_to_one(value):
            raise ValueError(
                f"{list(value)} is not allowed; they ascend, start above 0 and end in 1.0, as in [0.111, 0.333, 1.0]"
            )
        return value

    @model_validator(mode="after")
    def _one_length(self) -> Spec:
        durations = self.space.duration
        for unit in UNITS if durations is not None else ():
            given = getattr(self.training, unit)
            if given is not None and (unit != durations.unit or given != durations.longest):
                raise ValueError(
                    f"training.{unit}={given:g} and space.duration are both given: the longest duration is a full run. "
                    f"Leave training.{unit} out"
                )
        return self

    def full_run(self, rows: int | None = None) -> int | None:
        """Training examples of a full run, as far as the specification says it; None if it does not.

        Args:
            rows: of the training data, which epochs are counted in; None: not known.
        """
        durations = self.space.duration
        epochs, examples = self.training.epochs, self.training.examples
        if durations is not None:
            epochs, examples = (durations.longest if durations.unit == unit else None for unit in UNITS)
        if epochs is not None:
            return None if rows is None else max(1, round(epochs * rows))
        return None if examples is None else round(examples)

    @model_validator(mode="after")
    def _rows_for_each_rung(self) -> Spec:
        subset, before_last = self.evaluation.subset, len(self.rungs) - 1
        if isinstance(subset, tuple) and len(subset) != before_last:
            raise ValueError(
                f"evaluation.subset={list(subset)} has {len(subset)} numbers of rows for {before_last} rungs before "
                "the last: give one for each, or a single one for all"
            )
        return self

    @model_validator(mode="after")
    def _what_a_pattern_finds_is_named(self) -> Spec:
        setting = self.trainer.unnamed_score
        if setting is not None and "metric" not in self.model_fields_set:
            raise ValueError(
                f"metric: missing; say what trainer.{setting} finds, as in "
                "metric: {name: accuracy, direction: maximize}"
            )
        return self

    @model_validator(mode="after")
    def _options_can_be_searched(self) -> Spec:
        searchable.check(self.space, {name: variants.get(name) for name in self.names}, variants.names())
        return self

    @model_validator(mode="after")
    def _fields_are_the_trainer_s(self) -> Spec:
        self.trainer.check_fields(
            self.space, dict(self), {reference: variants.resolve(reference) for reference in self.variants}
        )
        return self

    @model_validator(mode="after")
    def _confirmation_leaves_room(self) -> Spec:
        if isinstance(self.confirm, int) and self.confirm > self.budget - 1:
            raise ValueError(
                f"confirm={self.confirm} leaves no full run of budget={self.budget:g} to search with: "
                f"at most {int(self.budget - 1)}"
            )
        return self


def load(source: str | Path | Mapping[str, object] | None = None, **overrides: object) -> Spec:
    """Read and validate a specification.

    Args:
        source: a YAML file, a mapping, or None where the overrides say it all.
        overrides: top-level keys, or dotted ones such as ``{"training.examples": 800}``; they win over the source.

    Raises:
        SpecError: naming the key, the value and what would be right.
    """
    raw: Document = _read_yaml(Path(source)) if isinstance(source, (str, Path)) else dict(source or {})
    for key, value in overrides.items():
        _set(raw, key, value)
    return validate(raw)


def validate(raw: Mapping[str, object]) -> Spec:
    """Validate a mapping; raises :class:`SpecError`."""
    for key in raw:
        if not isinstance(key, str):
            raise SpecError(f"{key!r} is not a key; known here: {', '.join(Spec.model_fields)}")
    try:
        return Spec.model_validate(dict(raw))
    except ValidationError as error:
        raise SpecError(urls.scrubbed(explain(error, raw, Spec), *_urls_in(raw))) from None


def _urls_in(raw: object) -> Iterator[str]:
    seen, waiting = set(), [raw]  # in YAML an alias may lead back, and many may lead to one value
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield from [each] if "://" in each else []
        elif isinstance(each, (Mapping, list, tuple)) and id(each) not in seen:
            seen.add(id(each))
            waiting.extend(each.values() if isinstance(each, Mapping) else each)


def dump(spec: Spec) -> dict[str, object]:
    """The specification as plain YAML-able data with every key present, objects replaced by their fingerprints."""
    raw = spec.model_dump(mode="python")
    plain: Document = json.loads(json.dumps(raw, default=_fingerprint))
    for key in ("model", *URLS):
        plain[key] = _without_secrets(plain[key])
    for role in ROLES if plain["data"] is not None else ():
        plain["data"][role] = _without_secrets(plain["data"][role])
    return plain


def _without_secrets(value: object) -> object:
    """A recorded name, or a list of names, in which secrets are hidden. They are looked for when they are used."""
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    return urls.shown(value) if isinstance(value, str) else value


def located(recorded: Document) -> Document:
    """A recorded specification with absolute paths. Earlier versions recorded them as they were given.

    Args:
        recorded: its relative paths begin at the working directory.
    """
    found = dict(recorded)
    if isinstance(found.get("model"), str):
        found["model"] = _located_model(found["model"])
    if isinstance(found.get("data"), Mapping):
        found["data"] = located_data(found["data"])
    if isinstance(found.get("prior"), Mapping) and found["prior"].get("study"):
        found["prior"] = {**found["prior"], "study": str(files.absolute(found["prior"]["study"]))}
    if found.get("storage"):
        found["storage"] = storage.located(found["storage"])
    return found


def _located_model(name: str) -> str:
    """The name of a model from any folder: absolute if it is here, unchanged if it is shipped or a hub id."""
    if quickstart.resolve(name) == name and files.expanded(name).exists():
        return str(files.absolute(name))
    return name


def register_variants(recorded: Document) -> None:
    """Register the variants of other packages that a recorded specification refers to.

    Raises:
        VariantError: one cannot be imported here.
    """
    for reference in recorded.get("variants", ()):
        if ":" in reference:
            variants.resolve(reference)


def register_variants_as_found(recorded: Document) -> None:
    """As :func:`register_variants`, also from the folders in which the modules were found. For what uses the variants:
    whoever only looks at somebody else's run directory should not run code from folders that it names.
    """
    references.importable_from(recorded.get(IMPORTED_FROM, ()))
    register_variants(recorded)


def save(spec: Spec, path: Path) -> None:
    """Write the specification as YAML; :func:`autolora.study.directory.read_recorded` reads it.

    If it names modules of the user's, IMPORTED_FROM says in which folders they were found.
    """
    content = dump(spec)
    folders = references.folders_of(spec.references)
    if folders:
        content[IMPORTED_FROM] = folders
    files.write(path, yaml.safe_dump(content, sort_keys=False))


# The keys that may change between two starts on one run directory: they do not alter what a trial computes.
MUTABLE = (
    *(
        "budget",
        "keep",
        "trainer.cwd",
        "trainer.launcher",
        "training.device",
        "training.checkpoint_seconds",
        "training.micro_batch",
    ),
    *("training.gradient_checkpointing", "training.compile"),
    "base.attn_implementation",
    *("metrics", "time_budget", "max_memory"),
    *(f"resources.{name}" for name in ResourcesSpec.model_fields),
)


def mutable_in(section: str) -> set[str]:
    """Names of the MUTABLE keys of one section: ``{"device", ...}`` for "training"."""
    return {key.removeprefix(f"{section}.") for key in MUTABLE if key.startswith(f"{section}.")}


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Human-readable differences between two dumped specifications, mutable keys left out."""
    return terms.differences(old, new, ignored=MUTABLE)


def _fingerprint(value: object) -> str:
    """A stable name for an object given in Python, so that resuming with another one is noticed."""
    if hasattr(value, "_fingerprint"):  # datasets.Dataset
        return f"<dataset {value._fingerprint}>"
    if hasattr(value, "config") and hasattr(value.config, "to_json_string"):
        return f"<model {getattr(value, 'name_or_path', '') or type(value).__name__}>"
    raise SpecError(f"cannot record {type(value).__name__} in spec.yaml: give a path, a hub id, a model or a Dataset")


def _read_yaml(path: Path) -> Document:
    path = files.expanded(path)
    if not path.is_file():
        raise SpecError(f"no such spec file: {files.shown(path)}{nearby(path)}")
    try:
        raw = documents.read_yaml(path)
    except documents.DocumentError as error:
        raise SpecError(str(error)) from None
    if not isinstance(raw, dict):
        what = "nothing" if raw is None else type(raw).__name__
        raise SpecError(f"{path} must hold keys such as 'model:' and 'data:', not {what}")
    return raw


def _set(raw: Document, dotted: str, value: object) -> None:
    *parents, leaf = dotted.split(".")
    node = raw
    for depth, parent in enumerate(parents):
        rest = ".".join([*parents[depth:], leaf])
        if rest in node:  # a key may be written with its dots
            leaf = rest
            break
        child = node.get(parent)
        if child is None:
            node[parent] = {}
        elif isinstance(child, Space):
            node[parent] = child.model_dump()
        elif isinstance(child, (Mapping, BaseModel)):
            node[parent] = dict(child)
        elif node is raw and parent in SHORT_FOR:  # a bare value, short for one of the keys
            node[parent] = {SHORT_FOR[parent]: child}
        else:
            raise SpecError(
                f"{dotted}: cannot be set inside {shortened(child)}, which holds no keys; set {parent} whole"
            )
        node = node[parent]
    node[leaf] = value
