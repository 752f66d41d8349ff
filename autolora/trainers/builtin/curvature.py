"""The curvature of variants on the resident base, measured once and kept for the next study."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from autolora import files, variants
from autolora.adapters import factors
from autolora.documents import DocumentError, read_json
from autolora.errors import first_line
from autolora.priors import Curvature, curvature
from autolora.priors.sharpness import affordable_blocks
from autolora.trainers.builtin.workbench import Workbench

logger = logging.getLogger(__name__)

EXAMPLES = 16
"""Calibration examples that the curvature is measured on."""
CACHE_VERSION = 2  # raise it when the same model and data give other curvatures


class _Kept(BaseModel):
    """Content of a file of the cache: of what it is, as the file's name says, and the curvature of each block."""

    of: str
    per_block: Annotated[dict[str, Annotated[FiniteFloat, Field(ge=0)]], Field(min_length=1)]


def sample_size(bench: Workbench) -> int:
    """Examples that are looked at: EXAMPLES in whole batches, or all there are."""
    return sum(len(batch["input_ids"]) for batch in bench.batches.calibration_sample(EXAMPLES))


def cached(bench: Workbench, names: Sequence[str], rank: int) -> tuple[dict[str, Curvature], bool]:
    """Curvature of the variants at s = 1, measured once per model, data, sample, variant and rank.

    Kept as JSON in the folder AUTOLORA_CACHE, by default ``~/.cache/autolora``.

    Returns:
        By name; and whether anything had to be measured.
    """
    folder = files.expanded(os.environ.get("AUTOLORA_CACHE") or "~/.cache/autolora") / "curvature"
    context = bench.fingerprints()
    content = [context["model"], context["data"], bench.seed, rank, EXAMPLES, CACHE_VERSION]
    content += [context["layers"]] if "layers" in context else []
    paths = {
        name: folder / (hashlib.sha256(repr((*content, variants.get(name))).encode()).hexdigest()[:24] + ".json")
        for name in names
    }
    kept = {name: _kept(path) for name, path in paths.items()}
    found = {name: measured for name, measured in kept.items() if measured is not None}
    missing = [name for name in names if name not in found]
    if missing:
        bench.base.recall()
        model = bench.base.model
        with factors.kept_in(model, bench.store):
            fresh = curvature(
                model,
                bench.batches.calibration_sample(EXAMPLES),
                missing,
                rank,
                alpha=None,
                method="kfac",
                blocks=affordable_blocks(model, bench.adapter),
                start_batches=bench.batches.calibration,
                adapter=bench.adapter,
            )
        for name, measured in fresh.items():
            _keep(paths[name], dict(measured.per_block))
        found |= fresh
    return {name: found[name] for name in names}, bool(missing)


def _kept(path: Path) -> Curvature | None:
    """What was measured earlier; None if there is nothing, or nothing sound, which is measured again then."""
    if not path.exists():
        return None
    try:
        kept = _Kept.model_validate(read_json(path))
    except (DocumentError, ValidationError, OSError) as error:
        logger.warning("the kept curvature %s cannot be used (%s); it is measured again", path, first_line(error))
        return None
    if kept.of != path.stem:
        logger.warning("%s holds the curvature of something else; it is measured again", path)
        return None
    return Curvature(kept.per_block)


def _keep(path: Path, per_block: dict[str, float]) -> None:
    """A cache that cannot be written is a warning, not the end of a study."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps({"of": path.stem, "per_block": per_block}))
    except OSError as error:
        logger.warning("the curvature is not kept for the next study: %s", error)
