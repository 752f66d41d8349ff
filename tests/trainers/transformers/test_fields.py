"""Fields of a user's own trainer: each trial has its own, and a function that does not take them is refused."""

from __future__ import annotations

import pytest

from autolora.errors import AutoloraError
from tests.trainers.transformers.support import CONFIG, opened, piece

FIELDS = {
    "adam_beta2": [0.95, 0.999],
    "optim": ["adamw_torch", "adafactor"],
    "target_modules": [["q_proj", "v_proj"], "all-linear"],
    "steepness": {"low": 0.0, "high": 1.0, "when": {"optim": "adafactor"}},
}


def made(trainer, **fields):
    return trainer._made(piece(0, config=CONFIG.replaced(fields=fields)), None)


@pytest.mark.parametrize("function", ["plain", "attached"])
def test_a_trial_has_its_own(function, tmp_path):
    trainer = opened(function, tmp_path, space__fields=FIELDS)
    trainer.check(["lora"], trainer.spec.space, {})
    given = {"adam_beta2": 0.95, "optim": "adafactor", "target_modules": ("q_proj", "v_proj"), "steepness": 0.5}
    with made(trainer, **given) as found:
        args = found.trainer.args
        assert (args.adam_beta2, args.optim.value) == (0.95, "adafactor")
        layers = {
            name.split(".lora_A")[0].split(".")[-1] for name, _ in found.model.named_parameters() if "lora_A" in name
        }
        assert layers == {"q_proj", "v_proj"}
        assert (found.trial.config.steepness, found.trial.config["adam_beta2"]) == (0.5, 0.95)
    with made(trainer, adam_beta2=0.999, optim="adamw_torch", target_modules="all-linear") as found:
        assert len({name for name, _ in found.model.named_parameters() if "lora_A" in name}) > 4
        assert "steepness" not in found.trial.config


def test_the_search_begins_with_the_defaults_of_training_arguments(tmp_path):
    trainer = opened("plain", tmp_path, space__fields=FIELDS)
    found = trainer.standards(trainer.spec.space)
    assert found["adam_beta2"] == 0.999
    assert found["optim"] in ("adamw_torch", "adamw_torch_fused")


@pytest.mark.parametrize(
    ("function", "fields", "said"),
    [
        (
            "with_usual_betas",
            {"adam_beta2": [0.999, 0.95]},
            "adam_beta2 = 0.999, the trial 0.95: pass adam_beta2=trial",
        ),
        ("with_other_layers", {"target_modules": [["q_proj"], ["v_proj"]]}, "target_modules = .*o_proj.*the trial"),
    ],
)
def test_a_function_that_does_not_take_them_is_refused_before_anything_is_trained(function, fields, said, tmp_path):
    def check():
        trainer = opened(function, tmp_path, space__fields=fields)  # refused here already if no value is right
        trainer.check(["lora"], trainer.spec.space, {})

    with pytest.raises(AutoloraError, match=said):
        check()
