"""A user's configuration file: what it trains with today, and the file of a trial or of the tuned settings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autolora import files
from autolora.documents import parse_yaml
from autolora.errors import closest
from autolora.search.rungs import horizon
from autolora.space import Config
from autolora.trainers.configurations.document import Change, as_number, edited
from autolora.trainers.configurations.tool import ConfigurationError, Tool, Values, whole
from autolora.variants import Variant

FURTHER = ("dropout", "weight_decay", "warmup_ratio")
"""Dimensions beside the four that every study has which these tools can be told."""
ALWAYS = ("learning_rate", "batch_size", "rank", "alpha", "options", "duration", "fields")


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file of a tool.

    Attributes:
        tool: whose.
        path: where it was read.
        text: as the user wrote it.
        values: its content.
        devices: processes that share a batch.
    """

    tool: Tool
    path: Path
    text: str
    values: Values
    devices: int = 1

    @classmethod
    def read(cls, tool: Tool, path: Path, devices: int = 1) -> ConfigFile:
        """Read a file.

        Raises:
            DocumentError: it is not YAML.
            ConfigurationError: it is YAML, but no mapping of keys to values.
            OSError: it cannot be opened.
        """
        return cls.parsed(tool, path, files.decoded(path.read_bytes()), devices)

    @classmethod
    def parsed(cls, tool: Tool, path: Path, text: str, devices: int = 1) -> ConfigFile:
        """The file of a text; see :meth:`read`."""
        content = parse_yaml(text, files.shown(path))
        if not isinstance(content, dict):
            raise ConfigurationError(f"{files.shown(path)} holds no settings: {tool.name} takes a mapping, key: value")
        return cls(tool, path, text, {key: as_number(value) for key, value in content.items()}, devices)

    @property
    def model(self) -> str | None:
        """Path or hub id of the model that it names."""
        found = self.values.get(self.tool.keys.model)
        return None if found is None else str(found)

    @property
    def micro_batch(self) -> int:
        """Examples in one forward pass of one process."""
        with self._named():
            return self.tool.whole_number(self.values, self.tool.keys.micro_batch) or 1

    @property
    def batch_size(self) -> int:
        """Examples an optimizer step, of all processes."""
        with self._named():
            accumulation = self.tool.accumulation(self.values, self.micro_batch)
        return self.micro_batch * accumulation * self.devices

    @property
    def examples(self) -> int | None:
        """Training examples of a full run, if the file limits its steps; epochs tell it only with the data."""
        with self._named():
            steps = self.tool.whole_number(self.values, self.tool.keys.max_steps, least=-1)  # which is no limit
        return steps * self.batch_size if steps is not None and steps > 0 else None

    def baseline(self, examples: int | None = None) -> Config | None:
        """What the file trains with; None if it says too little, as where there is no rank.

        Dropout, weight decay and warmup are among its further values.

        Args:
            examples: training examples of a full run, which warmup by steps is a share of; None means those that the
                file says.
        """
        keys = self.tool.keys
        with self._named():
            rate = self.tool.positive(self.values, keys.learning_rate)
            rank = self.tool.whole_number(self.values, keys.rank)
            alpha = self.tool.alpha(self.values)
            dropout = self.tool.share(self.values, keys.dropout)
        if not rate or not rank or not alpha:
            return None
        further = {
            "dropout": dropout or 0.0,
            "weight_decay": self._number(keys.weight_decay) or 0.0,
            "warmup_ratio": (self.warmup if examples is None else self._warmup_in(examples)) or 0.0,
        }
        return Config(rate, self.batch_size, rank, alpha, further=tuple(further.items()))

    @property
    def warmup(self) -> float | None:
        """Share of the run that is warmup; None if the file leaves it to the tool, or its length is not known."""
        steps = self.values.get(self.tool.keys.warmup_steps)
        with self._named():
            ratio = self.tool.share(self.values, self.tool.keys.warmup_ratio)
        if steps is None:
            return ratio
        number = self._number(self.tool.keys.warmup_steps) or 0.0
        if number < 1:
            with self._named():
                return self.tool.share(self.values, self.tool.keys.warmup_steps)  # as transformers takes it
        if self.examples is None:
            return None
        return min(1.0, number / horizon(self.examples, self.batch_size))

    @property
    def digest(self) -> str:
        """Of all that trials share; values that each replaces, and those that no score depends on, are left out."""
        keys, tool = self.tool.keys, self.tool
        replaced = {
            *(getattr(keys, each.name) for each in fields(keys) if each.name not in ("model", *FURTHER)),
            *tool.forced,
            *tool.dropped,
            *tool.switches,
            *tool.without_effect,
        }
        shared = {key: value for key, value in self.values.items() if key not in replaced}
        shared["warmup"] = self.warmup
        content = json.dumps(shared, sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def check(self, stops_early: bool, has_data: bool = False) -> None:
        """Refuse a file that cannot be tuned.

        Args:
            stops_early: whether trials are stopped at rungs and continued.
            has_data: whether the specification's rows replace the file's.

        Raises:
            ConfigurationError: naming the key, and what to write.
        """
        with self._named():
            reasons = list(self.tool.refused(self.values, stops_early))
            if not has_data and not self.tool.has_evaluation(self.values):
                reasons.append("no evaluation rows: trials are compared by a score on rows that are not trained on")
            objective = self.tool.objective(self.values) if has_data else None
            if objective is not None:
                reasons.append(
                    f"{objective} needs rows that data cannot give: leave data out, and name them in the file"
                )
        if reasons:
            raise ConfigurationError(f"{files.shown(self.path)}: {'; '.join(reasons)}")

    def unknown(self) -> Iterator[str]:
        """Keys that the tool does not take, with those that may be meant."""
        known = self.tool.known(self.values)
        for key in self.values:
            if key not in known:
                close = closest(key, known)
                yield f"{key} (did you mean {close}?)" if close else key

    def check_fields(self, names: Iterable[str]) -> Iterator[str]:
        """Look at fields that are searched.

        Returns:
            What is to be warned of, in words.

        Raises:
            ConfigurationError: one is set by something else, or is probably another of the tool's keys.
        """
        tool, known = self.tool, self.tool.known(self.values)
        own = {getattr(tool.keys, each.name): each.name for each in fields(tool.keys)}
        lengths = [tool.keys.max_steps, *tool.lengths]
        for name in names:
            if name in own and own[name] in ("learning_rate", *FURTHER, "rank", "alpha"):
                raise ConfigurationError(f"space.fields.{name}: it is the tool's key of space.{own[name]}: write that")
            if name in lengths:
                raise ConfigurationError(f"space.fields.{name}: how long a trial trains is space.duration: write that")
            if name in {*own, *tool.forced, *tool.dropped, *tool.switches}:
                raise ConfigurationError(
                    f"space.fields.{name}: autolora sets it itself, for the trial or for its variant; leave it out"
                )
            if name in known:
                continue
            close = closest(name, known)
            if close:
                raise ConfigurationError(f"space.fields.{name}: {tool.name} has no such key; did you mean {close!r}?")
            yield f"space.fields.{name}: {tool.name} {tool.release} does not know it"

    def standards(self, names: Iterable[str]) -> dict[str, Any]:
        """What the file, or the tool by default, says of some keys."""
        found = {name: self.tool.value(self.values, name) for name in names}
        return {name: value for name, value in found.items() if isinstance(value, (bool, int, float, str, list))}

    @property
    def own_switches(self) -> set[str]:
        """Keys that make the variant which the file trains; none for plain LoRA."""
        return {key for key in self.tool.switches if self.values.get(key)}

    def divides(self, batch_size: int) -> bool:
        """Whether a batch can be shared by the processes."""
        return batch_size % self.devices == 0

    def settings(
        self, config: Mapping[str, Any], variant: Variant, examples: int, model: str | None = None
    ) -> list[Change]:
        """What a configuration changes in the file.

        Args:
            config: the value of every dimension, as ``Config.as_dict`` gives them; options are the variant's.
            variant: with its own options set.
            examples: training examples of a full run.
            model: in place of the file's.

        Raises:
            ConfigurationError: the tool cannot be told so.
        """
        keys, batch = self.tool.keys, int(config["batch_size"])
        for name in config:
            if name not in (*ALWAYS, *FURTHER):
                raise ConfigurationError(f"{self.tool.name} has no setting for {name}: leave it out of the space")
        if not self.divides(batch):
            raise ConfigurationError(f"batch_size {batch} cannot be shared by {self.devices} processes")
        share = batch // self.devices
        micro = next(size for size in range(min(share, self.micro_batch), 0, -1) if share % size == 0)
        steps = horizon(examples, batch)
        alpha = whole(config["alpha"])
        if alpha is None:
            raise ConfigurationError(f"{self.tool.name} takes a whole alpha, and {config['alpha']:g} is far from one")
        changes: dict[str, Any] = {
            keys.learning_rate: float(config["learning_rate"]),
            keys.micro_batch: micro,
            keys.accumulation: share // micro,
            keys.rank: int(config["rank"]),
            keys.alpha: alpha,
            keys.max_steps: steps,
        }
        if model is not None:
            changes[keys.model] = model
        changes |= {getattr(keys, name): config[name] for name in ("dropout", "weight_decay") if name in config}
        changes |= {key: self.tool.written(value) for key, value in config.get("fields", {}).items()}
        warmup = config.get("warmup_ratio", self._warmup_in(examples))
        removed = set()
        if warmup is not None:
            changes[keys.warmup_steps] = min(steps, math.ceil(warmup * steps - 1e-9))
            removed.add(keys.warmup_ratio)
        with self._named():
            made = self.tool.made(variant, self.values)
        removed |= {key for key in self.tool.switches if key not in made}
        ordered = [Change(key, value) for key, value in {**changes, **made}.items()]
        return [
            *ordered,
            *(Change(key, removed=True) for key in sorted(removed)),
            *self.tool.adapter(self.values),
        ]

    def trial(
        self,
        config: Mapping[str, Any],
        variant: Variant,
        examples: int,
        seed: int,
        output: Path,
        resume: Path | None = None,
        model: str | None = None,
        data: Values | None = None,
    ) -> str:
        """The file that a segment of a trial is trained with.

        Args:
            config, variant, examples, model: as for :meth:`settings`.
            seed: of the training.
            output: folder that the tool writes to.
            resume: checkpoint to continue from.
            data: settings in place of the file's data.
        """
        changes = [
            *self.settings(config, variant, examples, model),
            Change(self.tool.keys.seed, seed),
            *self.tool.in_folder(output, resume),
            *(Change(key, value) for key, value in self.tool.forced.items()),
            *(Change(key, removed=True) for key in self.tool.dropped),
            *self.tool.follow(self.values),
            *self._data(data),
        ]
        head = f"# Written by autolora for one trial, from {files.shown(self.path)}: edit that file, not this one.\n"
        return head + edited(self.text, _last_of_each(changes), "added by autolora")

    def tuned(
        self,
        config: Mapping[str, Any],
        variant: Variant,
        examples: int,
        notes: Sequence[str],
        model: str | None = None,
        data: Values | None = None,
    ) -> str:
        """The user's file with tuned values, to train as the study did.

        Args:
            config, variant, examples, model, data: as for :meth:`trial`.
            notes: lines for its head.
        """
        notes = [*notes]
        if whole(config["alpha"]) != config["alpha"]:
            notes.append(f"{self.tool.keys.alpha} is rounded from {config['alpha']:.6g}.")
        if self.devices > 1:
            notes.append(f"{self.tool.keys.accumulation} is for {self.devices} processes.")
        stale = [key for key in self.tool.resuming if self.values.get(key)]
        if stale:
            notes.append(f"{' and '.join(stale)} of your file is left out: with it, training would not begin here.")
        head = "".join(f"# {note}\n" for note in notes)
        changes = [
            *self.settings(config, variant, examples, model),
            *(Change(key, removed=True) for key in stale),
            *self._data(data),
        ]
        return head + edited(self.text, _last_of_each(changes), "added by autolora")

    def _data(self, data: Values | None) -> Iterator[Change]:
        for key, value in (data or {}).items():
            yield Change(key, value, removed=value is None)

    def _warmup_in(self, examples: int) -> float | None:
        """The file's warmup as a share, where its steps are given and its length is that of ``examples``."""
        if self.warmup is not None:
            return self.warmup
        steps = self._number(self.tool.keys.warmup_steps) if self.tool.keys.warmup_steps in self.values else None
        return None if steps is None else min(1.0, steps / horizon(examples, self.batch_size))

    def _number(self, key: str) -> float | None:
        with self._named():
            return self.tool.number(self.values, key)

    def _named(self) -> _Named:
        return _Named(self.path)


class _Named:
    """Puts the file's name before what a tool refuses in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ConfigurationError) and not str(error).startswith(files.shown(self._path)):
            raise ConfigurationError(f"{files.shown(self._path)}: {error}") from None


def _last_of_each(changes: list[Change]) -> list[Change]:
    """One change a key, the last one asked for, at the place of the first."""
    found: dict[str, Change] = {}
    for change in changes:
        found[change.key] = change
    return list(found.values())
