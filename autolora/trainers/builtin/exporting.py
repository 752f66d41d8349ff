"""What goes beside an exported adapter, so that it loads elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

from autolora.adapters.combination import add_to, name_base
from autolora.bases import Base
from autolora.bases.folders import MERGED_BASE


def complete_export(base: Base, folder: Path) -> None:
    """Write the tokenizer beside an adapter, and see to it that the adapter names a base that it fits.

    Where an adapter was merged into the base before, two plain LoRAs become one on the original base. If one of them is
    no plain LoRA, the merged base is saved beside the adapter.

    Args:
        base: that the adapter was trained on, as it is without the adapter.
        folder: of the exported adapter.
    """
    base.tokenizer.save_pretrained(folder)
    shutil.rmtree(folder / MERGED_BASE, ignore_errors=True)
    merged = base.merged
    if merged is None:
        if base.revision is not None:
            name_base(folder, base.model.name_or_path, base.revision)
        return
    if merged.factors is not None and add_to(folder, merged.factors, merged.base.name, merged.base.revision):
        return
    whole = (folder / MERGED_BASE).resolve()
    base.model.save_pretrained(whole)
    base.tokenizer.save_pretrained(whole)
    name_base(folder, str(whole), None)
