"""A base is loaded once, and every trial gets it as if it had just been loaded."""

from __future__ import annotations

import gc
import random
import weakref

import numpy as np
import pytest
import torch

from autolora.trainers.transformers.resident import Resident
from tests.support import makers
from tests.support.tiny_models import build_model
from tests.trainers.transformers.support import CONFIG, opened, piece


def described(model):
    """Everything about a model that a training could leave behind."""
    modules = {
        name: (type(module), {key: str(value) for key, value in vars(module).items() if key not in ("_modules",)})
        for name, module in model.named_modules()
    }
    return modules, str(model.config.to_dict()), [parameter.requires_grad for parameter in model.parameters()]


def test_a_base_is_loaded_once_and_is_the_same_afterwards(tmp_path, monkeypatch):
    loads = []

    def load():
        loads.append(build_model("llama"))
        return loads[-1]

    monkeypatch.setattr(makers, "load", load)
    fresh = build_model("llama")
    trainer = opened("attached", tmp_path, variants=["lora", "pissa", "dora", "hydralora"])
    for trial, variant in enumerate(["lora", "pissa", "dora", "hydralora"]):
        trainer.run(piece(trial, variant=variant))
    trainer.export(1, tmp_path / "best")
    assert len(loads) == 1
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(loads[0].parameters(), fresh.parameters(), strict=True)
    )
    assert described(loads[0]) == described(fresh)
    assert "the base is loaded once" in trainer.about()["model"][1]


@pytest.mark.parametrize("function", ["plain", "added", "accumulating", "classifier"])
def test_trials_do_not_depend_on_those_before(function, tmp_path):
    used, fresh = opened(function, tmp_path / "used"), opened(function, tmp_path / "fresh")
    used.run(piece(0))
    used.run(piece(1, rung=0))
    assert used.run(piece(2)).value == fresh.run(piece(2)).value


def test_memory_does_not_grow_from_trial_to_trial(tmp_path, monkeypatch):
    made = []
    own = makers.made

    def watched(*args, **options):
        trainer = own(*args, **options)
        made.append((weakref.ref(trainer), weakref.ref(trainer.model)))
        return trainer

    monkeypatch.setattr(makers, "made", watched)
    trainer = opened("attached", tmp_path)
    for trial in range(3):
        trainer.run(piece(trial, rung=0))
    gc.collect()
    assert [(one() is None, other() is None) for one, other in made] == [(True, True)] * 4


def taking(resident, load, change):
    with resident.lent():
        change(resident.take(load))
    with resident.lent():
        return resident.take(load)


def add_adapter(model):
    from peft import LoraConfig

    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))


def start_at_principal_directions(model):
    from peft import LoraConfig, get_peft_model

    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa"))


def patch_forward(model):
    model.forward = lambda *args, **kwargs: None
    model.lm_head.register_forward_hook(lambda *args: None)
    model.model.layers[0].register_full_backward_hook(lambda *args: None)


def resize(model):
    model.resize_token_embeddings(128)


def train_all(model):
    model.train()
    model.requires_grad_(True)
    model(input_ids=torch.tensor([[3, 4]]), labels=torch.tensor([[3, 4]])).loss.backward()


def configure(model):
    model.config.use_cache = False
    model.config.pad_token_id = 7
    model.config.new = [1]
    model.generation_config.do_sample = True
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()


def halve(model):
    model.half()


def drop_layers(model):
    del model.model.layers[1:]
    model.model.norm = torch.nn.Identity()


@pytest.mark.parametrize(
    "change",
    [add_adapter, start_at_principal_directions, patch_forward, resize, train_all, configure, halve, drop_layers],
)
def test_whatever_is_done_to_a_base_is_undone(change):
    fresh = build_model("llama")
    resident = Resident()
    model = taking(resident, lambda: build_model("llama"), change)
    assert resident.notes == []
    assert described(model) == described(fresh)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), fresh.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("way", ["in place", "through data", "a merged adapter", "rows in another order", "swapped"])
def test_a_base_whose_weights_were_changed_is_loaded_again_and_that_is_said(way):
    def change(model):
        weight = model.model.layers[0].self_attn.q_proj.weight
        if way == "in place":
            with torch.no_grad():
                weight[0, 0] += 1
        elif way == "through data":
            weight.data += 1
        elif way == "rows in another order":
            with torch.no_grad():
                weight.copy_(weight.flip(0).clone())
        elif way == "swapped":
            weight.data[0, :2] = weight.data[0, :2].flip(0)
        else:
            from peft import LoraConfig, get_peft_model

            get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).merge_adapter()

    resident = Resident()
    with pytest.warns(UserWarning, match="is loaded for every trial"):
        model = taking(resident, lambda: build_model("llama"), change)
    fresh = build_model("llama")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), fresh.parameters(), strict=True))
    assert "changes the weights of LlamaForCausalLM" in resident.notes[0]


def test_what_a_function_draws_while_it_loads_does_not_depend_on_the_trials_before(tmp_path, monkeypatch):
    """Neither what is loaded, nor what is drawn afterwards, as the start of an adapter."""

    def load():
        model = build_model("llama")
        with torch.no_grad():
            model.lm_head.weight += 0.1 * torch.randn_like(model.lm_head.weight) * random.random() * np.random.rand()
        return model

    monkeypatch.setattr(makers, "load", load)
    used, fresh = opened("plain", tmp_path / "used"), opened("plain", tmp_path / "fresh")
    used.run(piece(0, config=CONFIG.replaced(batch_size=4)))
    fresh.resident.drop()  # as in a worker, which has not looked at a trainer before
    assert used.run(piece(1)).value == fresh.run(piece(1)).value


def test_other_studies_load_with_another_seed():
    def drawn(seed):
        resident = Resident(seed)
        with resident.lent():
            return resident.take(lambda: [torch.rand(()).item(), random.random(), np.random.rand()])

    assert drawn(0) == drawn(0)
    assert all(one != other for one, other in zip(drawn(0), drawn(1), strict=True))


def test_tokenizers_are_handed_out_as_they_were_loaded():
    resident = Resident()

    def change(loaded):
        loaded[1].add_tokens(["new"])
        loaded[1].pad_token = "[s]"

    _, tokenizer = taking(resident, makers.load_classifier, change)
    assert tokenizer.pad_token == "[pad]"
    assert "new" not in tokenizer.get_vocab()


def test_functions_are_told_apart_by_what_they_capture():
    resident = Resident()

    def loader(value):
        return lambda: [value]

    with resident.lent():
        assert resident.take(loader(1)) == [1]
        assert resident.take(loader(2)) == [2]
        assert resident.take(loader([3])) == [[3]]
    with pytest.warns(UserWarning, match="captures value, so it loads every time"), resident.lent():
        assert resident.take(loader([3])) == [[3]]
    with resident.lent():
        resident.take(loader(2))
    assert len(resident._kept) == 1  # of the last trial alone


def test_the_callers_randomness_is_left_alone(tmp_path):
    def state():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = state()
    opened("plain", tmp_path).run(piece(0))
    assert state() == before
