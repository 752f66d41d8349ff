"""A script for TRL's ``SFTTrainer``, which trains on the same text as the study did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from autolora import files
from autolora.adapters.optimizers import ADAMW
from autolora.recipes.recipe import Recipe
from autolora.tasks.causal_lm.conversations.turns import CALLER, ROLES
from autolora.trainers.configurations.data import Data, Source

TOOL, FILE = "TRL", "train.py"


def write(recipe: Recipe, out: Path) -> list[Path]:
    """Write ``train.py``."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    files.write(path, _script(recipe, out))
    return [path]


_FLOAT32 = """for parameter in trainer.model.parameters():
    if parameter.requires_grad:  # TRL puts adapters of a packed base into bfloat16, where small steps round to nothing
        parameter.data = parameter.data.float()
"""


def _script(recipe: Recipe, out: Path) -> str:
    data = recipe.data.known_to(TOOL, EXAMPLES).plain_alpaca(TOOL).in_folder(out)
    converts = recipe.variant.export_form == "rank 2r"
    plus = recipe.loraplus_ratio != 1
    own = plus or recipe.training.optimized.name != ADAMW.name
    parts = [
        _header(recipe, data, plus),
        _data(recipe, data),
        _model(recipe),
        _settings(recipe, data, out),
        _BEFORE_CONVERTING if converts else "",
        _FLOAT32 if recipe.base_bits else "",
        _optimizer(recipe, plus) if own else "",
        "trainer.train()\nprint(trainer.evaluate())",
        _CONVERT if converts else "trainer.save_model()",
    ]
    return "\n".join(part.rstrip() for part in parts if part) + "\n"


def _header(recipe: Recipe, data: Data, plus: bool) -> str:
    notes = "".join(f"\n\n{note}" for note in data.notes)
    optimizers = "from peft.optimizers import create_loraplus_optimizer\n" if plus else ""
    return f'''"""{recipe.summary}.

pip install trl peft{" bitsandbytes" if recipe.base_bits else ""}; python {FILE}
For one GPU: with several, divide gradient_accumulation_steps by their number.{notes}
"""

import torch
from datasets import load_dataset
from peft import LoraConfig
{optimizers}from transformers import AutoModelForCausalLM, AutoTokenizer{", BitsAndBytesConfig" if recipe.bits else ""}
from trl import SFTConfig, SFTTrainer
'''


def _data(recipe: Recipe, data: Data) -> str:
    seed = recipe.seed
    prepared = "" if data.format == "tokenized" else ".map(example, remove_columns={})"
    lines = [EXAMPLES[data.format](data), f"train = {_loading(data.train, data)}"]
    if data.eval is None:
        size = data.eval_size
        lines.append(f"train, evaluation = train.train_test_split(test_size={size!r}, seed={seed}).values()")
    else:
        rows = "" if data.eval_size is None else f".take({data.eval_size})"
        lines.append(f"evaluation = {_loading(data.eval, data)}{rows}")
    if prepared:
        lines += [
            f"{name} = {name}{prepared.format(f'{name}.column_names')}  # to text" for name in ("train", "evaluation")
        ]
    return "\n".join(lines) + "\n"


def _loading(source: Source, data: Data) -> str:
    if source.kind in ("folder", "hub"):
        name = "" if source.name is None else f", {_literal(source.name)}"
        return f"load_dataset({_literal(source.path)}{name}, split={_literal(source.split)})"
    # every cell of a CSV file is text: "007" is no number
    raw = "".join(f"{_literal(column)}: str, " for column in data.columns).removesuffix(", ")
    converters = f", converters={{{raw}}}" if source.kind == "csv" else ""
    file = f"{_literal(source.kind)}, data_files={_literal(source.path)}"
    return f"load_dataset({file}{converters}, split={_literal(source.split)})"


def _messages(data: Data) -> str:
    return _conversation(data, "", f"row[{_literal(data.columns[0])}]")


def _sharegpt(data: Data) -> str:
    roles = {role: name for role, name in ROLES.items() if name != CALLER}
    turn = '{"role": ROLES[turn["from"]], "content": turn["value"]}'
    return _conversation(data, f"ROLES = {_literal(roles)}\n", f"[{turn} for turn in row[{_literal(data.columns[0])}]]")


def _conversation(data: Data, constants: str, messages: str) -> str:
    """The messages with what stands in the columns beside them."""
    beside = {name: f"row[{_literal(column)}]" for name, column in data.beside(system="system", tools="tools").items()}
    if "system" in beside:
        constants += _WITH_SYSTEM
        messages = f"with_system({messages}, {beside['system']})"
    tools = [f'"tools": {beside["tools"]}'] if "tools" in beside else []
    return _function(constants, "{" + ", ".join([f'"messages": {messages}', *tools]) + "}")


_WITH_SYSTEM = """

def with_system(messages, system):
    given = messages[0]["role"] == "system" or not system
    return messages if given else [{"role": "system", "content": system}, *messages]
"""


def _text(data: Data) -> str:
    return _function("", f'{{"text": row[{_literal(data.columns[0])}]}}')


def _alpaca(data: Data) -> str:
    from autolora.tasks.causal_lm.formats.alpaca import WITH_INPUT, WITHOUT_INPUT

    constants = f"WITH_INPUT = {_literal(WITH_INPUT)}\nWITHOUT_INPUT = {_literal(WITHOUT_INPUT)}\n"
    prompt = '(WITH_INPUT if row.get("input") else WITHOUT_INPUT).format_map(row)'
    return _function(constants, f'{{"prompt": {prompt}, "completion": row["output"]}}')


def _prompt_completion(data: Data) -> str:
    completion = f'"completion": row[{_literal(data.columns[-1])}]'
    if data.template is None:
        return _function("", f'{{"prompt": row[{_literal(data.columns[0])}] + "\\n", {completion}}}')
    return _function(f"TEMPLATE = {_literal(data.template)}\n", f'{{"prompt": TEMPLATE.format_map(row), {completion}}}')


def _function(constants: str, value: str) -> str:
    return f"{constants}\n\ndef example(row):\n    return {value}\n\n"


EXAMPLES: dict[str, Callable[[Data], str]] = {
    "prompt_completion": _prompt_completion,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "text": _text,
    "tokenized": lambda data: "",
}
"""By format, the function from a row to what TRL reads."""


_BEST_DTYPE = """(
    torch.float32
    if not torch.cuda.is_available()
    else torch.bfloat16
    if torch.cuda.is_bf16_supported(including_emulation=False)
    else torch.float16
)"""


def _model(recipe: Recipe) -> str:
    dtype = _BEST_DTYPE if recipe.training.dtype == "auto" else f"torch.{recipe.training.dtype}"
    revision = f", revision={_literal(recipe.spec['revision'])}" if recipe.spec["revision"] else ""
    trust = ", trust_remote_code=True" if recipe.spec["trust_remote_code"] else ""
    where = f"{_literal(recipe.whole_model(TOOL))}, dtype=dtype{revision}{trust}{recipe.packing('dtype')}"
    return f"""dtype = {dtype}
model = AutoModelForCausalLM.from_pretrained({where})
tokenizer = AutoTokenizer.from_pretrained({_literal(recipe.whole_model(TOOL))}{revision}{trust})
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
"""


def _settings(recipe: Recipe, data: Data, out: Path) -> str:
    training, config = recipe.training, recipe.config
    adapter = {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": training.dropout,
        "target_modules": "all-linear" if recipe.layers is None else recipe.layers[0],
        "task_type": "CAUSAL_LM",
        **recipe.peft_options(TOOL),
    }
    if recipe.layers is not None and recipe.layers[1]:
        adapter["target_parameters"] = recipe.layers[1]
    arguments: dict[str, object] = {
        "output_dir": str(out.absolute() / recipe.variant.name),
        "per_device_train_batch_size": recipe.micro_batch,
        "per_device_eval_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "max_steps": recipe.steps,
        "learning_rate": config.learning_rate,
        "optim": "adamw_torch",
        **training.optimized.settings,
        "weight_decay": training.weight_decay,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": recipe.warmup_steps,
        "max_grad_norm": training.max_grad_norm,
        "max_length": training.max_length,
        "packing": False,
        "seed": recipe.seed,
        "report_to": "none",
    }
    if data.format in ("messages", "sharegpt"):
        arguments["assistant_only_loss"] = True
    return f"""adapter = LoraConfig(
{_keywords(adapter)})
arguments = SFTConfig(
{_keywords(arguments)}    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
)
trainer = SFTTrainer(
    model=model,
    args=arguments,
    train_dataset=train,
    eval_dataset=evaluation,
    processing_class=tokenizer,
    peft_config=adapter,
)
"""


def _literal(value: object) -> str:
    """Python source of a value; strings in double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _keywords(options: dict[str, object]) -> str:
    return "".join(f"    {name}={_literal(value)},\n" for name, value in options.items())


def _optimizer(recipe: Recipe, plus: bool) -> str:
    asked = recipe.training.optimized
    kind, keywords = asked.source
    if not plus:
        return f"""trainer.optimizer = {kind}(
    [parameter for parameter in trainer.model.parameters() if parameter.requires_grad],
    lr=arguments.learning_rate,
    weight_decay=arguments.weight_decay,
    {keywords},
)
"""
    further = "" if asked == ADAMW else f"    {keywords},\n"
    return f"""trainer.optimizer = create_loraplus_optimizer(
    trainer.model,
    {kind},
    lr=arguments.learning_rate,
    loraplus_lr_ratio={recipe.loraplus_ratio!r},
    loraplus_weight_decay=arguments.weight_decay,
{further})
"""


_BEFORE_CONVERTING = """# The start, kept so that what is saved in the end loads on the unmodified model.
start = arguments.output_dir + "/start"
trainer.model.peft_config["default"].init_lora_weights = True
trainer.model.save_pretrained(start)
"""
_CONVERT = "trainer.model.save_pretrained(arguments.output_dir, path_initial_model_for_weight_conversion=start)"
