"""LLaMA-Factory. Names and defaults as in its ``hparams``, and in ``transformers.TrainingArguments``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from autolora.trainers.configurations import llamafactory_data
from autolora.trainers.configurations.data import Data
from autolora.trainers.configurations.known import LLAMA_FACTORY
from autolora.trainers.configurations.tool import ConfigurationError, Keys, Tool, Values
from autolora.variants import Variant

OPTIONS = {"use_dora": "use_dora", "use_rslora": "use_rslora", "init_lora_weights": "init_lora_weights"}
INITIALIZATIONS: Mapping[object, Mapping[str, object]] = {
    # the exact decomposition, and an adapter in the end that loads on the unmodified base
    "pissa": {"pissa_init": True, "pissa_iter": -1, "pissa_convert": True},
}
NOT_RESUMED = ("rm", "ppo")
"""Stages that LLaMA-Factory does not continue with an adapter."""


class LlamaFactory(Tool):
    """LLaMA-Factory's configuration, in which everything but the model and the data has a default."""

    name = "LLaMA-Factory"
    kind = "llamafactory"
    release = "0.9.5"
    keys = Keys(
        model="model_name_or_path",
        learning_rate="learning_rate",
        micro_batch="per_device_train_batch_size",
        accumulation="gradient_accumulation_steps",
        rank="lora_rank",
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
        "learning_rate": 5e-5,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "lora_rank": 8,
        "lora_dropout": 0.0,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "num_train_epochs": 3.0,
        "val_size": 0.0,
        "stage": "sft",
        "finetuning_type": "lora",
    }
    options = OPTIONS
    forced: ClassVar[Values] = {
        "do_train": True,
        "do_eval": False,  # evaluated at the rung, before the checkpoint; not once more at the end
        "do_predict": False,
        "eval_strategy": "no",
        "save_only_model": False,
        "save_total_limit": 2,
        "overwrite_output_dir": True,
    }
    dropped = (
        "early_stopping_steps",
        "eval_on_start",
        "eval_steps",
        "hub_model_id",
        "ignore_data_skip",
        "load_best_model_at_end",
        "metric_for_best_model",
        "pissa_convert",  # which takes the start for what a resumed training begins with
        "push_to_hub",
    )

    draws_by_seed = True
    without_effect = ("logging_steps", "report_to", "run_name", "save_steps", "save_strategy", "plot_loss")

    def known(self, values: Values) -> Collection[str]:
        return LLAMA_FACTORY

    def refused(self, values: Values, stops_early: bool) -> Iterator[str]:
        method, stage = self.value(values, "finetuning_type"), self.value(values, "stage")
        if method != "lora":
            yield f"finetuning_type: {method}; autolora tunes LoRA: write lora"
        if stage in NOT_RESUMED and stops_early:
            yield f"stage: {stage}; LLaMA-Factory cannot continue it from a checkpoint: set trainer.early_stop: false"
        if values.get("adapter_name_or_path") and not values.get("create_new_adapter"):
            yield (
                "adapter_name_or_path: training goes on with an adapter, whose rank is fixed; set "
                "create_new_adapter: true, which merges it"
            )
        if values.get("auto_find_batch_size"):
            yield "auto_find_batch_size: it changes the batch size that is tuned; remove it"
        if values.get("use_llama_pro"):
            yield "use_llama_pro: it chooses the layers that are trained by itself; remove it"

    def bits(self, values: Values) -> int | None:
        return self.whole_number(values, "quantization_bit")

    def has_evaluation(self, values: Values) -> bool:
        return bool(values.get("eval_dataset") or self.number(values, "val_size"))

    def packing(self, values: Values) -> str | None:
        if values.get("neat_packing"):
            return "neat_packing: true"
        if values.get("packing") is None and self.value(values, "stage") == "pt":
            return "stage: pt, which packs unless packing is false"
        return "packing: true" if values.get("packing") else None

    def splits_by_seed(self, values: Values) -> bool:
        return not values.get("eval_dataset")

    def start(self, name: object) -> Values | None:
        return INITIALIZATIONS.get(name)

    def objective(self, values: Values) -> str | None:
        stage = self.value(values, "stage")
        return None if stage in ("sft", "pt") else f"stage: {stage}"

    def data(self, data: Data, folder: Path) -> tuple[dict[str, Any], dict[Path, str]]:
        found = self._readable(llamafactory_data.expressible(data))
        settings = {"stage": llamafactory_data.stage(found), **llamafactory_data.settings(found, folder)}
        other = dict.fromkeys(("eval_dataset", "val_size", "max_samples", "tokenized_path", "mask_history"))
        return {**other, **settings}, {folder / llamafactory_data.DATASETS: llamafactory_data.listed(found)}

    def made(self, variant: Variant, values: Values) -> dict[str, Any]:
        settings = super().made(variant, values)
        other = next((key for key in ("use_unsloth", "use_kt") if values.get(key)), None)
        if other is not None and "pissa_init" in settings:
            raise ConfigurationError(f"{other}: with it LLaMA-Factory leaves PiSSA's start out; remove one of them")
        return settings

    def written(self, value: Any) -> Any:
        """Names with commas between, as ``lora_target`` takes them."""
        return ",".join(value) if isinstance(value, list) else value

    @property
    def switches(self) -> Collection[str]:
        return ("use_dora", "use_rslora", "pissa_init", "pissa_iter", "pissa_convert", self.keys.loraplus)

    def alpha(self, values: Values) -> float | None:
        """LLaMA-Factory takes twice the rank where the file says nothing, or 0."""
        if self.number(values, self.keys.alpha) == 0:
            values = {**values, self.keys.alpha: None}
        alpha = self.positive(values, self.keys.alpha)
        return alpha or 2 * (self.whole_number(values, self.keys.rank) or 0)


LLAMA_FACTORY_TOOL = LlamaFactory()
