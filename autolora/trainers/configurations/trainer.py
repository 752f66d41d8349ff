"""Trainers that run a tool with a configuration file of the user's, whose values are replaced for each trial."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shlex
import shutil
import sys
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

from autolora import files, quickstart
from autolora import spec as specs
from autolora import variants as registered
from autolora.bases import ModelError
from autolora.bases.pretrained import hidden_size, load_config
from autolora.documents import DocumentError, read_json
from autolora.errors import first_line
from autolora.files import Document
from autolora.search import Job
from autolora.search.rungs import steps_until
from autolora.space import FIELDS, Config, Range, Space, Traits, registry
from autolora.spec import Spec
from autolora.trainer_specs.command import ConfiguredSpec
from autolora.trainers import checkpoint
from autolora.trainers.command.attempt import Launch
from autolora.trainers.command.process import end_marked
from autolora.trainers.command.reports import EVAL
from autolora.trainers.command.trainer import TOLD, ProcessTrainer
from autolora.trainers.configurations.axolotl import AXOLOTL_TOOL
from autolora.trainers.configurations.data import Data
from autolora.trainers.configurations.file import ALWAYS, FURTHER, ConfigFile
from autolora.trainers.configurations.llamafactory import LLAMA_FACTORY_TOOL
from autolora.trainers.configurations.tool import ConfigurationError, Tool, whole
from autolora.trainers.trainer import OnStep, Outcome
from autolora.trainers.trial import Trial

MODULE = "autolora.integrations.llamafactory"
CONFIG, OUTPUT = "config.yaml", "output"
"""In the folder of a trial: the file that it is trained with, and what the tool writes."""
STATE = "trainer_state.json"
"""What a ``transformers.Trainer`` writes last of a checkpoint."""
_NAME = re.compile(r"checkpoint-(\d+)")
SAFE_ALPHA = 10
"""From here on, rounding to a whole number changes alpha by less than ALPHA_TOLERANCE."""


class ConfiguredTrainer(ProcessTrainer):
    """Runs a tool that trains with a ``transformers.Trainer``, from a configuration file of the user's.

    The tool writes its checkpoints into the folder of the trial and goes on from the newest of them. What makes it stop
    at a rung, score and report is :class:`autolora.integrations.segment.SegmentCallback`, in its own process.

    Args:
        spec: of the study.
        folder: run directory.

    Raises:
        ConfigurationError: the file cannot be tuned, or does not say how long a run is.
        DocumentError: the file is not YAML.
    """

    tool: ClassVar[Tool]
    settings: ConfiguredSpec

    def __init__(self, spec: Spec, folder: Path) -> None:
        super().__init__(spec, folder)
        self.file = ConfigFile.read(self.tool, Path(self.settings.file), self.settings.devices)
        self.file.check(self.settings.early_stop, has_data=spec.data is not None)
        self._rows = None if spec.data is None else Data.of(dict(cast(Document, specs.dump(spec)["data"])))
        if self._rows is not None:
            self.tool.data(self._rows, folder)  # refused now, if ever
        found = self.settings.examples or self.file.examples
        if found is None:
            steps = self.tool.keys.max_steps
            how = f"the training rows times the epochs, or {steps} in the file"
            if self._packing is not None:
                how = (
                    f"the packed sequences times the epochs, or better {steps} in the file. The file has "
                    f"{self._packing}, so rows do not tell it"
                )
            raise ConfigurationError(
                f"{files.shown(self.file.path)} does not say how many examples a full run trains on: set "
                f"trainer.examples, {how}"
            )
        self._examples = found

    @property
    def examples(self) -> int:
        return self._examples

    @property
    def _packing(self) -> str | None:
        """The setting by which rows are packed, in words; None if each row is an example."""
        return self.tool.packing(self.file.values)

    @property
    def model(self) -> str | None:
        """The specification's model, which replaces the file's; None if it names none."""
        if self.spec.model is None:
            return None
        assert isinstance(self.spec.model, str)
        named = files.expanded(quickstart.resolve(self.spec.model))
        return str(named.resolve()) if named.is_dir() else self.spec.model

    def launch(self, trial: Trial) -> Launch:
        config = trial.folder / CONFIG
        resume = next(iter(_checkpoints(trial.folder / OUTPUT)), None) if self.settings.early_stop else None
        data, beside = ({}, {}) if self._rows is None else self.tool.data(self._rows, trial.folder)
        text = self.file.trial(
            trial.values,
            variant=trial.own_variant,
            examples=trial.examples or self.examples,
            seed=trial.seed,
            output=trial.folder / OUTPUT,
            resume=resume,
            model=self.model,
            data=data,
        )
        return Launch(f"{self.launcher} {files.argument(config)}", {config: text, **beside})

    @property
    @abstractmethod
    def launcher(self) -> str:
        """The command line before the file's name."""

    def run(self, segment: Job, on_step: OnStep | None = None) -> Outcome:
        told = self._beside(segment.trial, TOLD)
        end_marked(told)  # or it could still write
        self._check_same(told, segment)
        manifest, _ = self.trials.begun(segment, checkpoint.newest_files)
        said = None if segment.rung in manifest.scores else self._reached(segment)
        if said is None:
            return super().run(segment, on_step)
        return self._committed(segment, manifest, said[self.spec.metric.name], manifest.seconds, said)

    def _reached(self, segment: Job) -> dict[str, Any] | None:
        """What the tool's checkpoint holds, with the score, if the segment was trained to its end before a crash."""
        last = steps_until(segment.stop, self.examples_of(segment.config), segment.config.batch_size)
        for path in _checkpoints(self.work(segment.trial) / OUTPUT):
            logs = _state(path)["log_history"]
            reached = [each for each in logs if each.get("step", 0) >= last]
            names = (self.spec.metric.name, EVAL + self.spec.metric.name)
            scores = [each[name] for each in reached for name in names if name in each]
            if scores and math.isfinite(scores[-1]):
                said = {name: value for each in reached for name, value in each.items()}
                return {**said, self.spec.metric.name: float(scores[-1])}
        return None

    def fingerprints(self) -> Mapping[str, str]:
        rows = {} if self._rows is None else {"data": self._named_rows(self._rows)}
        return {self.tool.kind: self.file.digest, **rows, **super().fingerprints()}

    def _named_rows(self, rows: Data) -> str:
        settings, beside = self.tool.data(rows, Path())
        return json.dumps([settings, sorted(beside.values())], sort_keys=True)

    def standards(self, space: Space) -> Mapping[str, object]:
        return self.file.standards(FIELDS.of(space))

    def baseline(self) -> Config | None:
        return self.file.baseline(self.examples)

    def hidden_size(self) -> int | None:
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[int | None, str]:
        """Width of the model that the file names, and why it is not known."""
        named = self.model or self.file.model
        if named is None:
            return None, f"the file names no {self.tool.keys.model}"
        try:
            return hidden_size(load_config(self.spec.model_copy(update={"model": named}))), ""
        except ModelError as error:
            return None, first_line(error)

    def check(self, variants: Sequence[str], space: Space, baselines: Mapping[str, Config]) -> None:
        """Refuse variants, dimensions, alphas and batch sizes that the tool cannot be told.

        Raises:
            ConfigurationError: naming the variant or the dimension.
        """
        if self.settings.launcher is None and self._lacking is not None:
            raise ConfigurationError(self._lacking)
        for dimension in registry():
            if dimension.searched(space) and dimension.name not in (*ALWAYS, *FURTHER):
                raise ConfigurationError(f"space.{dimension.name}: {self.tool.name} has no such setting; leave it out")
        for warning in self.file.check_fields(FIELDS.of(space)):
            warnings.warn(warning, stacklevel=2)
        for batch in (*space.batch_size, *(config.batch_size for config in baselines.values())):
            if not self.file.divides(batch):
                raise ConfigurationError(f"space.batch_size: {batch} is not a multiple of trainer.devices")
        for name in variants:
            self.tool.made(registered.get(name), self.file.values)
            alphas = list(_alphas(registered.get(name).traits, space))
            alphas += [baselines[name].alpha] if name in baselines else []
            for alpha in alphas:
                if whole(alpha) is None:
                    raise ConfigurationError(
                        f"space.alpha: {self.tool.name} takes a whole alpha, and {alpha:g} of {name} is too far from "
                        "one: give whole numbers, or a range from 10 on"
                    )

    @property
    @abstractmethod
    def _lacking(self) -> str | None:
        """What has to be installed before the default launcher can run; None if nothing."""

    @property
    def _splits_by_seed(self) -> bool:
        if self._rows is not None:
            drawn = self.tool.draws_by_seed and self._rows.eval_size is not None
            return self._rows.eval is None or drawn
        return self.tool.splits_by_seed(self.file.values)

    def about(self) -> Mapping[str, Sequence[str]]:
        lines = [f"{self.tool.name} with {files.shown(self.file.path)}: {self.launcher}"]
        warned = []
        unknown = ", ".join(self.file.unknown())
        if unknown:
            warned.append(f"{self.tool.name} {self.tool.release} does not know {unknown}")
        if self._packing is not None and self.settings.examples is not None:
            most = self.file.examples
            said = "" if most is None else f". By {self.tool.keys.max_steps} of the file a full run has {most:,}"
            warned.append(
                f"the file has {self._packing}: a batch holds packed sequences, and trainer.examples, "
                f"{self.examples:,}, counts those. Training rows times epochs would make a run several times too long"
                f"{said}"
            )
        own = self.file.own_switches
        made = [self.tool.made(registered.get(name), self.file.values) for name in self.spec.names]
        if own and not any(own <= each.keys() for each in made):
            verb = "is" if len(own) == 1 else "are"
            names = ", ".join(self.spec.names)
            warned.append(f"{', '.join(sorted(own))} of the file {verb} not used, since variants are {names}")
        if self._splits_by_seed:
            warned.append(
                "evaluation rows are chosen by the seed, so further seeds of a configuration are scored on other rows; "
                "name rows of their own, and all of them"
            )
        width, reason = self._found
        if width is None and self.spec.space.hidden_size is None:
            warned.append(f"the width of the model is not known ({reason}); set space.hidden_size")
        if self._rows is not None:
            warned.extend(self._rows.notes)
        if self.spec.data is not None and (self.spec.data.test is not None or self.spec.data.test_size):
            warned.append(f"data.test has no effect: {self.tool.name} is given rows to train and to evaluate on")
        about = super().about()
        return {**about, "trainer": lines, **({"warning": warned} if warned else {})}


class AxolotlTrainer(ConfiguredTrainer):
    """Runs ``axolotl train``, with a plugin of autolora's."""

    tool = AXOLOTL_TOOL

    @property
    def launcher(self) -> str:
        return self.settings.launcher or "axolotl train"

    @property
    def _lacking(self) -> str | None:
        if shutil.which("axolotl"):
            return None
        return "there is no command axolotl: install axolotl, or set trainer.launcher to what starts it"


class LlamaFactoryTrainer(ConfiguredTrainer):
    """Runs LLaMA-Factory's training with a callback of autolora's."""

    tool = LLAMA_FACTORY_TOOL

    @property
    def launcher(self) -> str:
        return f"{self.settings.launcher or f'{shlex.quote(sys.executable)} -m'} {MODULE}"

    @property
    def _lacking(self) -> str | None:
        if importlib.util.find_spec("llamafactory"):
            return None
        return (
            "LLaMA-Factory is not installed beside autolora: set trainer.launcher to the Python of its environment, as "
            "in `launcher: /path/to/bin/python -m`, and install autolora there with pip install --no-deps"
        )


def _alphas(traits: Traits, space: Space) -> Iterator[float]:
    """The alphas that a study may come upon; of a range, what is hardest to round."""
    for rank in space.rank:
        alphas = space.alphas(traits, rank)
        if isinstance(alphas, Range):
            yield alphas.low + 0.5 if alphas.low < SAFE_ALPHA and alphas.high > alphas.low else alphas.low
        else:
            yield from alphas


def _checkpoints(output: Path) -> Iterator[Path]:
    """The whole checkpoints of a tool, the newest first; those that were cut short are removed."""
    found = [(int(match[1]), path) for path in output.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    for _, path in sorted(found, reverse=True):
        if _state(path):
            yield path
        else:
            shutil.rmtree(path)


def _state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint; empty if it was not written whole."""
    try:
        content = read_json(path / STATE)
    except (FileNotFoundError, DocumentError):
        return {}
    return content if isinstance(content, dict) and "log_history" in content else {}
