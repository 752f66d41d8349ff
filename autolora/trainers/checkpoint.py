"""Checkpoints of a trial: committed whole, found again by looking for the newest one, wherever they are kept.

A checkpoint is a folder ``trials/<n>/step-<step>-<scores>-<token>`` of a place, see :mod:`autolora.trainers.places`:

- what the trainer keeps. Of the builtin one that is ``adapter.safetensors``, the adapter, and ``optimizer.pt``, its
  optimizer and schedule by ``torch.save``, read with ``weights_only=True``; finished runs have none;
- ``manifest.json``, written last: a :class:`Manifest`, with the SHA-256 of the files above.

Step and number of scores order them, for a rung may be scored after a run was stopped right there. The token keeps
apart what two workers write at once, should one that was believed dead go on with the same segment.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from autolora import files, urls
from autolora.scores import Scores
from autolora.trainers.places import CheckpointError, Location, Place, is_url, join, place, shown

__all__ = ["CheckpointError", "LostCheckpointError"]

ADAPTER, OPTIMIZER, MANIFEST = "adapter.safetensors", "optimizer.pt", "manifest.json"
MARKER, TRIALS = ".shared", "trials"
KEEP = 2
"""The newest checkpoint, and the one before it for when the newest turns out to be damaged."""


Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]


class LostCheckpointError(CheckpointError):
    """What a completed trial has trained is gone, or damaged: looking again does not help, training again does."""


@with_config(ConfigDict(extra="forbid", strict=True))
class PassesRecord(TypedDict):
    """What one forward pass may hold, see :class:`autolora.trainers.builtin.passes.Passes`."""

    tokens: Annotated[int, Field(ge=1, lt=2**53)]
    overhead: Count
    checkpointing: bool


@dataclass
class Manifest:
    """What a checkpoint says of its trial, readable without torch.

    Attributes:
        trial, variant, config, seed: whose it is.
        study: model, data and training that it is of, as the trainer's digest; empty in one of an earlier version.
        step: optimizer steps done.
        examples: training examples seen; the data position follows from it and the seed.
        scores: score at each rung reached, by rung index.
        losses, gradient_norms: one value an optimizer step; the norm of one that was skipped in float16 is infinite.
        seconds: wall time of training and evaluation so far.
        totals, weights: what each evaluation row contributes to the full-length score, see
            :class:`autolora.scores.Scores`; empty before, and where the metric tells nothing of rows.
        metrics: what was reported beside the score at each rung, by rung index and name.
        timing: of optimizer steps, see :class:`autolora.trainers.timing.Timing`.
        peak_memory: most bytes that the trial took; 0 if that is not known.
        passes: how a batch was cut into forward passes last; None in one of an earlier version.
        files: SHA-256 of the files beside the manifest, by name; empty once they have been shed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    trial: Count
    variant: str
    config: Mapping[str, int | float | dict[str, bool | int | float | str | list[str]]]
    seed: Count
    study: str = ""
    step: Count = 0
    examples: Count = 0
    scores: dict[Count, FiniteFloat] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    totals: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    metrics: dict[Count, dict[str, FiniteFloat]] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    peak_memory: Count = 0
    passes: PassesRecord | None = None
    files: dict[str, str] = field(default_factory=dict)


_SHAPE = TypeAdapter(Manifest)
"""Reads a manifest; one with other keys, or values of other types or that make no sense, is none."""

State: TypeAlias = dict[str, Any]
"""What is kept beside a manifest: under "adapter" its tensors by name, and what the trainer needs to go on."""


def root_of(checkpoints: Location | None, folder: Path) -> Location:
    """Where the trials of a study keep their checkpoints.

    Args:
        checkpoints: as in :class:`autolora.spec.Spec`; a relative path begins at the working directory. A variable
            that stands for all of it is replaced.
        folder: run directory; what None stands for.
    """
    if checkpoints is None:
        return folder
    if isinstance(checkpoints, str) and is_url(checkpoints):
        whole = urls.REFERENCE.fullmatch(checkpoints)
        checkpoints = os.environ.get(whole[1], checkpoints) if whole else checkpoints
        if is_url(checkpoints):  # still, if the variable is not set: its place cannot be opened
            return checkpoints
    return files.expanded(checkpoints).absolute()


def trial_folder(root: Location, trial: int) -> Location:
    """Where a trial keeps its checkpoints, beneath the root of the study."""
    return join(root, TRIALS, str(trial))


def save(folder: Location, manifest: Manifest, state: State) -> None:
    """Commit a checkpoint and drop those that it makes superfluous: all older ones but the one before it.

    A finished run keeps its last checkpoint alone: an adapter trained halfway must never stand in for it.

    Args:
        folder: of the trial.
        manifest: its ``files`` are filled in.
        state: under "adapter" a flat dictionary of CPU tensors; whatever else it holds goes into ``optimizer.pt``, as
            ``torch.save`` takes it. A finished run has nothing else.

    Raises:
        CheckpointError: the disk is full, or the place cannot be written to. What was there before stays.
    """
    import torch
    from safetensors.torch import save as serialized

    contents = {ADAPTER: serialized({name: tensor.contiguous() for name, tensor in state["adapter"].items()})}
    training = {name: value for name, value in state.items() if name != "adapter"}
    if training:
        content = io.BytesIO()
        torch.save(training, content)
        contents[OPTIMIZER] = content.getvalue()
    commit(folder, manifest, contents, finished=not training)


def commit(folder: Location, manifest: Manifest, contents: Mapping[str, bytes], *, finished: bool) -> None:
    """Commit a checkpoint of any files, as :func:`save` does.

    Args:
        folder: of the trial.
        manifest: its ``files`` are filled in.
        contents: of the files, by name; no name has a folder in it.
        finished: whether the run is at its end.

    Raises:
        CheckpointError: as :func:`save`.
    """
    digests = {name: _digest(content) for name, content in contents.items()}
    files = {**contents, MANIFEST: _encoded(replace(manifest, files=digests))}
    at = place(folder)
    at.commit(f"step-{manifest.step:09d}-{len(manifest.scores):02d}-{uuid.uuid4().hex[:8]}", files)
    _prune(at, 1 if finished else KEEP)


def newest(folder: Location) -> tuple[Manifest, State] | None:
    """The newest whole checkpoint of a trial with its state as :func:`save` took it, or None.

    Those that were cut short or altered are passed over. A trial whose weights have been shed has none.

    Raises:
        CheckpointError: the place cannot be read.
    """
    found = newest_files(folder)
    return None if found is None or ADAPTER not in found[1] else (found[0], _state(found[1]))


def newest_files(folder: Location) -> tuple[Manifest, dict[str, bytes]] | None:
    """The newest whole checkpoint of a trial with the files that :func:`commit` took, or None; see :func:`newest`."""
    at = place(folder)
    for name, manifest in _manifests(at):
        if not manifest.files:
            return None
        contents = _contents(at, name, manifest)
        if contents is not None:
            return manifest, contents
    return None


def read_manifest(folder: Location) -> Manifest | None:
    """What the newest checkpoint of a trial says, whether or not its weights are still there and whole."""
    return next((manifest for _, manifest in _manifests(place(folder))), None)


def example_scores(root: Location, trials: Iterable[int]) -> dict[int, Scores]:
    """What each evaluation row contributes to full-length scores, of those trials of a study that tell it.

    Trials of earlier versions, and of metrics that give one number for all rows, do not.

    Args:
        root: of the study's checkpoints, see :func:`root_of`.
        trials: numbers.
    """
    manifests = ((trial, read_manifest(trial_folder(root, trial))) for trial in trials)
    return {trial: Scores.of(each.totals, each.weights) for trial, each in manifests if each and each.totals}


def shed(folder: Location) -> None:
    """Drop the weights of a completed trial; what the verdict reads of it stays. May be called again at any time."""
    at = place(folder)
    for name, manifest in _manifests(at):
        # The manifest first: it then holds whatever happens, and nothing older is taken for the trial's end.
        if manifest.files:
            at.write(f"{name}/{MANIFEST}", _encoded(replace(manifest, files={})))
        for other in at.names():  # half-written ones too: whoever still trains a completed trial was given up
            if other != name:
                at.remove(other)
        for file in place(join(folder, name)).names():
            if file != MANIFEST:
                at.remove(f"{name}/{file}")
        return


def discard(folder: Location) -> None:
    """Remove all checkpoints of a trial; nothing happens where there are none."""
    place(folder).remove("")


def sweep(root: Location, age: float) -> None:
    """Remove the checkpoints that killed processes left half-written.

    Args:
        root: of a study's checkpoints, see :func:`root_of`.
        age: seconds for which they have not been written to; 0 where no other process can be writing one.

    Raises:
        CheckpointError: the place cannot be read or written.
    """
    for trial in place(join(root, TRIALS)).names():
        place(join(root, TRIALS, trial)).sweep(age)


def mark(root: Location) -> str:
    """Leave a mark at the root of a study's checkpoints, for workers to look for.

    Returns:
        A token for :func:`check_mark`.

    Raises:
        CheckpointError: nothing can be written there.
    """
    token = uuid.uuid4().hex
    place(root).write(MARKER, token.encode())
    return token


def check_mark(root: Location, token: str) -> None:
    """On a worker: raise ``CheckpointError`` unless the root is the place where the driver got this token."""
    if place(root).read(MARKER) != token.encode():
        raise CheckpointError(
            f"the checkpoints folder {shown(root)} of the driver is not what this node ({socket.gethostname()}) sees: "
            "give a path that all nodes share, or a URL such as s3://bucket/folder, as `checkpoints`"
        )


def _manifests(at: Place) -> Iterator[tuple[str, Manifest]]:
    """The readable manifests of a trial with the names of their folders, the newest first."""
    seen = None
    # Looked for again where the names have changed: another worker may replace checkpoints while they are read.
    while (names := _newest_first(at)) != seen:
        for name in names:
            manifest = _manifest(at, name)
            if manifest is not None:
                yield name, manifest
        seen = names


def _newest_first(at: Place) -> list[str]:
    return sorted((name for name in at.names() if name.startswith("step-")), reverse=True)


def _manifest(at: Place, name: str) -> Manifest | None:
    content = at.read(f"{name}/{MANIFEST}")
    if content is None:
        return None
    try:
        return _SHAPE.validate_json(content)
    except ValidationError:  # cut short, altered, or of a newer version
        return None


def _contents(at: Place, name: str, manifest: Manifest) -> dict[str, bytes] | None:
    """The files beside a manifest, or None where they are not what the manifest says."""
    contents: dict[str, bytes] = {}
    for file, digest in manifest.files.items():
        content = at.read(f"{name}/{file}")
        if content is None or _digest(content) != digest:
            return None
        contents[file] = content
    return contents


def _state(contents: Mapping[str, bytes]) -> State:
    """What :func:`save` took."""
    import torch
    from safetensors.torch import load

    state: State = {"adapter": load(contents[ADAPTER])}
    if OPTIMIZER in contents:
        state |= torch.load(io.BytesIO(contents[OPTIMIZER]), map_location="cpu", weights_only=True)
    return state


def _prune(at: Place, keep: int) -> None:
    """Remove all that is older than the newest ``keep`` checkpoints that count, half-written ones included."""
    for name in _newest_first(at):
        if keep == 0:
            at.remove(name)
        elif _manifest(at, name) is not None:
            keep -= 1


def _encoded(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest)).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
