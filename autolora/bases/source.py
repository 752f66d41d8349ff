"""Where a specification's model is: a directory or the hub; everything of it is read here."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora import files, quickstart
from autolora.bases import folders
from autolora.bases.errors import ModelError
from autolora.bases.memory import out_of_memory
from autolora.spec import Spec

if TYPE_CHECKING:
    from transformers import PretrainedConfig


LOADING = threading.RLock()
"""Held while ``transformers`` builds a model: it changes the process's defaults meanwhile, and models that two threads
build at once keep parameters on the device "meta"."""


@dataclass(frozen=True)
class Source:
    """A directory or a hub id.

    Attributes:
        name: the directory's absolute path, or the hub id.
        folder: the directory; None if it is a hub id.
        revision, trust_remote_code: as in ``from_pretrained``.
    """

    name: str
    folder: Path | None
    revision: str | None
    trust_remote_code: bool

    @classmethod
    def of(cls, spec: Spec) -> Source:
        """The source of a specification; of a model object, what it was loaded from.

        Raises:
            ModelError: a file was given, or an object that was loaded from nowhere.
        """
        if isinstance(spec.model, str):
            return cls.at(spec.model, spec.revision, spec.trust_remote_code)
        name = getattr(spec.model, "name_or_path", "")
        if not name:
            raise ModelError(
                f"model: the {type(spec.model).__name__} given was not loaded from anywhere, so its tokenizer is not "
                "known: save both to a directory and set model.name_or_path to it, or give the directory as model"
            )
        return cls.at(name, spec.revision, spec.trust_remote_code)

    @classmethod
    def at(cls, name: str, revision: str | None, trust_remote_code: bool) -> Source:
        """The source of a path or hub id."""
        path = files.expanded(quickstart.resolve(name))
        if path.is_file():
            raise ModelError(f"model: {folders.misplaced(path)}")
        if path.is_dir():
            return cls(str(path.resolve()), path.resolve(), revision, trust_remote_code)
        return cls(name, None, revision, trust_remote_code)

    @property
    def where(self) -> str:
        """The source, for messages."""
        if self.folder is not None:
            return f"the directory {self.name}"
        return f"the hub id {self.name!r} (no directory of that name is here)"

    def read(self, kind: str, **options: object) -> Any:
        """What ``from_pretrained`` of a class of ``transformers`` gives.

        Raises:
            ModelError: it cannot be loaded; the message names the files that are damaged or not there.
            Exception: memory has run out, see :func:`autolora.bases.memory.out_of_memory`.
        """
        try:
            return self._read(kind, **options)
        except Exception as error:  # tokenizers, safetensors and configurations of bad types raise bare Exceptions
            if out_of_memory(error):
                raise
            raise self.failure(kind, error) from error

    def configuration(self) -> PretrainedConfig:
        """Its configuration, for which weights and tokenizer need not be there.

        Raises:
            ModelError: it cannot be read.
        """
        try:
            config: PretrainedConfig = self._read("AutoConfig")
        except Exception as error:  # as in read
            known = folders.damage_of_configuration(self.folder) if self.folder is not None else ""
            raise ModelError(
                f"model: cannot read the configuration in {self.where}: {known or _reason(error)}\n"
                f"Give a directory that holds {folders.CONFIG}, a hub id that this machine can reach or has in its "
                "cache, or the model's hidden_size instead."
            ) from error
        return config

    def _read(self, kind: str, **options: object) -> Any:
        import transformers

        arguments = {"revision": self.revision, "trust_remote_code": self.trust_remote_code, **options}
        with LOADING:
            return getattr(transformers, kind).from_pretrained(self.name, **arguments)

    def file(self, name: str) -> Path | None:
        """Where a file of it lies on this machine; None if it has no such file."""
        if self.folder is not None:
            return self.folder / name if (self.folder / name).is_file() else None
        from transformers.utils import cached_file

        try:
            found = cached_file(self.name, name, revision=self.revision, _raise_exceptions_for_missing_entries=False)
        except OSError as error:
            raise self.failure(name, error) from error
        return None if found is None else Path(found)

    def failure(self, what: str, error: Exception) -> ModelError:
        """That something cannot be loaded, with the reason and what to do."""
        known = folders.diagnosis(self.folder) if self.folder is not None else ""
        return ModelError(
            f"model: cannot load {what} from {self.where}: {known or _reason(error)}\n"
            "Give a directory that holds config.json, the weights and the tokenizer, or a hub id that this machine "
            "can reach or has in its cache."
        )


def _reason(error: Exception) -> str:
    """What a library says of it: the first line, with its kind if it is not meant for users."""
    said = [line.strip() for line in str(error).strip().splitlines()[:2]] or [""]
    first = " ".join(said if said[0].endswith(":") else said[:1])
    return first if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {first}"
