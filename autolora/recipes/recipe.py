"""What there is to hand over: the tuned configuration, the settings of a full run, the model and the data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from autolora import files, quickstart, variants
from autolora import spec as specs
from autolora.adapters.export import WEIGHTS, bits_of_base, config_file
from autolora.adapters.optimizers import ADAMW
from autolora.adapters.spec import AdapterSpec
from autolora.analysis.carrying import Carried
from autolora.bases.folders import MERGED_BASE, holds_adapter
from autolora.bases.packed import SETTINGS, bits_asked
from autolora.documents import read_json, shaped
from autolora.driver.result import BEST_FOLDER, TunedVariant, TuneResult
from autolora.errors import AutoloraError
from autolora.search.rungs import own_examples
from autolora.space import Config
from autolora.space.dimensions.duration import Durations
from autolora.spec import BaseSpec, TrainingSpec
from autolora.study.directory import SPEC_FILE, STUDY_FILE, STUDY_NAME, NoStudyError, recorded_spec, storage_of
from autolora.trainer_specs import BUILTIN, KINDS, TrainerSpec
from autolora.trainers import horizon
from autolora.trainers.configurations import whole
from autolora.trainers.configurations.data import Data
from autolora.variants import Variant

AGAIN = "Run the same `autolora tune` to its end again, which writes it again; or restore it from a copy."


class _Exported(BaseModel):
    """What is read of an exported adapter's configuration."""

    base_model_name_or_path: str | None = None
    revision: str | None = None
    target_modules: list[str] | str | None = None
    target_parameters: list[str] | None = None


class RecipeError(AutoloraError, ValueError):
    """The settings cannot be written for this trainer; the message says which, and what to do."""


@dataclass(frozen=True)
class Recipe:
    """The tuned settings of one variant of a study.

    Attributes:
        folder: run directory.
        variant, tuned: the variant as it was tuned, and its outcome.
        metric: what ``tuned.value`` measures.
        spec: the recorded specification, as plain data, with the settings of ``training`` that the study found; not
            validated, for files may have gone since.
        longer: training examples of the run that is written, to which the tuned learning rate is carried; None: as many
            as it was tuned on.
    """

    folder: Path
    variant: Variant
    tuned: TunedVariant
    metric: str
    spec: files.Document
    longer: int | None = None

    @classmethod
    def load(cls, folder: Path, variant: str) -> Recipe:
        """Read the recipe of a variant from a run directory.

        Raises:
            RecipeError: no full run of the variant is there.
            ResultError, NoStudyError: the folder holds no finished study.
        """
        recorded = recorded_spec(folder)
        required = (*KINDS[_kind(recorded)].requires, "training")
        missing = [key for key in required if not recorded.get(key)]
        if missing:
            raise RecipeError(f"{files.shown(folder / SPEC_FILE)} records no {' and no '.join(missing)}. {AGAIN}")
        specs.register_variants_as_found(recorded)
        result = TuneResult.load(folder)
        if variant not in result.variants:
            known = ", ".join(result.variants) or "none"
            raise RecipeError(f"no finished run of variant {variant!r} in {files.shown(folder)}; finished: {known}")
        defaults = {name: field.get_default() for name, field in specs.Spec.model_fields.items()}
        spec = defaults | recorded
        spec["training"] = spec["training"] | dict(result.training)
        tuned = result[variant]
        return cls(folder, variants.get(variant).configured(**dict(tuned.config.options)), tuned, result.metric, spec)

    @cached_property
    def config(self) -> Config:
        tuned = self.tuned.config
        return tuned if self.carried is None else tuned.replaced(learning_rate=self.carried.learning_rate)

    @cached_property
    def carried(self) -> Carried | None:
        """The learning rate at another length than it was tuned at; None if the run is as long."""
        if self.longer is None:
            return None
        return Carried.of(self.tuned.config.learning_rate, self.tuned_examples, self.longer)

    @property
    def trainer_kind(self) -> str:
        """Which kind of trainer the study was tuned with; a key of :data:`autolora.trainer_specs.KINDS`."""
        return _kind(self.spec)

    @property
    def trainer(self) -> Mapping[str, Any]:
        """The recorded section of the trainer; empty if it is not a mapping."""
        recorded = self.spec["trainer"]
        return recorded if isinstance(recorded, Mapping) else {}

    @property
    def adapter(self) -> Path:
        """The exported adapter; found by the run directory, which may have been moved since.

        Raises:
            RecipeError: there is none.
        """
        if not self.tuned.adapter_dir:
            raise RecipeError(f"{self.variant.name} of {files.shown(self.folder)}: {'; '.join(self.tuned.notes)}")
        return self.folder / BEST_FOLDER / self.variant.name

    @property
    def without_adapter(self) -> str | None:
        """What a trainer left in place of an adapter in the form of PEFT, in words; None if it left one.

        Raises:
            RecipeError: it left nothing.
        """
        parts = (config_file(self.variant.export_form), WEIGHTS)
        folder = self.adapter
        if self.trainer_kind == BUILTIN or not folder.is_dir() or any((folder / name).exists() for name in parts):
            return None
        kind = self.trainer_kind
        who = "the command" if kind == "command" else f"trainer {kind}"
        return f"{who} left no adapter ({' and '.join(parts)}); {files.shown(folder)} is what it left"

    @property
    def seed(self) -> int:
        return int(self.spec["seed"])

    @cached_property
    def model(self) -> str:
        """Path of a model that is here, made absolute, or else its name as recorded, or else what the adapter fits."""
        if self.spec["model"] is None:
            return self.named_base or ""
        recorded = str(self.spec["model"]).removeprefix("<model ").removesuffix(">")
        path = files.expanded(quickstart.resolve(recorded))
        return str(path.resolve()) if path.is_dir() else recorded

    @property
    def named_base(self) -> str | None:
        """What the exported adapter says it fits; None if it says nothing."""
        named: str | None = self._exported.get("base_model_name_or_path")
        return named

    @property
    def named_revision(self) -> str | None:
        """The revision of :attr:`named_base` on the hub; None if the adapter names none."""
        revision: str | None = self._exported.get("revision")
        return revision

    @cached_property
    def _exported(self) -> files.Document:
        file = self.adapter / config_file(self.variant.export_form)
        if not file.exists():
            return {}
        content = read_json(file)
        shaped(content, _Exported.model_validate, file, AGAIN)
        return dict(content)

    @property
    def model_is_adapter(self) -> bool:
        """Whether the model of the study is an adapter, which autolora merged into its base."""
        folder, named = Path(self.model), self.named_base
        if folder.is_dir() or named is None:
            return folder.is_dir() and holds_adapter(folder)
        # of the hub: the exported adapter fits another base
        beside = Path(named) == self.adapter.resolve() / MERGED_BASE
        return beside or (Path(named) != folder and not Path(named).is_absolute() and not folder.is_absolute())

    def whole_model(self, tool: str) -> str:
        """:attr:`model` for tools that load a model and no adapter as one.

        Raises:
            RecipeError: the model of the study is an adapter, which autolora merged into its base.
        """
        if self.model_is_adapter:
            raise RecipeError(
                f"{tool} cannot start from {self.model}, which is an adapter: merge it into its base (PEFT's "
                "merge_and_unload, then save_pretrained) and tune that model, or export with --to peft"
            )
        return self.model

    @cached_property
    def training(self) -> TrainingSpec:
        """The settings of a full run, with those that were tuned."""
        recorded = self.folder / SPEC_FILE
        return shaped(self.spec["training"], TrainingSpec.model_validate, recorded, AGAIN).of_trial(self.config)

    @cached_property
    def data(self) -> Data:
        return Data.of(self.spec["data"])

    @cached_property
    def layers(self) -> tuple[list[str], list[str]] | None:
        """Names of the modules and of the parameters that were trained; None: PEFT's "all-linear"."""
        own = AdapterSpec().of_trial(self.config)
        searched = own != AdapterSpec()
        if not searched and (not self._has_study or "layers" not in (self.terms.get("context") or {})):
            return None
        if not self._exported:
            raise RecipeError(f"{files.shown(self.adapter)} holds no adapter: run `autolora tune` to its end again")
        return self._exported.get("target_modules") or [], self._exported.get("target_parameters") or []

    def adamw(self, tool: str) -> dict[str, float]:
        """Settings of AdamW that are not its usual ones, for tools that take no optimizer of ``torch`` by its name.

        Raises:
            RecipeError: another optimizer was tuned.
        """
        asked = self.training.optimized
        if asked.name != ADAMW.name:
            raise RecipeError(
                f"{tool} has no option for the optimizer {asked.name!r} as autolora trains with it: export to trl or "
                "peft, or tune with adamw"
            )
        return asked.settings

    @property
    def _has_study(self) -> bool:
        return self.spec["storage"] is not None or (self.folder / STUDY_FILE).is_file()

    @cached_property
    def terms(self) -> Mapping[str, Any]:
        """What the study was started with."""
        from autolora.study import Study

        if not self._has_study:
            raise NoStudyError(
                f"{files.shown(self.folder)} does not tell the length of a full run: {STUDY_FILE} is not there"
            )
        return Study.read(storage_of(self.spec["storage"], self.folder), STUDY_NAME).terms

    def fingerprint(self, name: str) -> str | None:
        """What the study recorded of something that scores depend on; None if it is not there."""
        found = (self.terms.get("context") or {}).get(name) if self._has_study else None
        return None if found is None else str(found)

    @property
    def examples_of_study(self) -> int | None:
        """Training examples of a full run, as the study began with them; None if it is not there."""
        return int(self.terms["examples"]) if self._has_study and self.terms.get("examples") else None

    @cached_property
    def tuned_examples(self) -> int:
        """Training examples of the tuned run: from the specification, or as counted when the study began."""
        durations = self._durations
        whole = self.spec["training"].get("examples") if durations is None else None
        full_run = int(whole) if whole is not None else int(self.terms["examples"])
        return self.shortened(full_run)

    def shortened(self, full_run: int) -> int:
        """Training examples of the tuned configuration, of a full run of the study."""
        duration, durations = self.tuned.config.value("duration"), self._durations
        if durations is None or duration is None:
            return full_run
        return own_examples(full_run, duration / durations.longest)

    @cached_property
    def _durations(self) -> Durations | None:
        space = self.spec.get("space")  # of a record that lacks it the default, which has none
        recorded = space.get("duration") if isinstance(space, Mapping) else None
        where = self.folder / SPEC_FILE
        return None if recorded is None else shaped(recorded, Durations.model_validate, where, AGAIN)

    @property
    def examples(self) -> int:
        """Training examples of the run that is written."""
        return self.longer or self.tuned_examples

    @property
    def steps(self) -> int:
        """Optimizer steps of the run that is written."""
        return horizon(self.examples, self.config.batch_size)

    @property
    def warmup_steps(self) -> int:
        if self.training.schedule == "constant":  # knows no warmup, whatever the ratio says
            return 0
        return math.ceil(self.training.warmup_ratio * self.steps)

    @property
    def micro_batch(self) -> int:
        """Largest divisor of the batch size within ``training.micro_batch``."""
        batch = self.config.batch_size
        limit = min(batch, self.training.micro_batch or batch)
        return next(size for size in range(limit, 0, -1) if batch % size == 0)

    @property
    def accumulation(self) -> int:
        return self.config.batch_size // self.micro_batch

    @property
    def bits(self) -> int | None:
        """Bits that the specification quantizes the base to: 4 or 8, or None if it leaves that to the model's files."""
        return bits_asked(BaseSpec.model_validate(self.spec["base"] or {}))

    @cached_property
    def base_bits(self) -> int | None:
        """Bits of the base that the adapter was trained on, also if it was saved so: 4 or 8, or None."""
        return self.bits or (bits_of_base(self.adapter) if self.tuned.adapter_dir else None)

    def packing(self, compute: str = "") -> str:
        """The keyword of ``from_pretrained``, as Python, that packs the base as in the study; empty if it is not.

        Args:
            compute: name of the dtype that 4 bits are computed in; empty: that of ``transformers``.
        """
        if self.bits is None:
            return ""
        settings = [
            f"{key}={json.dumps(value) if isinstance(value, str) else value}"
            for key, value in SETTINGS[self.bits].items()
        ]
        settings += [f"bnb_4bit_compute_dtype={compute}"] if compute and self.bits == 4 else []
        return f", quantization_config=BitsAndBytesConfig({', '.join(settings)})"

    @property
    def loraplus_ratio(self) -> float:
        """Learning rate of B over that of A."""
        ratio: float = self.variant.options.get("ratio", 1.0)
        return ratio

    def peft_options(self, tool: str, names: Mapping[str, str] | None = None) -> dict[str, object]:
        """The variant's ``LoraConfig`` options.

        Args:
            tool: the trainer, for the error.
            names: what the tool calls each option it has; None: as PEFT does.

        Raises:
            RecipeError: PEFT or the tool has no such option, or none that leaves a quantized base as it is.
        """
        options = self.variant.peft_options
        if self.base_bits and self.variant.subtracts:
            raise RecipeError(
                f"{tool} has no {self.variant.title} for a base in {self.base_bits} bits: its start there would change "
                "the base. Export the trained adapter with --to peft, or train the variant with autolora"
            )
        if options is None or (names is not None and not options.keys() <= names.keys()):
            raise self.inexpressible(tool)
        return {names[key] if names else key: value for key, value in options.items()}

    def inexpressible(self, tool: str) -> RecipeError:
        return RecipeError(
            f"{tool} has no option for {self.variant.title}: export the trained adapter with --to peft, "
            "or train the variant with autolora"
        )

    def whole_alpha(self, tool: str) -> int:
        """Alpha for tools that declare it an integer.

        Raises:
            RecipeError: rounding would change the scale of the adapter noticeably.
        """
        alpha = self.config.alpha
        rounded = whole(alpha)
        if rounded is None:
            raise RecipeError(
                f"{tool} takes a whole alpha, and {alpha:g} is too far from {max(1, round(alpha))}: "
                "tune with whole alphas in space.alpha, or export to trl"
            )
        return rounded

    @property
    def summary(self) -> str:
        """One line on what was tuned and how well it did."""
        runs = "1 run" if len(self.tuned.seeds) == 1 else f"mean of {len(self.tuned.seeds)} seeds"
        found = f"{self.variant.title}, tuned by autolora: {self.metric} {self.tuned.value:.6g} ({runs})"
        return found if self.carried is None else f"{found}; {self.carried.words}"


def _kind(recorded: Mapping[str, Any]) -> str:
    """The kind of trainer of a recorded specification, which is not validated: files may have gone."""
    trainer = recorded.get("trainer", BUILTIN)
    if isinstance(trainer, Mapping):
        return next((key for key in trainer if key in KINDS), BUILTIN)
    return BUILTIN if trainer in (None, BUILTIN) or isinstance(trainer, TrainerSpec) else "function"


def yaml_file(path: Path, recipe: Recipe, notes: list[str], sections: Mapping[str, Mapping[str, object]]) -> Path:
    """Write a YAML file: what it is, what is not as in the study, and the sections one after the other."""
    lines = [f"# {recipe.summary}", *(f"# {note}" for note in notes)]
    for title, content in sections.items():
        dumped = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000)
        lines += ["", f"# {title}", dumped.rstrip()]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, "\n".join(lines) + "\n")
    return path
