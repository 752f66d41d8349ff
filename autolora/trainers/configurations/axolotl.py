"""axolotl. Names and defaults as in its ``utils/schemas``."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar

from autolora.trainers.configurations import axolotl_data
from autolora.trainers.configurations.data import Data
from autolora.trainers.configurations.document import Change
from autolora.trainers.configurations.known import AXOLOTL, AXOLOTL_PLUGINS
from autolora.trainers.configurations.tool import ConfigurationError, Keys, Tool, Values

PLUGIN = "autolora.integrations.axolotl.AxolotlPlugin"
OPTIONS = {
    "use_dora": "peft_use_dora",
    "use_rslora": "peft_use_rslora",
    "init_lora_weights": "peft_init_lora_weights",
}
LORA = ("lora", "qlora")
PATTERNS = ("lora_rank_pattern", "lora_alpha_pattern")
"""Ranks and alphas of single layers."""


class Axolotl(Tool):
    """axolotl's configuration: a rank and an alpha have no default."""

    name = "axolotl"
    kind = "axolotl"
    release = "0.19.0"
    keys = Keys(
        model="base_model",
        learning_rate="learning_rate",
        micro_batch="micro_batch_size",
        accumulation="gradient_accumulation_steps",
        rank="lora_r",
        alpha="lora_alpha",
        dropout="lora_dropout",
        weight_decay="weight_decay",
        warmup_steps="warmup_steps",
        warmup_ratio="warmup_ratio",
        max_steps="max_steps",
        seed="seed",
        output="output_dir",
        resume="resume_from_checkpoint",
    )
    defaults: ClassVar[Values] = {
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "lora_dropout": 0.0,
        "weight_decay": 0.0,
        "num_epochs": 1.0,
        "val_set_size": 0.0,
    }
    options = OPTIONS
    forced: ClassVar[Values] = {"save_only_model": False, "save_total_limit": 2}
    dropped = (
        "auto_resume_from_checkpoints",
        "early_stopping_patience",
        "eval_steps",
        "eval_strategy",
        "evals_per_epoch",
        "evaluation_strategy",
        "hub_model_id",
        "load_best_model_at_end",
        "merge_lora",
        "metric_for_best_model",
    )

    without_effect = (
        "batch_size",
        "dataset_prepared_path",
        "logging_steps",
        "save_steps",
        "save_strategy",
        "saves_per_epoch",
        "wandb_name",
    )

    def known(self, values: Values) -> Collection[str]:
        return AXOLOTL | AXOLOTL_PLUGINS if values.get("plugins") else AXOLOTL

    def refused(self, values: Values, stops_early: bool) -> Iterator[str]:
        adapter = values.get("adapter")
        if adapter not in LORA:
            yield f"adapter: {adapter or 'missing'}; autolora tunes LoRA: write lora or qlora"
        if values.get("lora_model_dir"):
            yield "lora_model_dir: training goes on with an adapter, whose rank is fixed; merge it into the model first"
        for key in PATTERNS:
            if values.get(key):
                yield f"{key}: the layers that it names would not have the rank and alpha that are tuned; remove it"
        if values.get("relora"):
            yield "relora: it restarts the schedule, which is not tuned here; remove it"
        if values.get("auto_find_batch_size"):
            yield "auto_find_batch_size: it changes the batch size that is tuned; remove it"

    def bits(self, values: Values) -> int | None:
        if values.get("load_in_4bit"):
            return 4
        return 8 if values.get("load_in_8bit") else None

    def has_evaluation(self, values: Values) -> bool:
        return bool(values.get("test_datasets") or self.number(values, "val_set_size"))

    def packing(self, values: Values) -> str | None:
        return "sample_packing: true" if values.get("sample_packing") else None

    def splits_by_seed(self, values: Values) -> bool:
        return not values.get("test_datasets")

    def start(self, name: object) -> Values | None:
        return {"peft_init_lora_weights": name}

    def objective(self, values: Values) -> str | None:
        named = ("rl", "reward_model", "process_reward_model")
        return next((f"{key}: {values[key]}" for key in named if values.get(key)), None)

    def data(self, data: Data, folder: Path) -> tuple[dict[str, Any], dict[Path, str]]:
        settings = axolotl_data.settings(self._readable(axolotl_data.expressible(data)))
        other = {"pretraining_dataset": None, "val_set_size": None, "test_datasets": None}
        return {**other, **settings}, {}

    @property
    def resuming(self) -> Collection[str]:
        return (self.keys.resume, "auto_resume_from_checkpoints")

    @property
    def switches(self) -> Collection[str]:
        return (*OPTIONS.values(), self.keys.loraplus)

    def accumulation(self, values: Values, micro_batch: int) -> int:
        """Of ``batch_size``, where that is given in place of the accumulation."""
        whole = self.whole_number(values, "batch_size")
        if whole is None or values.get(self.keys.accumulation):
            return super().accumulation(values, micro_batch)
        if whole % micro_batch:
            raise ConfigurationError(f"batch_size: {whole} is not a multiple of micro_batch_size, {micro_batch}")
        return whole // micro_batch

    def adapter(self, values: Values) -> Iterator[Change]:
        yield Change("batch_size", removed=True)

    def follow(self, values: Values) -> Iterator[Change]:
        plugins = values.get("plugins") or []
        yield Change("plugins", [*(each for each in plugins if each != PLUGIN), PLUGIN])


AXOLOTL_TOOL = Axolotl()
