"""A trainer of TRL's, run with its own configuration file and stopped at the rungs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from autolora.adapters.errors import VariantError
from autolora.adapters.spec import ALL_LINEAR, AdapterSpec
from autolora.bases.device import find_device
from autolora.search import Job
from autolora.space import FIELDS, Config, Space, searchable
from autolora.spec import BaseSpec, Spec
from autolora.trainer_specs.trl import TrlTrainerSpec
from autolora.trainers.transformers.making import Maker
from autolora.trainers.transformers.settings import plain_value
from autolora.trainers.transformers.trainer import TransformersTrainer
from autolora.trainers.trial import Trial
from autolora.trainers.trl.configuration import ALIASES, OFF, Configuration, TrlError
from autolora.trainers.trl.kinds import KINDS, Kind, load_scorer
from autolora.trainers.trl.rows import Rows, of_file, tokenized, untouched
from autolora.variants import Variant, registry

if TYPE_CHECKING:
    import transformers

OURS = ("lora_r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "use_peft", "max_steps")
"""Keys of TRL's that a trial's settings, or the study's, take the place of."""
NAMED = {"use_rslora": "rslora", "use_dora": "dora"}
"""Variants by the key with which TRL's files ask for them."""
FEW, TOKENS = 2, 8
"""Rows that a trainer is made on to look at its reference model, and tokens that this is looked at on."""
NEAR = 1e-3
"""Relative difference of outputs that are the same but for rounding."""


class TrlTrainer(TransformersTrainer):
    """Trains segments with SFT, DPO, KTO, GRPO, RLOO or a reward model, by TRL's own classes.

    ``model`` and ``data`` of the specification take the place of what the file names.

    Args:
        spec: of the study.
        folder: run directory.

    Raises:
        TrlError: TRL is not installed, or its file cannot be used.
    """

    def __init__(self, spec: Spec, folder: Path) -> None:
        asked = spec.trainer
        assert isinstance(asked, TrlTrainerSpec)
        on_cpu = find_device(spec.training.device).type == "cpu"
        self.configuration = Configuration(asked.trl, asked.config, on_cpu)
        self.kind: Kind = KINDS[asked.trl]
        self._known_rows: Rows | None = None
        self._store = TemporaryDirectory(prefix="autolora-rows-")  # as long as this trainer
        super().__init__(_completed(spec, self.configuration), folder)

    def baseline(self) -> Config | None:
        if self.configuration.file is None:
            return None
        parsed = self.configuration.as_written
        further = {name: self._value(key) for name, key in ALIASES.items()}
        if (further["warmup_ratio"] or 0.0) >= 1:  # steps, which are no share of a run of another batch size
            further["warmup_ratio"] = None
        return Config(
            learning_rate=parsed.training.learning_rate,
            batch_size=parsed.batch_size,
            rank=parsed.model.lora_r,
            alpha=float(parsed.model.lora_alpha),
            further=tuple((name, value) for name, value in further.items() if value is not None),
        )

    def _value(self, key: str) -> float | None:
        found = self.configuration.as_written.value(key)
        return None if found is None else float(found)

    def standards(self, space: Space) -> Mapping[str, object]:
        parsed = self.configuration.as_written
        found = {name: plain_value(parsed.value(name)) for name in FIELDS.of(space)}
        return {name: value for name, value in found.items() if isinstance(value, (bool, int, float, str, list))}

    def is_cross_entropy(self, trainer: transformers.Trainer) -> bool:
        return self.configuration.kind == "sft"

    def make(self, trial: Trial) -> transformers.Trainer:
        return self._made_on(trial, None)

    def _made_on(self, trial: Trial, most: int | None) -> transformers.Trainer:
        """The trainer of a trial, on at most so many rows of each kind; None: on all."""
        import trl

        model, tokenizer = trial.base(partial(load_scorer, self.spec) if self.kind.classifies else None)
        rows = self._rows(model, tokenizer)
        parsed = self.configuration.parsed(**self._changes(trial))
        if self.kind.classifies:
            adapter = {"model": model, "peft_config": trial.peft_config(task_type="SEQ_CLS")}
        else:
            padding = next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)
            needed = trial.own_variant.needs_batches
            batches = rows.calibration(padding, self.spec.seed, model.device) if needed else None
            adapter = {"model": trial.attach(model, batches=batches)}
        shown = rows if most is None else rows.first(most)
        # Under two names TRL prepares both splits, and is then left with the first.
        scored = shown.eval if shown.test is None else {"eval": shown.eval, "test": shown.test}
        made: transformers.Trainer = getattr(trl, self.kind.trainer)(
            **adapter,
            **self.kind.extras(parsed.script),
            args=parsed.training,
            train_dataset=shown.train,
            eval_dataset=scored,
            processing_class=tokenizer,
        )
        if shown.test is not None:
            made.eval_dataset, made.test_dataset = made.eval_dataset["eval"], made.eval_dataset["test"]
        # TRL puts adapters of a packed base into bfloat16, where small steps round to nothing.
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return made

    def _changes(self, trial: Trial) -> dict[str, object]:
        """What a trial changes of the file."""
        searched = {key: trial.config[name] for name, key in ALIASES.items() if name in trial.config} | trial.fields
        micro = self.configuration.as_written.training.per_device_train_batch_size
        on_cpu = self.configuration.on_cpu or self.spec.training.device == "cpu"
        return {**trial.arguments(micro_batch=micro), **searched, "use_cpu": on_cpu}

    def _rows(self, model: Any, tokenizer: Any) -> Rows:
        if self._known_rows is None:
            self._known_rows = self._read_rows(model, tokenizer).on_disk(Path(self._store.name))
        return self._known_rows

    def _read_rows(self, model: Any, tokenizer: Any) -> Rows:
        from autolora.bases.limits import limits_of

        if self.spec.data is None:
            return of_file(self.configuration, self.spec.seed)
        if not self.kind.reads_tokens:
            return untouched(self.spec)
        longest = self.configuration.as_written.training.max_length
        return tokenized(self.spec, tokenizer, limits_of(model), longest, self.folder / "data")

    def check(self, variants: Sequence[str], space: Space, baselines: Mapping[str, Config]) -> None:
        tokens = self._known_rows is not None and self._known_rows.split is not None
        for name in variants:
            if registry.get(name).needs_batches and not tokens:
                raise VariantError(
                    f"{name} starts from data, which trainer trl: {self.configuration.kind} has no tokens of: leave "
                    f"{name} out of variants"
                )
        self.configuration.check_fields(FIELDS.of(space).values(), taken=(*OURS, *OFF, *ALIASES.values()))
        super().check(variants, space, baselines)
        for size in space.batch_size:
            self.configuration.parsed(per_device_train_batch_size=size)
        for name in variants:
            self._check_reference(registry.get(name), searchable.largest(space, registry.get(name)))

    def _check_reference(self, variant: Variant, config: Config) -> None:
        """Refuse a variant that TRL makes another reference model of than what its training starts from."""
        import torch

        job = Job(0, variant.name, config, seed=0, start=0.0, stop=1.0, rung=len(self.spec.rungs) - 1)
        maker = Maker(self.spec, lambda trial: self._made_on(trial, FEW), self.resident)
        refused = VariantError(
            f"{variant.name} cannot be trained by TRL's {self.configuration.kind}, whose reference model is a copy of "
            f"the adapter: a copy of {variant.title}'s is another model. Leave {variant.name} out of variants"
        )
        try:
            with TemporaryDirectory(prefix="autolora-") as folder, maker.making(job, Path(folder)) as made:
                model = made.model
                if "ref" not in getattr(model, "peft_config", {}):
                    return
                ids = torch.arange(TOKENS, device=model.device).unsqueeze(0)
                model.eval()
                with torch.no_grad():
                    start = model(ids).logits
                    model.set_adapter("ref")
                    reference = model(ids).logits
                    model.set_adapter("default")
        except RuntimeError as error:
            raise refused from error
        if not torch.allclose(start, reference, atol=NEAR * float(start.abs().max())):
            raise refused

    def hidden_size(self) -> int | None:
        return self.facts.hidden_size

    def about(self) -> Mapping[str, Sequence[str]]:
        about = {subject: list(lines) for subject, lines in super().about().items()}
        about.setdefault("data", []).extend([] if self._known_rows is None else self._known_rows.lines)
        about.setdefault("warning", []).extend(self.configuration.warnings())
        return about

    @cached_property
    def _digest(self) -> str:
        """Of the file, without what trials change and what changes nothing."""
        kept = {key: value for key, value in self.configuration.content.items() if key not in (*OURS, *OFF)}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def fingerprints(self) -> Mapping[str, str]:
        return {**super().fingerprints(), "trl": f"{self.configuration.kind} {self._digest}"}


def _completed(spec: Spec, configuration: Configuration) -> Spec:
    """The specification with what TRL's file says of the model, its adapter and its training, where it says nothing."""
    parsed = configuration.as_written
    model, training = parsed.model, parsed.training
    if model.lora_modules_to_save:
        raise TrlError(
            f"trainer.config: {configuration.where}: lora_modules_to_save trains whole modules, which the variants do "
            "not: leave it out"
        )
    for key, name in NAMED.items():
        if getattr(model, key) and name not in spec.names:
            raise TrlError(
                f"trainer.config: {configuration.where} trains {name} ({key}: true), which is a variant here: name "
                f"{name} in variants, or remove the key"
            )
    changes: dict[str, Any] = {}
    if spec.model is None:
        if not model.model_name_or_path:
            raise TrlError(f"model: {configuration.where} names no model_name_or_path: add it, or set model")
        changes |= {
            "model": model.model_name_or_path,
            "revision": None if model.model_revision in (None, "main") else model.model_revision,
            "trust_remote_code": bool(getattr(training, "trust_remote_code", False)),
        }
    if spec.base == BaseSpec():
        if model.load_in_4bit and model.bnb_4bit_quant_type != "nf4":
            raise TrlError(f"trainer.config: {configuration.where}: bnb_4bit_quant_type: only nf4 is known here")
        changes["base"] = BaseSpec(
            attn_implementation=model.attn_implementation,
            load_in_4bit=model.load_in_4bit,
            load_in_8bit=model.load_in_8bit,
        )
    if spec.adapter == AdapterSpec() and model.lora_target_modules not in (None, [], ALL_LINEAR):
        targets = model.lora_target_modules
        parameters = model.lora_target_parameters or ()
        changes["adapter"] = AdapterSpec(
            target_modules=targets if isinstance(targets, str) else tuple(targets),
            target_parameters=(parameters,) if isinstance(parameters, str) else tuple(parameters),
        )
    dtype = (model.dtype or "float32") if spec.training.dtype == "auto" else spec.training.dtype
    device = "cpu" if training.use_cpu and spec.training.device == "auto" else spec.training.device
    changes["training"] = spec.training.model_copy(
        update={
            "dropout": model.lora_dropout,
            "weight_decay": training.weight_decay,
            "dtype": dtype,
            "device": device,
        }
    )
    return spec.model_copy(update=changes)
