"""A trial as a user's own training sees it: its settings, its folder, and how its variant is attached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autolora import variants
from autolora.adapters.errors import VariantError
from autolora.adapters.spec import ALL_LINEAR, AUTO, AdapterSpec
from autolora.search import Job
from autolora.search.rungs import examples_seen, horizon, share_of
from autolora.space import FIELDS, Config, Named
from autolora.space.dimensions.options import OPTIONS
from autolora.spec import Spec
from autolora.trainers.randomness import INITIALIZATION, TRAINING, torch_seed

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from autolora.adapters.start import Allotment, Batch
    from autolora.variants import Variant

Load = Callable[[], Any]
"""Loads what :meth:`Trial.base` returns."""


class Length(Protocol):
    """How long a full run is, as a trainer counts it."""

    def steps(self, batch_size: int) -> int:
        """Optimizer steps of a full run."""

    def seen(self, steps: int, batch_size: int) -> int:
        """Training examples of the first optimizer steps of it."""


@dataclass(eq=False)
class Session:
    """What a trainer gives to a trial, and what the trial's training has made of it.

    Args:
        take: gives what a function loads; one that keeps it loads it once.
        micro_batch: most examples in one forward pass; None: no limit.
        length: of a full run as the trainer counts it, if known.
        allotted: rank and alpha of each layer, of a trial that goes on; see :class:`autolora.adapters.start.Allotment`.

    Attributes:
        attached: what :meth:`Trial.attach` has returned.
        optimizers: what :meth:`Trial.optimizer` has returned.
        asked: whether :meth:`Trial.arguments` was called, and so ``micro_batch`` heard of.
    """

    take: Callable[[Load], Any] = lambda load: load()
    micro_batch: int | None = None
    length: Length | None = None
    allotted: Mapping[str, Allotment] | None = None
    attached: list[PeftModel] = field(default_factory=list)
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    asked: bool = False


class Fields(Mapping[str, Any]):
    """Every searched field of a trial by name, as a mapping and as attributes: ``config["rank"]``, ``config.rank``.

    A variant's own options are fields, too, and so are fields of the trainer; those that do not count are missing.

    Args:
        values: by name.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    @classmethod
    def of(cls, config: Config) -> Fields:
        """The fields of a configuration."""
        values: dict[str, Any] = {}
        for name, value in config.as_dict().items():
            values |= value if isinstance(value, dict) else {name: value}  # options and fields by their own names
        return cls(values)

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise KeyError(f"{name!r} is not searched; searched: {', '.join(self._values)}")
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Fields({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"


@dataclass(frozen=True)
class Trial:
    """One segment of one trial, for a training that autolora does not run itself.

    Attributes:
        number: of the trial.
        variant: name of the LoRA variant.
        config: every searched field, see :class:`Fields`.
        seed: for the training's own randomness; the same for all trials that are compared, another one for each
            further seed of a finalist.
        folder: of the trial, for whatever the training writes.
        start, stop: fractions of a full run that this segment begins and ends at.
        rung: index of the score that it ends with.
        examples: training examples of a full run; None while that is being found out.
    """

    number: int
    variant: str
    config: Fields
    seed: int
    folder: Path
    start: float
    stop: float
    rung: int
    examples: int | None
    _spec: Spec = field(repr=False)
    _job: Job = field(repr=False)
    _session: Session = field(repr=False)

    @classmethod
    def of(cls, spec: Spec, job: Job, folder: Path, examples: int | None, session: Session | None = None) -> Trial:
        """The trial of a job.

        Args:
            spec: of the study.
            job: the segment.
            folder: of the trial.
            examples: of a full run, if known.
            session: what the trainer gives to it; None: nothing.
        """
        return cls(
            number=job.trial,
            variant=job.variant,
            config=Fields.of(job.config),
            seed=torch_seed(spec.seed, job.seed, TRAINING),
            folder=folder,
            start=job.start,
            stop=job.stop,
            rung=job.rung,
            examples=examples,
            _spec=spec,
            _job=job,
            _session=session or Session(),
        )

    @property
    def stop_examples(self) -> int | None:
        """Training examples that have been seen where this segment ends: those of whole optimizer steps."""
        steps, length, size = self.stop_steps, self._session.length, self._job.config.batch_size
        if steps is None or self.examples is None:
            return None
        return examples_seen(steps, self.examples, size) if length is None else length.seen(steps, size)

    @property
    def stop_steps(self) -> int | None:
        """Optimizer steps that have been taken where this segment ends, or a few more where the trainer can only be
        cut at some of them."""
        steps = self.steps
        return None if steps is None else share_of(self.stop, steps)

    @property
    def steps(self) -> int | None:
        """Optimizer steps of a full run, where every step sees a whole batch but the last, of each epoch if the trainer
        has told how long these are; None while that is being found out."""
        if self.examples is None:
            return None
        size, length = self._job.config.batch_size, self._session.length
        return horizon(self.examples, size) if length is None else length.steps(size)

    def base(self, load: Load | None = None) -> Any:
        """The frozen model and its tokenizer, loaded once a process and clean again for every trial.

        Args:
            load: returns what is wanted in place of ``model`` of the specification, such as a classifier and its
                tokenizer: one model, or a tuple whose first item is one. None means ``(model, tokenizer)`` of the
                specification, held as its section ``base`` says.

        Raises:
            ModelError: the specification names no model, or it cannot be loaded.
        """
        return self._session.take(load or self._load)

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        from autolora import bases

        if self._spec.model is None:
            raise bases.ModelError("model: missing; trial.base() loads it. Set it, or load your own with base(load)")
        base = bases.load(self._spec)
        return base.model, base.tokenizer

    @property
    def own_variant(self) -> Variant:
        """The variant with its own options as this trial has them."""
        return variants.get(self.variant).configured(**dict(self._job.config.options))

    @property
    def values(self) -> dict[str, Any]:
        """The value of every dimension, as plain data; the variant's options are left out."""
        return {name: value for name, value in self._job.config.as_dict().items() if name != OPTIONS.name}

    @property
    def fields(self) -> dict[str, Any]:
        """Values of the fields that the space names, of those that count in this trial."""
        return Named.of(self._job.config.value(FIELDS.name) or ()).as_dict()

    @property
    def dropout(self) -> float:
        """Dropout on the adapter's input, as searched or as in ``training``."""
        return self._spec.training.of_trial(self._job.config).dropout

    @property
    def weight_decay(self) -> float:
        """As searched or as in ``training``."""
        return self._spec.training.of_trial(self._job.config).weight_decay

    def peft_config(self, **options: Any) -> LoraConfig:
        """The variant as plain PEFT trains it, for ``get_peft_model`` or a trainer's ``peft_config``.

        Args:
            options: of ``LoraConfig`` beside rank, alpha, dropout, target modules, fields of the space that it has, and
                what makes the variant, such as ``task_type="SEQ_CLS"`` and ``modules_to_save``.

        Raises:
            VariantError: plain PEFT has no such variant, or would alter the base or need another optimizer for it:
                :meth:`attach` it.
        """
        from peft import LoraConfig

        own = {name: value for name, value in self.fields.items() if name in LoraConfig.__dataclass_fields__}
        own = {name: value for name, value in own.items() if name not in AdapterSpec.model_fields}
        variant = self.own_variant
        if variant.peft_options is None or variant.subtracts or variant.kind == "optimizer":
            raise VariantError(
                f"{variant.name} cannot be made by a LoraConfig alone: use trial.attach(model) in place of "
                "trial.peft_config()"
            )
        config = self._job.config
        asked = self._spec.adapter.of_trial(config)
        targets = asked.target_modules if isinstance(asked.target_modules, str) else list(asked.target_modules)
        excluded = {"exclude_modules": asked.exclude_modules} if asked.exclude_modules is not None else {}
        parameters = {} if asked.target_parameters in (AUTO, ()) else {"target_parameters": asked.target_parameters}
        return LoraConfig(
            **{
                "r": config.rank,
                "lora_alpha": config.alpha,
                "lora_dropout": self.dropout,
                "target_modules": ALL_LINEAR if targets == ALL_LINEAR else targets,
                "bias": "none",
                "task_type": "CAUSAL_LM",
                **excluded,
                **parameters,
                **own,
                **variant.peft_options,
                **options,
            }
        )

    def attach(
        self, model: PreTrainedModel, batches: Sequence[Batch] | None = None, horizon: int | None = None
    ) -> PeftModel:
        """The model with the variant's adapter, in its own start; see :meth:`autolora.variants.Variant.attach`.

        Args:
            model: frozen; its layers are wrapped in place.
            batches: token batches, for variants that start from data.
            horizon: optimizer steps of a full run, for variants that need it; None means :attr:`steps`.

        Raises:
            VariantError: see there; or the model is not a language model.
        """
        if not getattr(model, "can_generate", bool)():
            raise VariantError(
                f"trial.attach got a {type(model).__name__}: it trains adapters alone, so the new head of a model that "
                "is no language model would stay as it was drawn. Use get_peft_model(model, "
                'trial.peft_config(task_type="SEQ_CLS")), which trains the head, too, with a variant that PEFT has'
            )
        config = self._job.config
        attached = self.own_variant.attach(
            model,
            rank=config.rank,
            alpha=config.alpha,
            batches=batches,
            horizon=horizon or self.steps or 1,
            seed=torch_seed(self._spec.seed, self._job.seed, INITIALIZATION),
            dropout=self.dropout,
            allotted=self._session.allotted,
            adapter=self._spec.adapter.of_trial(config),
        )
        self._session.attached.append(attached)
        return attached

    def optimizer(self, model: PeftModel) -> torch.optim.Optimizer:
        """The variant's optimizer at the trial's learning rate, for a model that :meth:`attach` has returned."""
        made = self.own_variant.optimizer(model, self._job.config.learning_rate, weight_decay=self.weight_decay)
        self._session.optimizers.append(made)
        return made

    @property
    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """What :meth:`optimizer` has returned so far."""
        return tuple(self._session.optimizers)

    def _arguments_among_fields(self) -> dict[str, Any]:
        if not self.fields:
            return {}
        from transformers import TrainingArguments

        return {name: value for name, value in self.fields.items() if name in TrainingArguments.__dataclass_fields__}

    def arguments(self, micro_batch: int | None = None) -> dict[str, Any]:
        """The trial's settings under the names of ``transformers.TrainingArguments``, and of what derives from it.

        Learning rate, batch size by accumulation, seeds, the output folder, and what else is searched of its fields.
        Checkpoints, evaluation and logs are off: autolora checkpoints and evaluates itself.
        ``TrainingArguments(**arguments, ...)``.

        Args:
            micro_batch: most examples in one forward pass; None means ``training.micro_batch``, or as many as the batch
                has. Where memory runs out they become fewer, and the trainer is made again.
        """
        self._session.asked = True
        config, spec = self._job.config, self._spec
        asked = [micro_batch or spec.training.micro_batch, self._session.micro_batch]
        most = min([config.batch_size, *(limit for limit in asked if limit)])
        micro = max(size for size in range(1, most + 1) if config.batch_size % size == 0)
        searched = {
            "weight_decay": config.value("weight_decay"),
            "warmup_steps": config.value("warmup_ratio"),  # below 1 it is a share
            **self._arguments_among_fields(),
        }
        return {
            "output_dir": str(self.folder / "output"),
            "learning_rate": config.learning_rate,
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": config.batch_size // micro,
            "seed": self.seed,
            "data_seed": self.seed,
            "use_cpu": spec.training.device == "cpu",
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "eval_strategy": "no",
            "logging_steps": 1,
            **{name: value for name, value in searched.items() if value is not None},
        }
