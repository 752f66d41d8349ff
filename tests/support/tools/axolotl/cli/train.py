"""Stands in for axolotl: the same command, the same keys and plugins, and a tiny training."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import yaml
from small_run import train


def main() -> None:
    said = yaml.safe_load(Path(sys.argv[1]).read_text())
    assert not {"eval_steps", "eval_strategy", "evals_per_epoch", "load_best_model_at_end"} & said.keys()
    plugins = []
    for name in said["plugins"]:
        module, _, attribute = name.rpartition(".")
        plugins.append(getattr(import_module(module), attribute)())
    for plugin in plugins:
        plugin.register(said)
    callbacks = [each for plugin in plugins for each in plugin.add_callbacks_pre_trainer(cfg=said, model=None)]
    train(
        callbacks,
        lora={
            "r": said["lora_r"],
            "lora_alpha": said["lora_alpha"],
            "lora_dropout": said.get("lora_dropout", 0.0),
            "use_dora": said.get("peft_use_dora", False),
            "use_rslora": said.get("peft_use_rslora", False),
            "init_lora_weights": said.get("peft_init_lora_weights", True),
        },
        resume=said.get("resume_from_checkpoint"),
        output=said["output_dir"],
        per_device_train_batch_size=said["micro_batch_size"],
        gradient_accumulation_steps=said["gradient_accumulation_steps"],
        max_steps=said["max_steps"],
        learning_rate=float(said["learning_rate"]),
        weight_decay=said.get("weight_decay", 0.0),
        warmup_steps=said.get("warmup_steps", 0),
        seed=said["seed"],
        save_total_limit=said["save_total_limit"],
    )


if __name__ == "__main__":
    main()
