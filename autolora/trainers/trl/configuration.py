"""A configuration file of TRL's, read by TRL's own parser."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from autolora import files
from autolora.documents import DocumentError, read_yaml
from autolora.errors import AutoloraError, closest
from autolora.space.field import Field
from autolora.space.named import Choice, unheld

ALIASES: Mapping[str, str] = {"dropout": "lora_dropout", "warmup_ratio": "warmup_steps", "weight_decay": "weight_decay"}
"""TRL's keys by the names of the dimensions that are optional. Below 1, ``warmup_steps`` is a share of the run."""
OFF: Mapping[str, object] = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "report_to": "none",
    "do_train": True,
    "resume_from_checkpoint": None,
}
"""What autolora does itself, at the rungs."""

LAYERS = ("lora_target_modules", "lora_target_parameters")
"""Keys of the model that a trial may vary."""
LENGTHS = ("max_steps", "num_train_epochs")


class TrlError(AutoloraError, ValueError):
    """TRL is missing, or its configuration cannot be used; the message says which key of which file."""


@dataclass(frozen=True)
class Parsed:
    """The four parts into which TRL parses a configuration.

    Attributes:
        script: where the rows are, and what the trainer is given beside.
        training: the ``TrainingArguments``.
        model: the model and its adapter.
        data: a mixture of data sets.
        unknown: keys that TRL does not know.
    """

    script: Any
    training: Any
    model: Any
    data: Any
    unknown: tuple[str, ...]

    @property
    def batch_size(self) -> int:
        """Examples of an optimizer step in this process."""
        return int(self.training.per_device_train_batch_size * self.training.gradient_accumulation_steps)

    def value(self, key: str) -> Any:
        """The value of a key of the model, its adapter or the training; None if there is no such key."""
        return getattr(self.model, key, getattr(self.training, key, None))

    def names(self) -> list[str]:
        """All keys that this trainer knows."""
        return [field.name for part in (self.script, self.training, self.model, self.data) for field in fields(part)]


@dataclass(frozen=True)
class Configuration:
    """What ``trl <kind> --config <file>`` would read.

    Args:
        kind: "sft", "dpo" and so on.
        file: YAML; None means TRL's defaults.
        on_cpu: whether it trains on a CPU, which TRL wants to be told of.
    """

    kind: str
    file: str | None
    on_cpu: bool = False

    @cached_property
    def content(self) -> dict[str, object]:
        """The file's keys.

        Raises:
            TrlError: it is not a YAML mapping.
        """
        if self.file is None:
            return {}
        try:
            found = read_yaml(Path(self.file))
        except DocumentError as error:
            raise TrlError(f"trainer.config: {error}") from None
        if not isinstance(found, dict):
            raise TrlError(f"trainer.config: {self.where} must hold keys such as learning_rate, not {found!r:.40}")
        return found

    @property
    def where(self) -> str:
        """The file, for messages."""
        return "TRL's defaults" if self.file is None else files.shown(self.file)

    def parsed(self, **changes: object) -> Parsed:
        """As TRL's parser reads the file, with some keys changed, and with :data:`OFF`.

        Raises:
            TrlError: TRL is not installed, or refuses a value.
        """
        try:
            parser = importlib.import_module(f"trl.scripts.{self.kind}").make_parser()
        except ImportError as error:
            raise TrlError(f'trainer: trl needs TRL: pip install "autolora-tune[trl]" ({error})') from None
        content = {**self.content, **OFF, **({"use_cpu": True} if self.on_cpu else {}), **changes}
        content.setdefault("output_dir", os.curdir)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.yaml"
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
            try:
                *parts, remaining = parser.parse_args_and_config(["--config", str(path)], return_remaining_strings=True)
            except (ValueError, TypeError, OSError, SystemExit) as error:
                said = f"{error}".strip() or type(error).__name__
                raise TrlError(f"trainer.config: TRL's {self.kind} refuses {self.where}: {said}") from error
        unknown = tuple(word[2:] for word in remaining if word.startswith("--"))
        script, training, model, data = parts
        return Parsed(script, training, model, data, unknown)

    @cached_property
    def as_written(self) -> Parsed:
        """The file without changes."""
        return self.parsed()

    def check_fields(self, searched: Iterable[Field], taken: Collection[str]) -> None:
        """Refuse fields that TRL does not have, that are set otherwise, or whose values TRL does not take.

        Args:
            searched: fields of the space.
            taken: keys that the study or a trial sets.

        Raises:
            TrlError: naming field and value.
        """
        own = [field.name for field in fields(self.as_written.training)]
        known = [name for name in (*own, *LAYERS) if name not in (*taken, *LENGTHS)]
        for field in searched:
            where = f"space.fields.{field.name}"
            if field.name in (*taken, *LENGTHS):
                raise TrlError(f"{where}: the study sets it itself, or as a dimension of its own; leave it out")
            if field.name not in known:
                close = closest(field.name, known)
                hint = f"did you mean {close!r}?" if close else f"see the arguments of {self.kind} in TRL"
                raise TrlError(f"{where}: TRL's {self.kind} has no such setting of its training; {hint}")
            usual = getattr(self.as_written.value(field.name), "value", self.as_written.value(field.name))
            for value in field.corners:
                if not _alike(value, usual):
                    raise TrlError(
                        f"{where}: {unheld(value)!r} is not allowed; TRL's {self.kind} has {usual!r} there, a "
                        f"{type(usual).__name__}"
                    )
                try:
                    self.parsed(**{field.name: unheld(value)})
                except TrlError as error:
                    raise TrlError(f"{where}: {unheld(value)!r}: {error}") from None

    def warnings(self) -> list[str]:
        """A line on each key that TRL does not know."""
        known = self.as_written.names()
        lines = []
        for key in self.as_written.unknown:
            close = closest(key, known)
            hint = f"; did you mean {close!r}?" if close else ""
            lines.append(f"{self.where}: TRL's {self.kind} does not know {key!r}, which has no effect{hint}")
        return lines


def _alike(value: Choice, usual: object) -> bool:
    """Whether a value is of the type that a setting has; of one that is None by default, nothing is known."""
    if isinstance(usual, bool) or isinstance(value, bool):
        return usual is None or isinstance(usual, bool) is isinstance(value, bool)
    if isinstance(usual, int):
        return isinstance(value, int)
    if isinstance(usual, float):
        return isinstance(value, (int, float))
    return not isinstance(usual, str) or isinstance(value, str)
