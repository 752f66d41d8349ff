"""Files of the tools that train by configuration, and studies with stand-ins for these tools."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from autolora import spec as specs
from autolora.spec import Spec
from autolora.trainers.configurations import TOOLS, ConfigFile

STAND_INS = Path(__file__).parent / "tools"
FILES = {
    "axolotl": """\
# what we run today
base_model: owner/model
datasets:
  - path: rows.jsonl  # ours
    type: alpaca
val_set_size: 0.1
adapter: lora
lora_r: 4
lora_alpha: 8   # twice the rank
lora_target_linear: true
micro_batch_size: 4
gradient_accumulation_steps: 2
max_steps: 12
learning_rate: 5e-3
output_dir: ./out
""",
    "llamafactory": """\
# what we run today
model_name_or_path: owner/model
dataset: rows
val_size: 0.1
finetuning_type: lora
lora_rank: 4
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
max_steps: 12
learning_rate: 5e-3
lr_scheduler_type: cosine
output_dir: ./out
""",
}
"""By tool, a file of the user's whose baseline is 5e-3, 8, 4, 8."""
MODULES = {"axolotl": "axolotl.cli.train", "llamafactory": ""}


def launcher(kind: str) -> str:
    """A command line that starts the stand-in for a tool."""
    path = shlex.quote(str(STAND_INS))
    return f"PYTHONPATH={path}:$PYTHONPATH {shlex.quote(sys.executable)} -m {MODULES[kind]}".strip()


def configured(kind: str, folder: Path, text: str | None = None, **trainer: Any) -> dict[str, Any]:
    """The section ``trainer`` with a file written to a folder."""
    path = folder / f"{kind}.yaml"
    path.write_text(FILES[kind] if text is None else text)
    return {kind: str(path), "launcher": launcher(kind), "cwd": str(folder), **trainer}


def study(kind: str, folder: Path, text: str | None = None, trainer: dict[str, Any] | None = None, **keys: Any) -> Spec:
    """The specification of a small study with the stand-in for a tool."""
    given = {
        "variants": ["lora"],
        "space": {"rank": 4, "batch_size": 8, "alpha": "rank", "hidden_size": 16},
        "budget": 2,
    }
    return specs.load({**given, "trainer": configured(kind, folder, text, **(trainer or {}))}, **keys)


def parsed(kind: str, text: str | None = None, devices: int = 1) -> ConfigFile:
    """A file of a tool that is not on the disk."""
    return ConfigFile.parsed(TOOLS[kind], Path("my.yaml"), FILES[kind] if text is None else text, devices)
