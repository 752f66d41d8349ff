"""What a trainer tells of itself once it is made: for checks, for people, and for whom scores can be compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from autolora.trainers.transformers.length import Epoch, own_examples
from autolora.trainers.transformers.making import Made

if TYPE_CHECKING:
    import torch
    import transformers

SHARED = (
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "max_grad_norm", "optim"),
    *("optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "label_smoothing_factor", "neftune_noise_alpha"),
    *("dataloader_drop_last", "train_sampling_strategy", "bf16", "fp16"),
)
"""Training arguments that scores depend on; those of the classes derived from them all count."""
SAMPLE = 8
"""Rows at either end of a dataset that are looked at."""


@dataclass(frozen=True)
class Facts:
    """What is known once a trainer was made.

    Attributes:
        kind: name of the trainer's class.
        model: name of the model's class, without the adapter.
        parameters: of the model, and those that are trained.
        layers: (out, in) features of the adapted layers by name.
        hidden_size: of the model; None if its configuration names none.
        rows: of the training data and of the evaluation data; None where they have no length.
        own_examples: of a full run by the trainer's own arguments.
        epoch: one pass over the data.
        from_base: whether the model comes from ``trial.base()``.
        device: that it trains on.
        digests: of what scores depend on.
        switched_off: names of what the trainer was given that does not go with a search.
    """

    kind: str
    model: str
    parameters: tuple[int, int]
    layers: Mapping[str, tuple[int, int]]
    hidden_size: int | None
    rows: tuple[int | None, int | None]
    own_examples: int
    epoch: Epoch
    from_base: bool
    device: torch.device
    digests: Mapping[str, str]
    switched_off: tuple[str, ...] = ()

    @classmethod
    def of(cls, made: Made, full_run: Callable[[int | None], int | None], from_base: bool) -> Facts:
        """Those of a trainer.

        Args:
            made: not trained yet.
            full_run: training examples of a full run, given the rows; None if the trainer's arguments say.
            from_base: whether it took its model from ``trial.base()``.
        """
        trainer, model = made.trainer, made.model
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        data = trainer.train_dataset, trainer.eval_dataset
        epoch = Epoch.of(trainer)
        examples = full_run(epoch.rows)
        return cls(
            kind=type(trainer).__name__,
            model=type(base).__name__,
            parameters=(sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)),
            layers=_adapted(model),
            hidden_size=getattr(getattr(base, "config", None), "hidden_size", None),
            rows=(_rows(data[0]), _rows(data[1])),
            own_examples=own_examples(trainer) if examples is None else examples,
            epoch=epoch,
            from_base=from_base,
            device=trainer.args.device,
            digests={
                "model": _model_digest(model),
                "data": _digest(*map(_sample, data)),
                "arguments": _digest(_arguments(trainer.args)),
            },
            switched_off=made.switched_off,
        )

    def lines(self) -> dict[str, list[str]]:
        """For people, by subject."""
        kept = (
            "the base is loaded once"
            if self.from_base
            else ("the model is loaded for every trial, since it does not come from trial.base()")
        )
        total, trained = self.parameters
        train, test = (f"{rows:,} rows" if rows is not None else "rows, how many is not known" for rows in self.rows)
        return {
            "model": [f"{self.model}, {total:,} parameters, {trained:,} of them trained, on {self.device}", kept],
            "data": [f"train: {train}; evaluation: {test}"],
            "trainer": [self.kind],
        }


def _adapted(model: Any) -> dict[str, tuple[int, int]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    return {
        name.removeprefix("base_model.model."): (layer.out_features, layer.in_features)
        for name, layer in layers.items()
        if hasattr(layer, "out_features") and hasattr(layer, "in_features")
    }


def _rows(data: Any) -> int | None:
    if isinstance(data, dict):
        counts = [_rows(each) for each in data.values()]
        return None if None in counts else sum(count for count in counts if count is not None)
    return len(data) if hasattr(data, "__len__") else None


def _sample(data: Any) -> object:
    """Some rows of a dataset, as text."""
    if isinstance(data, dict):
        return {name: _sample(each) for name, each in data.items()}
    count = _rows(data)
    if count is None:
        return type(data).__name__
    ends = [*range(min(SAMPLE, count)), *range(max(SAMPLE, count - SAMPLE), count)]
    return [count, [_text(data[index]) for index in ends]]


def _text(row: Any) -> str:
    """The same in every process, unlike what objects print of themselves."""
    if isinstance(row, Mapping):
        return json.dumps({str(name): _text(value) for name, value in row.items()}, sort_keys=True)
    if hasattr(row, "tolist"):
        return str(row.tolist())
    if isinstance(row, (list, tuple)):
        return str([_text(each) for each in row])
    return repr(row) if isinstance(row, (str, int, float, bool, bytes, type(None))) else type(row).__name__


def _model_digest(model: Any) -> str:
    """Of embeddings, norms and biases: no variant changes them, as some do with the weights of layers."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    digest, adapters = hashlib.sha256(), []
    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            adapters.append(f"{path}.")
        own = any(path.startswith(prefix) and not path.startswith(f"{prefix}base_layer") for prefix in adapters[-1:])
        for name, parameter in module._parameters.items():
            embedding = isinstance(module, torch.nn.Embedding)
            if own or parameter is None or parameter.requires_grad or not (embedding or parameter.dim() == 1):
                continue
            plain = f"{path}.{name}".removeprefix("base_model.model.").replace(".base_layer", "")
            sample = parameter.detach().flatten()[:SAMPLE].float().to(torch.bfloat16).float().cpu()
            digest.update(f"{plain} {tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def _arguments(args: transformers.TrainingArguments) -> dict[str, object]:
    """Those that differ from their defaults, so that a later version with more of them says the same."""
    from transformers import TrainingArguments

    shared = {field.name for field in fields(TrainingArguments)} - set(SHARED)
    found = {}
    for field in fields(args):
        value = getattr(args, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if field.name not in shared and value != default:
            found[field.name] = value if is_plain(value) else str(value)
    return found


def is_plain(value: object) -> bool:
    """Whether a setting is plain data."""
    return isinstance(value, (str, int, float, bool, type(None), list, dict))


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]
