"""What is wrong with a directory that no model can be loaded from."""

from __future__ import annotations

import json
from pathlib import Path

from autolora import files
from autolora.adapters.export import CONFIG as ADAPTER_CONFIG
from autolora.adapters.export import OWN_CONFIG

CONFIG = "config.json"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "tekken.json", "tiktoken.model", "tokenizer.model.v3"),
)
MERGED_BASE = "base"
"""Folder beside an exported adapter with the merged base that it fits, where that is nowhere else."""
INDICES = {
    "model.safetensors.index.json": "model-*-of-*.safetensors",
    "pytorch_model.bin.index.json": "pytorch_model-*-of-*.bin",
}
"""Files without which the parts of a model, named behind them, do not load."""
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def holds_adapter(folder: Path) -> bool:
    """Whether an adapter lies there, and no model beside it."""
    return any((folder / name).is_file() for name in (ADAPTER_CONFIG, OWN_CONFIG)) and not holds_weights(folder)


def holds_weights(folder: Path) -> bool:
    """Whether the weights of a model lie there, in a format that ``transformers`` reads."""
    return any(any(folder.glob(pattern)) for pattern in WEIGHTS)


def holds_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies there."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES) or any(folder.glob("*.py"))


def diagnosis(folder: Path) -> str:
    """What is wrong in a directory, file by file, in plain lines; empty if every file that is needed can be read."""
    if not any(folder.iterdir()):
        return "it is empty"
    if holds_adapter(folder):
        return "; ".join(problem for file in folder.glob("*.safetensors") for problem in _safetensors(file))
    return "; ".join([*_configuration(folder), *_weights(folder), *_tokenizer(folder)])


def damage_of_configuration(folder: Path) -> str:
    """What is wrong with the configuration in a directory, in plain words; empty if it can be read."""
    return "; ".join(_configuration(folder))


def misplaced(file: Path) -> str:
    """Why a file is not the directory of a model, and what to give."""
    if file.suffix == ".gguf":
        return f"{file} is a GGUF file, which is for inference: give the model that it was made from"
    return f"{file} is a file: give the directory around it, with config.json, weights and tokenizer"


def _configuration(folder: Path) -> list[str]:
    if not (folder / CONFIG).is_file():
        return [f"{CONFIG} is not there"]
    return _json(folder / CONFIG)


def _json(file: Path) -> list[str]:
    misfit = _misfit(file)
    if misfit:
        return [misfit]
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return [f"{file.name} is damaged ({error})"]
    return [] if isinstance(content, dict) else [f"{file.name} holds {type(content).__name__}, not an object"]


def _weights(folder: Path) -> list[str]:
    found = []
    indices = [*folder.glob("*.index.json")]
    for file in indices:
        found += _json(file) or _shards(file)
    for index, shards in INDICES.items():
        if not indices and next(folder.glob(shards), None) is not None:
            found.append(f"{index} is not there, which says what each {shards} holds")
    for file in sorted(folder.glob("*.safetensors")):
        found += _safetensors(file)
    for file in sorted(folder.glob("pytorch_model*.bin")):
        found += _pickled(file)
    if not holds_weights(folder):
        found.append("model.safetensors is not there" + _other_weights(folder))
    return found


def _shards(index: Path) -> list[str]:
    names = json.loads(index.read_text(encoding="utf-8")).get("weight_map")
    if not isinstance(names, dict):
        return [f"{index.name} has no weight_map"]
    missing = sorted({str(name) for name in names.values() if not (index.parent / str(name)).is_file()})
    if not missing:
        return []
    return [f"{len(missing)} of the files that {index.name} names are not there ({', '.join(missing[:3])})"]


def _safetensors(file: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    misfit = _misfit(file)
    if misfit:
        return [misfit]
    try:
        with safe_open(file, framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        return [f"{file.name} is damaged ({error}): copy or download it again"]
    return []


def _pickled(file: Path) -> list[str]:
    import torch

    misfit = _misfit(file)
    if misfit:
        return [misfit]
    try:
        torch.load(file, map_location="meta", weights_only=True)
    except Exception as error:  # damaged files raise whatever their bytes lead to
        return [f"{file.name} is damaged ({type(error).__name__}): copy or download it again"]
    return []


def _misfit(file: Path) -> str:
    """Why something cannot be a file of a model; empty if it can be."""
    if file.is_dir():
        return f"{file.name} is a directory, not a file"
    if not file.exists():
        return f"{file.name} is a link to a file that is not there"
    with file.open("rb") as opened:
        return files.POINTER.format(file.name) if files.is_pointer(opened.read(len(files.LFS))) else ""


def _other_weights(folder: Path) -> str:
    """What lies there instead."""
    for pattern, hint in (
        ("*.gguf", "GGUF files are for inference: give the model that they were made from"),
        ("consolidated*", "consolidated files are the authors' own format: give the model in Hugging Face's"),
        ("*.pth", "it holds .pth files, the authors' own format: give the model in Hugging Face's"),
        ("*.distcp", "it holds a distributed checkpoint: save the model from it with save_pretrained"),
        ("checkpoint-*", "give one of the checkpoint-... folders in it"),
        ("*.safetensors", "it holds safetensors files of other names"),
        ("*.bin", "it holds .bin files of other names"),
    ):
        if next(folder.glob(pattern), None) is not None:
            return f" ({hint})"
    return ""


def _tokenizer(folder: Path) -> list[str]:
    if not holds_tokenizer(folder):
        return ["tokenizer.json is not there, nor another file of a tokenizer"]
    found = [folder / name for name in ("tokenizer.json", "tokenizer_config.json") if (folder / name).is_file()]
    return [problem for file in found for problem in _json(file)]
