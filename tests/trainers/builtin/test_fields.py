"""Fields of the builtin trainer: the optimizer, schedule and layers of a trial are its own, and mistakes are named."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file

import autolora
from autolora.search import Job
from autolora.space import Config, Space, searchable
from autolora.spec import SpecError, TrainingSpec
from autolora.study.directory import read_study
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.trainer import BuiltinTrainer
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from autolora.variants import VariantError, get
from tests.support.specs import SMALL_SPEC, small_spec

SETS = {"all": "all-linear", "attention": ("q_proj", "v_proj"), "some": r".*layers\.[01]\..*proj"}
FIELDS = {
    "target_modules": ["all-linear", ["q_proj", "v_proj"]],
    "optimizer": ["adamw", "nadam"],
    "adam_beta2": {"choices": [0.95, 0.999], "when": {"optimizer": "adamw"}},
}


def config(**fields):
    return Config.of(learning_rate=5e-3, batch_size=4, rank=2, alpha=4.0, fields=fields)


def opened(base, folder, **fields):
    """A trainer whose space names these fields, and its specification."""
    spec = small_spec(**({"space.fields": fields} if fields else {}))
    data = prepare_data(spec, base.tokenizer, folder.parent / "tokens")
    return BuiltinTrainer(Workbench.of(spec, folder, base, data)), spec


def piece(trial, rung=2, start=0.0, **fields):
    return Job(trial, "lora", config(**fields), seed=0, start=start, stop=(1 / 9, 1 / 3, 1.0)[rung], rung=rung)


@pytest.fixture
def optimizers(monkeypatch):
    """Optimizers of trials, in their order."""
    seen, plain = [], segment.Workbench.optimizer

    def watched(self, variant, adapted, config):
        seen.append(plain(self, variant, adapted, config))
        return seen[-1]

    monkeypatch.setattr(segment.Workbench, "optimizer", watched)
    return seen


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("adamw", torch.optim.AdamW, {"amsgrad": False}),
        ("amsgrad", torch.optim.AdamW, {"amsgrad": True}),
        ("nadam", torch.optim.NAdam, {"decoupled_weight_decay": True}),
        ("radam", torch.optim.RAdam, {"decoupled_weight_decay": True}),
    ],
)
def test_the_optimizer_of_a_trial_is_its_own(make_bench, optimizers, name, kind, settings):
    fields = {"optimizer": name, "adam_beta1": 0.8, "adam_beta2": 0.97, "adam_epsilon": 1e-6}
    assert segment.run(make_bench(), piece(0, rung=0, **fields)).kind == "scored"
    [made] = optimizers
    assert type(made) is kind
    expected = {"betas": (0.8, 0.97), "eps": 1e-6, **settings}
    assert {key: made.defaults[key] for key in expected} == expected


def test_without_a_word_the_optimizer_is_what_it_was(make_bench, optimizers):
    segment.run(make_bench(), Job(0, "lora", Config(5e-3, 4, 2, 4.0), seed=0, start=0.0, stop=1 / 9, rung=0))
    assert (optimizers[0].defaults["betas"], optimizers[0].defaults["fused"]) == ((0.9, 0.999), True)
    assert make_bench().training.identity().keys() & {"optimizer", "adam_beta1", "adam_beta2", "adam_epsilon"} == set()
    assert "adam_beta2" in TrainingSpec(adam_beta2=0.95).identity()


def test_schedule_and_clipping_of_a_trial_are_its_own(make_bench, monkeypatch):
    clips = set()

    def watched(self, model, optimizer, max_norm):
        clips.add(max_norm)
        return 1.0

    monkeypatch.setattr(type(get("lora")), "clip_gradients", watched)
    bench = make_bench()
    scores = [
        segment.run(bench, piece(trial, rung=1, schedule=schedule, max_grad_norm=0.25)).value
        for trial, schedule in enumerate(("cosine", "constant"))
    ]
    assert clips == {0.25}
    assert scores[0] != scores[1]


@pytest.mark.parametrize("layers", SETS)
@pytest.mark.parametrize("variant", ["lora", "pissa", "lora_ga"])
def test_a_run_that_is_cut_equals_one_that_is_not_whatever_its_layers(base, tmp_path, layers, variant):
    def adapter(folder, rungs):
        trainer, before = opened(base, folder)[0], 0.0
        for rung in rungs:
            job = piece(0, rung, before, target_modules=SETS[layers])
            job = Job(0, variant, job.config, 0, job.start, job.stop, job.rung)
            assert trainer.run(job).kind == "scored"
            before = job.stop
        trainer.export(0, folder / "adapter")
        return load_file(folder / "adapter" / "adapter_model.safetensors")

    whole, cut = adapter(tmp_path / "whole", [2]), adapter(tmp_path / "cut", [0, 1, 2])
    assert whole.keys() == cut.keys()
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    kinds = {name.split(".lora_")[0].split(".")[-1] for name in whole}
    assert (kinds == {"q_proj", "v_proj"}) is (layers == "attention")
    numbers = {re.search(r"layers\.(\d+)\.", name)[1] for name in whole}
    assert (numbers == {"0", "1"}) is (layers == "some")


def test_trials_with_other_layers_do_not_touch_one_another(base, tmp_path):
    alone = opened(base, tmp_path / "alone")[0].run(piece(0, rung=0, target_modules=("q_proj", "v_proj")))
    trainer = opened(base, tmp_path / "after")[0]
    for number, layers in enumerate(SETS.values(), start=1):
        trainer.run(piece(number, rung=0, target_modules=layers))
    assert trainer.run(piece(0, rung=0, target_modules=("q_proj", "v_proj"))).value == alone.value


def test_every_set_of_layers_is_said_and_planned_for(base, tmp_path):
    trainer, spec = opened(base, tmp_path / "run", target_modules=FIELDS["target_modules"])
    lines = "\n".join(trainer.about()["layers"])
    assert "target_modules all-linear: adapters on q_proj, k_proj" in lines
    assert "target_modules q_proj+v_proj: adapters on q_proj, v_proj (" in lines
    few = opened(base, tmp_path / "run", target_modules=[["q_proj", "v_proj"]])[0]
    both, one = (each.memory_plan(["lora"], spec.space) for each in (trainer, few))
    assert both is not None
    assert one is not None
    trainer.check(["lora"], spec.space, {})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target_modules": ["all-linear", ["q_prj"]]}, "'q_prj' matches no layer.*Did you mean 'q_proj'"),
        ({"target_modules": ["q_proj", "v_proj"]}, "A text is a regular expression.*write a list within the list"),
        (
            {"target_modules": [["q_proj"], ["v_proj"]], "exclude_modules": [[], ["q_proj"]]},
            "target_modules q_proj: .*has no linear layer to adapt",
        ),
    ],
)
def test_layers_that_are_not_there_are_refused_before_anything_is_trained(base, tmp_path, fields, said):
    trainer, spec = opened(base, tmp_path / "run", **fields)
    with pytest.raises(VariantError, match=f"(?s)space.fields: .*{said}"):
        trainer.check(["lora"], spec.space, {})


def test_a_variant_refuses_a_rank_on_the_layers_of_one_set_alone(base, tmp_path):
    trainer, _ = opened(base, tmp_path / "run", target_modules=FIELDS["target_modules"])
    space = Space(rank=[96], fields={"target_modules": [["q_proj"], ["down_proj"]]})
    trainer.check(["lora"], space, {})
    with pytest.raises(VariantError, match="rank 97 does not fit"):
        trainer.check(["lora"], Space(rank=[97], fields={"target_modules": [["q_proj"]]}), {})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("space.fields.optimiser", ["adamw"], "space.fields.optimiser: unknown; did you mean 'optimizer'?"),
        ("space.fields.examples", [100], "space.fields.examples: unknown; .*the builtin trainer has schedule"),
        ("space.fields.optimizer", ["adamw", "adamm"], "space.fields.optimizer: 'adamm' is not allowed"),
        ("space.fields.adam_beta2", [0.9, 1.0], "space.fields.adam_beta2: 1 is not allowed; it should be below 1"),
        ("space.fields.adam_beta2", {"low": 0.9, "high": 1.5}, "space.fields.adam_beta2: 1.5 is not allowed"),
        ("space.fields.optimizer", {"low": 0, "high": 1}, "a range is not allowed; training.optimizer takes no"),
        ("space.fields.max_grad_norm", [True], "space.fields.max_grad_norm: true is not allowed"),
        ("space.fields.target_modules", [3], "space.fields.target_modules: 3 is not allowed"),
        ("space.fields.target_modules", ["(q"], "'\\(q' is not a valid regular expression"),
        ("space.fields.weight_decay", [0], "weight_decay has a key of its own; write space.weight_decay"),
        ("training.optimizer", "adam", "training.optimizer: 'adam' is not allowed"),
    ],
)
def test_what_is_wrong_is_named_at_the_start(key, value, said):
    with pytest.raises(SpecError, match=said):
        small_spec(**{key: value})


@pytest.mark.parametrize("variant", ["loft", "rplora", "adalora", "relora"])
@pytest.mark.parametrize("key", ["training.optimizer", "space.fields.optimizer", "space.fields.adam_beta2"])
def test_a_variant_with_an_optimizer_of_its_own_refuses_another(variant, key):
    value = "nadam" if key == "training.optimizer" else ["nadam"] if key.endswith("optimizer") else [0.95, 0.999]
    with pytest.raises(SpecError, match=f"{key}: .* does not go with {variant}, which has an optimizer of its own"):
        small_spec(**{key: value, "variants": ["lora", variant]})
    small_spec(**{key: value, "variants": ["lora", "lora_plus"]})


def test_a_study_searches_continues_and_reports_them(tmp_path):
    spec = {**SMALL_SPEC, "space": {**SMALL_SPEC["space"], "fields": FIELDS}, "confirm": 0, "prior": "laws"}
    autolora.tune(spec={**spec, "budget": 2}, dir=tmp_path / "cut")
    result = autolora.tune(spec={**spec, "budget": 4}, dir=tmp_path / "cut")
    table, _ = read_study(tmp_path / "cut")
    for trial in table.trials:
        assert ("adam_beta2" in dict(trial.config.fields)) is (trial.config.optimizer == "adamw")
    assert autolora.TuneResult.load(tmp_path / "cut")["lora"].config == result["lora"].config
    best = result["lora"].config
    expected = {"q_proj", "v_proj"} if best.target_modules != "all-linear" else None
    keys = load_file(tmp_path / "cut" / "best" / "lora" / "adapter_model.safetensors")
    kinds = {name.split(".lora_")[0].split(".")[-1] for name in keys}
    assert kinds == expected or (expected is None and len(kinds) == 7)


def test_the_search_begins_with_what_the_specification_trains_with():
    from autolora.driver.opening import baseline_of, resolved_space

    spec = small_spec(
        **{
            "training.optimizer": "nadam",
            "training.adam_beta2": 0.98,
            "adapter.target_modules": ["q_proj", "v_proj"],
            "space.fields": {**FIELDS, "adam_beta2": [0.9, 0.95, 0.99]},
            "baseline": {"learning_rate": 1e-3, "rank": 4, "alpha": 8},
        }
    )
    space = resolved_space(spec)
    mode = {name: field.mode for name, field in space.fields.items()}
    assert mode == {"optimizer": "nadam", "adam_beta2": 0.99, "target_modules": ("q_proj", "v_proj")}
    baseline = baseline_of(spec, space)["lora"]
    assert dict(baseline.fields) == {
        "optimizer": "nadam",
        "adam_beta2": 0.98,
        "target_modules": ("q_proj", "v_proj"),
    }
    assert searchable.completed(space, get("lora"), baseline) == baseline
