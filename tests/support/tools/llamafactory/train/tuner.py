"""Stands in for LLaMA-Factory: the same call, the same keys, and a tiny training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from small_run import train


def run_exp(args: Any = None, callbacks: Any = None) -> None:
    said = yaml.safe_load(Path(sys.argv[1]).read_text())
    assert (said["do_train"], said["do_eval"], said["eval_strategy"]) == (True, False, "no")
    lora = {
        "r": said["lora_rank"],
        "lora_alpha": said.get("lora_alpha") or 2 * said["lora_rank"],
        "lora_dropout": said.get("lora_dropout", 0.0),
        "use_dora": said.get("use_dora", False),
        "use_rslora": said.get("use_rslora", False),
        "init_lora_weights": "pissa" if said.get("pissa_init") else True,
    }
    names = (
        *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "warmup_steps"),
        *("weight_decay", "seed", "save_steps", "save_total_limit", "lr_scheduler_type"),
    )
    settings = {name: said[name] for name in names if name in said}
    train(callbacks or (), lora=lora, resume=said.get("resume_from_checkpoint"), output=said["output_dir"], **settings)
