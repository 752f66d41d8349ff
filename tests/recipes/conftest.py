from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from autolora import variants
from autolora.adapters.export import config_file
from tests.support.recipes import (
    NAMES,
    QUESTIONS,
    TRAINING,
    TUNED,
)


@pytest.fixture
def make_run(tmp_path):
    """A run directory as a finished study leaves it; ``make_run(rows, data={...}, training={...}, tuned={...})``."""

    def make(
        rows: list[dict[str, Any]] = QUESTIONS,
        data: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        tuned: dict[str, Any] | None = None,
        suffix: str = "jsonl",
        **spec: Any,
    ) -> Path:
        file = tmp_path / f"rows.{suffix}"
        if suffix == "csv":
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            file.write_text("\n".join(lines) + "\n")
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder = tmp_path / "run"
        recorded = {
            "model": "owner/model",
            "data": {"train": str(file), "format": "auto", **(data or {})},
            "variants": NAMES,
            "training": {**TRAINING, **(training or {})},
            "seed": 5,
            "trust_remote_code": False,
            **spec,
        }
        outcome = {
            "config": {**TUNED, **(tuned or {})},
            "value": 1.25,
            "spread": 0.01,
            "seeds": [1.24, 1.26],
            "baseline": 1.5,
            "test": None,
            "adapter_dir": "elsewhere/best/lora",
            "seconds": 1.0,
        }
        for name in NAMES:
            adapter = folder / "best" / name
            adapter.mkdir(parents=True)
            (adapter / config_file(variants.get(name).export_form)).write_text(json.dumps({"r": 8, "variant": name}))
            save_file({"of": np.frombuffer(name.encode(), np.uint8)}, adapter / "adapter_model.safetensors")
        (folder / "spec.yaml").write_text(yaml.safe_dump(recorded))
        best = {"variants": dict.fromkeys(NAMES, outcome), "spent": dict.fromkeys(NAMES, 1.0)}
        (folder / "best.json").write_text(
            json.dumps({**best, "metric": "eval_loss", "direction": "minimize", "seconds": {}, "versions": {}})
        )
        return folder

    return make
