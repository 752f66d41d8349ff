"""What is to be known of a tool that trains from a configuration file: its keys, their defaults, what it cannot do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from autolora.errors import AutoloraError
from autolora.trainers.configurations.data import PLACEHOLDER, Data
from autolora.trainers.configurations.document import Change
from autolora.variants import Variant

Values = Mapping[str, Any]
"""The content of a configuration file: values by key."""

ALPHA_TOLERANCE = 0.05
"""Relative change of alpha, and so of the adapter's scale, that is far below what tuning resolves."""


class ConfigurationError(AutoloraError, ValueError):
    """A configuration file cannot be tuned as it is; the message names the file or the setting, and what to do."""


def whole(alpha: float) -> int | None:
    """Alpha as tools take it that declare it an integer; None if rounding would change the scale noticeably."""
    rounded = max(1, round(alpha))
    return rounded if abs(rounded - alpha) <= ALPHA_TOLERANCE * alpha else None


@dataclass(frozen=True)
class Keys:
    """What a tool calls the settings that all have."""

    model: str
    learning_rate: str
    micro_batch: str
    accumulation: str
    rank: str
    alpha: str
    dropout: str
    weight_decay: str
    warmup_steps: str
    warmup_ratio: str
    max_steps: str
    seed: str
    output: str
    resume: str
    loraplus: str = "loraplus_lr_ratio"


class Tool(ABC):
    """A tool that trains from a YAML file.

    Attributes:
        name: in messages.
        kind: the key of the specification's section, and the target of ``autolora export``.
        release: that its keys and defaults were read from.
        keys: names of what is set.
        defaults: of keys that a file may leave out.
        options: by ``LoraConfig`` option, the key for it.
        forced: what the file of every trial says.
        dropped: keys that the file of a trial does not have: what evaluates, stops or publishes by itself.
        draws_by_seed: whether a part of the evaluation rows is drawn at random.
        without_effect: keys that no score depends on, and that may change while a study is under way.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    release: ClassVar[str]
    keys: ClassVar[Keys]
    defaults: ClassVar[Values]
    options: ClassVar[Mapping[str, str]]
    forced: ClassVar[Values]
    dropped: ClassVar[Collection[str]]
    without_effect: ClassVar[Collection[str]]
    draws_by_seed: ClassVar[bool] = False
    lengths: ClassVar[Collection[str]] = ("num_epochs", "num_train_epochs")
    """Keys that say how long a run is, beside the one for its steps."""

    @abstractmethod
    def known(self, values: Values) -> Collection[str]:
        """The keys that the tool takes."""

    @abstractmethod
    def refused(self, values: Values, stops_early: bool) -> Iterator[str]:
        """Why a file cannot be tuned, each with what to do; nothing if it can."""

    @abstractmethod
    def bits(self, values: Values) -> int | None:
        """Bits that the base is held in; None if it is not quantized."""

    @abstractmethod
    def has_evaluation(self, values: Values) -> bool:
        """Whether there are rows to evaluate on."""

    @abstractmethod
    def packing(self, values: Values) -> str | None:
        """The setting by which several rows are packed into one training example; None if each row is one."""

    @abstractmethod
    def splits_by_seed(self, values: Values) -> bool:
        """Whether evaluation rows are split off the training rows by the seed."""

    @abstractmethod
    def start(self, name: object) -> Values | None:
        """Settings for a start of ``LoraConfig``'s ``init_lora_weights``; None if the tool has none."""

    @property
    @abstractmethod
    def switches(self) -> Collection[str]:
        """All keys that make a variant."""

    @property
    def resuming(self) -> Collection[str]:
        """Keys by which a training goes on from an earlier one."""
        return (self.keys.resume,)

    @abstractmethod
    def objective(self, values: Values) -> str | None:
        """The setting by which a file trains on something else than texts to learn, as pairs; None if on such texts."""

    @abstractmethod
    def data(self, data: Data, folder: Path) -> tuple[dict[str, Any], dict[Path, str]]:
        """Rows of a specification in place of the file's.

        Args:
            data: the rows.
            folder: for files that the settings refer to.

        Returns:
            Settings, where None stands for a key that goes; and files by path.

        Raises:
            ConfigurationError: the tool cannot be pointed at them.
        """

    def _readable(self, data: Data) -> Data:
        """These rows, unless they are to be written out by hand."""
        if data.train == PLACEHOLDER:
            reason = next(iter(data.notes), "").split(" Write them to ")[0]
            raise ConfigurationError(f"data: {reason} Name the rows in {self.name}'s own file, and leave data out")
        return data

    def accumulation(self, values: Values, micro_batch: int) -> int:
        """Micro-batches of one process that make a batch."""
        del micro_batch
        return self.whole_number(values, self.keys.accumulation) or 1

    def alpha(self, values: Values) -> float | None:
        """As the file says, or the tool's default."""
        return self.positive(values, self.keys.alpha)

    def adapter(self, values: Values) -> Iterator[Change]:
        """What a file must say to train LoRA at all, where it does not."""
        del values
        yield from ()

    def follow(self, values: Values) -> Iterator[Change]:
        """What makes the tool stop, evaluate and report as autolora asks; nothing if its command line does."""
        del values
        yield from ()

    def value(self, values: Values, key: str) -> Any:
        """The value of a key, or the tool's default; None where the file says null or nothing."""
        found = values.get(key)
        return self.defaults.get(key) if found is None else found

    def number(self, values: Values, key: str) -> float | None:
        """The value of a key as a number, or the tool's default; None if there is none.

        Raises:
            ConfigurationError: it is something else.
        """
        found = self.value(values, key)
        if found is None:
            return None
        try:
            if isinstance(found, bool) or not math.isfinite(number := float(found)):
                raise ValueError
            return number
        except (TypeError, ValueError, OverflowError):
            raise ConfigurationError(f"{key}: {found!r} is not a number; write the number itself") from None

    def whole_number(self, values: Values, key: str, least: int = 1) -> int | None:
        """The value of a key as a whole number, or the tool's default; None if there is none.

        Args:
            values: of a file.
            key: one of its keys.
            least: smallest number that is allowed.

        Raises:
            ConfigurationError: it is something else.
        """
        found = self.number(values, key)
        if found is None:
            return None
        if not found.is_integer() or found < least:
            raise ConfigurationError(f"{key}: {self.value(values, key)!r} is not a whole number of at least {least}")
        return int(found)

    def positive(self, values: Values, key: str) -> float | None:
        """The value of a key as a number above 0, or the tool's default; None if there is none.

        Raises:
            ConfigurationError: it is something else.
        """
        found = self.number(values, key)
        if found is not None and found <= 0:
            raise ConfigurationError(f"{key}: {self.value(values, key)!r} is not above 0")
        return found

    def share(self, values: Values, key: str) -> float | None:
        """The value of a key as a number from 0 to below 1, or the tool's default; None if there is none.

        Raises:
            ConfigurationError: it is something else.
        """
        found = self.number(values, key)
        if found is not None and not 0 <= found < 1:
            raise ConfigurationError(f"{key}: {self.value(values, key)!r} is not a share, from 0 to below 1")
        return found

    def made(self, variant: Variant, values: Values) -> dict[str, Any]:
        """The settings that make a variant.

        Raises:
            ConfigurationError: the tool has no such variant, or not on this base.
        """
        return self.expressed(variant, self.bits(values))

    def expressed(self, variant: Variant, bits: int | None) -> dict[str, Any]:
        """The settings that make a variant on a base in so many bits; see :meth:`made`."""
        options = dict(variant.peft_options or {})
        if variant.peft_options is None or not options.keys() <= self.options.keys():
            raise ConfigurationError(
                f"{self.name} has no option for {variant.title}: leave {variant.name} out of variants, or use "
                "trainer: builtin"
            )
        if bits and variant.subtracts:
            raise ConfigurationError(
                f"{self.name} has no {variant.title} for a base in {bits} bits: its start there would change the base. "
                f"Leave {variant.name} out of variants, or the quantization out of the file"
            )
        name = options.pop("init_lora_weights", None)
        settings = {self.options[key]: value for key, value in options.items()}
        if name is not None:
            start = self.start(name)
            if start is None:
                raise ConfigurationError(f"{self.name} has no option for {variant.title}: leave it out of variants")
            settings |= start
        ratio = variant.options.get("ratio", 1.0)
        if ratio != 1:
            settings[self.keys.loraplus] = ratio
        return settings

    def written(self, value: Any) -> Any:
        """A value of a field as the tool's file has it; a list of names as a list."""
        return value

    def in_folder(self, folder: Path, resume: Path | None) -> Iterator[Change]:
        """Where a trial writes, and what it continues from."""
        yield Change(self.keys.output, str(folder))
        yield Change(self.keys.resume, None if resume is None else str(resume), removed=resume is None)
