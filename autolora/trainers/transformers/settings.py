"""Whether a trainer that was made for a trial has the trial's settings, and those that autolora has to set itself."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora.adapters.spec import ALL_LINEAR
from autolora.errors import AutoloraError
from autolora.trainers.transformers.state import carries_adapter
from autolora.trainers.trial import Trial
from autolora.variants import Variant

if TYPE_CHECKING:
    import transformers
    from peft import PeftModel

CLOSE = 1e-9
"""Relative difference of numbers that are the same."""
FREE = frozenset(
    {
        *("target_modules", "exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern"),
        *("modules_to_save", "trainable_token_indices", "ensure_weight_tying", "bias", "lora_dropout", "task_type"),
        *("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode", "runtime_config"),
        *("fan_in_fan_out", "megatron_config", "megatron_core"),
    }
)
"""Fields of a ``LoraConfig`` that make no other variant: what it adapts, what is trained beside it, bookkeeping."""
REMEDY = "trial.peft_config() in place of a LoraConfig of your own"
OTHER_PROCESSES = 'use trainer: {command: "accelerate launch ..."} for training in several processes'


def on_one_device(trainer: transformers.Trainer) -> None:
    """A trial trains on one device, also where a trainer would spread its batches over all that it sees."""
    trainer.args._n_gpu = min(1, trainer.args.n_gpu)
    trainer._train_batch_size = trainer.args.train_batch_size


def check_made(trial: Trial, trainer: transformers.Trainer, attached: PeftModel | None) -> None:
    """Refuse a trainer that would not train the trial as it was asked for.

    Args:
        trial: that it was made for.
        trainer: as it was made.
        attached: its model, if that was attached by :meth:`autolora.trainers.trial.Trial.attach`.

    Raises:
        AutoloraError: naming both values, and what to pass.
    """
    from transformers import Trainer

    _check_kind(trainer)
    args, config = trainer.args, trial.config
    batch = trainer.get_total_train_batch_size(args)
    _same("learning_rate", args.learning_rate, config["learning_rate"], "TrainingArguments(**trial.arguments(), ...)")
    if batch != config["batch_size"]:
        raise AutoloraError(
            f"the trainer's batch size is {batch} (per_device_train_batch_size {args.per_device_train_batch_size} x "
            f"gradient_accumulation_steps {args.gradient_accumulation_steps} x {args.world_size} processes), the "
            f"trial's is {config['batch_size']}: use TrainingArguments(**trial.arguments(), ...)"
        )
    if "weight_decay" in config:
        _same("weight_decay", args.weight_decay, config["weight_decay"], 'weight_decay=trial.config["weight_decay"]')
    for name in trial.fields:
        if hasattr(args, name):
            _same(name, plain_value(getattr(args, name)), config[name], f'{name}=trial.config["{name}"]')
    if "warmup_ratio" in config:
        _same("warmup_steps", args.warmup_steps, config["warmup_ratio"], 'warmup_steps=trial.config["warmup_ratio"]')
    _check_optimizer(trial, trainer)
    if trainer.eval_dataset is None and type(trainer).evaluate is Trainer.evaluate:
        raise AutoloraError("the trainer has no eval_dataset, so it reports no score: pass eval_dataset=... to it")
    if hasattr(trainer.train_dataset, "__len__") and len(trainer.train_dataset) == 0:
        raise AutoloraError("the trainer's train_dataset has no rows")
    if not carries_adapter(trainer.model):
        raise AutoloraError(
            f"the trainer's model, a {type(trainer.model).__name__}, carries no adapter: give it "
            "get_peft_model(model, trial.peft_config()), or trial.attach(model)"
        )
    if attached is None:
        _check_plain(trial, trainer)


def _check_kind(trainer: transformers.Trainer) -> None:
    args = trainer.args
    if trainer.model_init is not None:
        raise AutoloraError("the trainer has a model_init, which makes the model again: pass model=... in its place")
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise AutoloraError(f"the trainer shards its model by DeepSpeed or FSDP, which needs {OTHER_PROCESSES}")
    if args.world_size > 1:
        raise AutoloraError(f"the trainer is one of {args.world_size} processes: {OTHER_PROCESSES}")


def _check_optimizer(trial: Trial, trainer: transformers.Trainer) -> None:
    """Refuse an optimizer of the function's own that has another learning rate, or is not the variant's."""
    own, kind_and_options = trainer.optimizer, trainer.optimizer_cls_and_kwargs
    if own is None and kind_and_options is None:
        return
    if _has_own_optimizer(trial.own_variant) and not any(own is each for each in trial.optimizers):
        raise AutoloraError(
            f"the trainer has an optimizer that is not that of {trial.variant}: pass "
            "optimizers=(trial.optimizer(model), None) to it, or none"
        )
    if own is not None:
        rates = [group.get("initial_lr", group.get("lr")) for group in own.param_groups]
    else:
        rates = [kind_and_options[1].get("lr")]
    rate = trial.config["learning_rate"]
    if not any(isinstance(each, (int, float)) and math.isclose(each, rate, rel_tol=CLOSE) for each in rates):
        raise AutoloraError(
            f"the trainer has an optimizer whose learning rate is {', '.join(map(str, rates))}, the trial's is {rate}: "
            'make it with lr=trial.config["learning_rate"], or by trial.optimizer(model)'
        )


def _check_plain(trial: Trial, trainer: transformers.Trainer) -> None:
    """Refuse an adapter that plain PEFT made, and that is not the trial's."""
    variant, config = trial.own_variant, trial.config
    if variant.peft_options is None or variant.subtracts or _has_own_optimizer(variant):
        raise AutoloraError(
            f"the trainer's model was not attached by trial.attach(model), and plain PEFT cannot train {variant.name}: "
            "use trial.attach(model)"
        )
    asked = trial.peft_config()
    compared = [field.name for field in fields(asked) if field.name not in FREE]
    compared += [name for name in trial.fields if hasattr(asked, name) and name not in compared]
    if "dropout" in config:
        compared.append("lora_dropout")
    for own in _active_configs(trainer.model):
        for name in compared:
            expected = _listed(getattr(asked, name))
            if expected != ALL_LINEAR:  # in whose place PEFT puts the layers that it finds
                _same(name, _listed(getattr(own, name, None)), expected, REMEDY)


def _active_configs(model: Any) -> list[Any]:
    """PEFT's configurations of the adapters that are trained; a model may have others beside, as of a reference."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    active = {
        name for module in model.modules() if isinstance(module, BaseTunerLayer) for name in module.active_adapters
    }
    found = [vars(module)["peft_config"] for module in model.modules() if "peft_config" in vars(module)]
    return [configs[name] for configs in found[:1] for name in sorted(active) if name in configs]


def plain_value(value: Any) -> Any:
    """A setting as plain data: the value of a constant, as of the optimizer's name."""
    return getattr(value, "value", value)


def _listed(value: Any) -> Any:
    """Names of layers in one order: PEFT keeps a set."""
    return sorted(value) if isinstance(value, (set, list, tuple)) else value


def _same(name: str, found: Any, expected: Any, remedy: str) -> None:
    numbers = isinstance(found, (int, float)) and isinstance(expected, (int, float))
    if math.isclose(found, expected, rel_tol=CLOSE) if numbers else found == expected:
        return
    raise AutoloraError(f"the trainer has {name} = {found!r}, the trial {expected!r}: pass {remedy}")


def _has_own_optimizer(variant: Variant) -> bool:
    kind = type(variant)
    return kind.optimizer is not Variant.optimizer or kind.parameter_groups is not Variant.parameter_groups


def settle(trial: Trial, trainer: transformers.Trainer, attached: PeftModel | None, scratch: Path) -> tuple[str, ...]:
    """Set what a trial needs: who saves, evaluates and stops, and the variant's own optimizer.

    Args:
        trial: that it was made for.
        trainer: checked by :func:`check_made`.
        attached: as there.
        scratch: folder that the trainer writes its checkpoints to.

    Returns:
        Names of what the trainer was given and is switched off.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback

    args = trainer.args
    stopping = [each for each in trainer.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
    switched_off = _switched_off(args, bool(stopping))
    for callback in [*stopping, PrinterCallback, ProgressCallback]:
        trainer.remove_callback(callback)
    settings = {
        "output_dir": str(scratch),
        "eval_strategy": "no",
        "eval_on_start": False,
        "save_strategy": "no",
        "save_total_limit": None,
        "save_only_model": False,
        "load_best_model_at_end": False,
        "push_to_hub": False,
        "auto_find_batch_size": False,
        "ignore_data_skip": False,
        "logging_nan_inf_filter": False,  # it would hide the losses that divergence is told by
    }
    if args.device.type == "cpu":
        settings["dataloader_pin_memory"] = False  # for an accelerator alone; PyTorch warns of it
    for name, value in settings.items():
        current = getattr(args, name)
        setattr(args, name, type(current)(value) if name.endswith("_strategy") else value)
    if attached is not None and trainer.optimizer is None and _has_own_optimizer(trial.own_variant):
        trainer.optimizer = trial.own_variant.optimizer(
            attached, trial.config["learning_rate"], weight_decay=args.weight_decay
        )
    return switched_off


def _switched_off(args: transformers.TrainingArguments, stopping: bool) -> tuple[str, ...]:
    """What a trainer was given that does not go with a search."""
    given = {
        "eval_strategy": args.eval_strategy != "no",
        "load_best_model_at_end": args.load_best_model_at_end,
        "push_to_hub": args.push_to_hub,
        "auto_find_batch_size": args.auto_find_batch_size,
        "EarlyStoppingCallback": stopping,
    }
    return tuple(name for name, is_given in given.items() if is_given)
