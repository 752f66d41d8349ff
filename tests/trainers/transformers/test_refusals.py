"""What cannot be trained, or is not what was asked for, is refused in words that say what to do."""

from __future__ import annotations

import pytest

from autolora import spec as specs
from autolora import variants
from autolora.errors import AutoloraError
from autolora.space import Space
from autolora.trainers.transformers.scoring import reported
from tests.support import makers
from tests.support.makers import SPEC
from tests.trainers.transformers.support import CONFIG, opened, piece

REFUSED = {
    "returns_nothing": "returned None; return a",
    "other_rate": r"learning_rate = 0.001, the trial 0.0001: pass TrainingArguments",
    "other_batch": r"batch size is 3 \(per_device_train_batch_size 3 x .*trial's is 4: use TrainingArguments",
    "other_rank": r"r = 3, the trial 2: pass trial.peft_config\(\)",
    "without_adapter": "carries no adapter: give it get_peft_model",
    "with_model_init": "has a model_init.*pass model=",
    "attaches_to_classifier": "LlamaForSequenceClassification.*peft_config",
    "other_optimizer": r"learning rate is 1e-09, the trial's is 0.0001: make it with lr=trial.config",
    "other_optimizer_class": r"learning rate is 0.5, the trial's is 0.0001",
    "with_dora": r"use_dora = True, the trial False: pass trial.peft_config\(\)",
    "with_rslora": "use_rslora = True, the trial False",
    "with_pissa": "init_lora_weights = 'pissa', the trial True",
    "with_ranks": "rank_pattern = {'q_proj': 1}, the trial {}",
    "with_alphas": "alpha_pattern = {'q_proj': 1}, the trial {}",
    "with_bias": "lora_bias = True, the trial False",
    "with_adalora": "peft_type = .*ADALORA.*, the trial .*LORA",
    "counts_steps": r"unsupported operand.*trial.steps.* are None while .*: set training.examples",
    "nosuch": "has no 'nosuch'",
    "SPEC": "is a dict; name a function",
}


@pytest.mark.parametrize("function", REFUSED)
def test_a_function_that_does_not_do_what_it_should_is_refused_when_it_is_opened(function, tmp_path):
    with pytest.raises(AutoloraError, match=REFUSED[function]):
        opened(function, tmp_path)


def test_a_module_that_is_not_there_is_refused(tmp_path):
    from autolora.trainers import open_trainer

    with pytest.raises(AutoloraError, match=r"nosuchmodule.*Write package\.module:function"):
        open_trainer(specs.load({**SPEC, "trainer": "nosuchmodule:make"}), tmp_path)


def test_a_mistake_in_the_function_is_told_with_the_user_s_own_lines(tmp_path):
    with pytest.raises(AutoloraError, match="makers:failing failed: ZeroDivisionError") as raised:
        opened("failing", tmp_path)
    [line] = str(raised.value).splitlines()[1:]
    assert "makers.py, line " in line
    assert line.endswith("in failing: raise ZeroDivisionError")
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("variant", ["adalora", "loramoe", "loft"])
def test_a_variant_whose_training_step_no_trainer_takes_is_refused(variant, tmp_path):
    trainer = opened("attached", tmp_path)
    with pytest.raises(AutoloraError, match=f"{variant} .*leave {variant} out"):
        trainer.check([variant], Space(rank=4), {})


def test_what_a_variant_refuses_is_refused_before_anything_runs(tmp_path):
    trainer = opened("attached", tmp_path, variants=["lora", "lokr"])
    with pytest.raises(AutoloraError, match="lokr must be trained without dropout"):
        trainer.check(["lora", "lokr"], Space(rank=4), {})


@pytest.mark.parametrize("function", ["attached", "reloading", "classifier"])
def test_a_rank_that_does_not_fit_is_refused(function, tmp_path):
    with pytest.raises(AutoloraError, match="rank 64 does not fit layer"):
        opened(function, tmp_path).check(["lora"], Space(rank=64), {})


@pytest.mark.parametrize("variant", ["pissa", "lora_plus", "hydralora"])
def test_a_plain_adapter_is_not_taken_for_a_variant_that_plain_peft_has_not(variant, tmp_path):
    with pytest.raises(AutoloraError, match=rf"cannot train {variant}: use trial.attach\(model\)"):
        opened("plain_for_every_variant", tmp_path, variants=[variant])


def test_a_plain_adapter_is_not_taken_for_dora(tmp_path):
    with pytest.raises(AutoloraError, match="use_dora = False, the trial True"):
        opened("plain_for_every_variant", tmp_path, variants=["dora"], training__dropout=0)


@pytest.mark.parametrize("function", ["own_optimizer", "own_optimizer_class", "variant_optimizer"])
def test_an_optimizer_of_the_functions_own_with_the_trials_rate_is_taken(function, tmp_path):
    assert opened(function, tmp_path).run(piece(0, rung=0)).kind == "scored"


@pytest.mark.parametrize("function", ["own_optimizer", "own_optimizer_class", "other_optimizer"])
def test_an_optimizer_that_is_not_the_variants_is_refused(function, tmp_path):
    with pytest.raises(AutoloraError, match=r"not that of lora_plus: pass optimizers=\(trial.optimizer\(model\), None"):
        opened(function, tmp_path, variants=["lora_plus"])


def test_the_variants_own_optimizer_is_taken_as_if_it_was_left_to_us(tmp_path):
    given, ours = (opened(name, tmp_path / name, variants=["lora_plus"]) for name in ("variant_optimizer", "attached"))
    job = piece(0, variant="lora_plus")
    assert given.run(job).value == ours.run(job).value


def test_a_function_that_needs_the_length_of_a_run_is_told_it(tmp_path):
    assert opened("counts_steps", tmp_path, training__examples=40).run(piece(0, rung=0)).kind == "scored"


def test_another_mistake_in_types_is_no_matter_of_length(tmp_path, monkeypatch):
    monkeypatch.setattr(makers, "load", lambda: 1 + "1")
    with pytest.raises(AutoloraError, match=r"failed: TypeError: unsupported operand.*\n.*in plain"):
        opened("plain", tmp_path)


@pytest.mark.parametrize("what", ["trainer", "model"])
def test_what_an_earlier_call_returned_is_refused(what, tmp_path, monkeypatch):
    """Also the one of the call that looked at it."""
    own, former = makers.made, {}

    def made(trial, model):
        key = trial.config["rank"], trial.config["batch_size"]
        if what == "trainer" and key in former:
            return former[key]
        former.setdefault(key, own(trial, former[key].model if key in former else model))
        return former[key] if what == "trainer" else own(trial, former[key].model)

    monkeypatch.setattr(makers, "made", made)
    trainer = opened("reloading", tmp_path)
    trainer.run(piece(0, rung=0))
    with pytest.raises(AutoloraError, match=f"the {what} of an earlier call.*make one each time"):
        trainer.run(piece(1, rung=0))


def test_an_evaluation_that_returns_nothing_is_told(tmp_path):
    with pytest.raises(AutoloraError, match=r"evaluate\(\) returned None, a NoneType: have it return its metrics"):
        opened("evaluates_to_nothing", tmp_path).run(piece(0, rung=0))


def test_a_trainer_without_evaluation_data_is_told(tmp_path):
    with pytest.raises(AutoloraError, match="no eval_dataset"):
        opened("without_evaluation", tmp_path)


def test_a_metric_that_is_not_reported_is_told_with_those_that_are(tmp_path):
    trainer = opened("plain", tmp_path, metric__name="eval_los", metric__direction="minimize")
    with pytest.raises(AutoloraError, match=r"reports no 'eval_los'; did you mean 'eval_loss'.*eval_runtime"):
        trainer.run(piece(0, rung=0))


def test_a_metric_is_found_with_and_without_its_prefix():
    assert reported({"eval_accuracy": 0.5}, "accuracy") == 0.5
    assert reported({"eval_accuracy": 0.5}, "eval_accuracy") == 0.5
    assert reported({"accuracy": 0.25, "eval_accuracy": 0.5}, "accuracy") == 0.25
    with pytest.raises(AutoloraError, match="not a number"):
        reported({"eval_text": "good"}, "text")


def test_a_score_that_is_not_finite_is_a_divergence(tmp_path, monkeypatch):
    from autolora.trainers.transformers import segment

    trainer = opened("plain", tmp_path)
    monkeypatch.setattr(segment, "evaluation", lambda *_: {"eval_loss": float("nan")})
    outcome = trainer.run(piece(0, rung=0))
    assert (outcome.kind, outcome.reason) == ("diverged", "eval_loss became nan")


def test_what_does_not_go_with_a_search_is_switched_off_and_said(tmp_path):
    trainer = opened("opinionated", tmp_path)
    said = [line for line in trainer.about()["warning"] if "switched off" in line]
    assert "eval_strategy, load_best_model_at_end, EarlyStoppingCallback are switched off" in said[0]
    steps = []
    assert trainer.run(piece(0), steps.append).value == opened("plain", tmp_path / "plain").run(piece(0)).value
    assert [each.step for each in steps] == list(range(1, 11))


def test_a_searched_field_that_the_trainer_does_not_take_is_refused(tmp_path):
    space = {"space.weight_decay": [0.0, 0.1], "space.warmup_ratio": [0.0, 0.1]}
    from autolora.trainers import open_trainer

    spec = specs.load({**SPEC, "trainer": "tests.support.makers:plain"}, **space)
    trainer = open_trainer(spec, tmp_path)
    config = CONFIG.replaced(weight_decay=0.1, warmup_ratio=0.1)
    assert trainer.run(piece(0, config=config)).kind == "scored"


@pytest.mark.parametrize("variant", [each for each in variants.names() if variants.get(each).traits.unit_scale])
def test_a_first_variant_that_has_one_scale_alone_is_looked_at_with_that(variant, tmp_path):
    trainer = opened("attached", tmp_path, variants=[variant], training__dropout=0.0)
    assert trainer.facts.layers
