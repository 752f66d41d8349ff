"""A trained adapter as a folder that others load."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from autolora import files
from autolora.adapters.export import CONFIG
from autolora.trainers.transformers.making import Made


def export_trained(made: Made, folder: Path) -> None:
    """Write the adapter of a trained model, and its tokenizer or processor beside it.

    An attached variant leaves as it does everywhere; others as PEFT saves them, with the heads that were trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if made.attached is not None:
        made.trial.own_variant.export(made.attached, folder)
    else:
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staged:
            made.model.save_pretrained(staged)
            (folder / CONFIG).unlink(missing_ok=True)
            whole = [path for path in Path(staged).rglob("*") if path.is_file()]
            # The configuration comes last: old and new halves never load together.
            for path in sorted(whole, key=lambda path: path.name == CONFIG):
                target = folder / path.relative_to(staged)
                target.parent.mkdir(parents=True, exist_ok=True)
                files.move(path, target)
    if made.trainer.processing_class is not None:
        made.trainer.processing_class.save_pretrained(folder)
