"""What every registered variant must do. A new variant gets these tests by registering."""

from __future__ import annotations

import copy
import dataclasses
import gc
import importlib
import math
import pickle
import re
import warnings
import weakref

import pytest
import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

import autolora.variants
from autolora.adapters.attachment import attachment
from autolora.adapters.export import CONFIG, NATIVE, OWN, WEIGHTS
from autolora.adapters.kernels.branch import Unmerged
from autolora.adapters.kernels.experts import Experts
from autolora.adapters.state import ALLOTTED, adapter_state, load_adapter_state
from autolora.adapters.targets import linear_layers
from autolora.api import load_adapter
from autolora.space import Space
from autolora.variants import VariantError, detach, get, names
from tests.support.variant_settings import RANK, make_optimizer


@pytest.mark.parametrize("name", names())
class TestAttach:
    def test_output_at_init_is_the_base_s_or_a_step_away(self, name, attach, build, logits, difference, tokens):
        base = build()
        expected, before = logits(base), base(input_ids=tokens, labels=tokens).loss
        model = attach(name, base)
        if get(name).moves_at_start:
            assert difference(logits(model), expected) > 1e-3
            if get(name).needs_batches:  # a step downhill then, not a random one
                assert model(input_ids=tokens, labels=tokens).loss < before
        else:
            assert difference(logits(model), expected) < 1e-4

    def test_adapts_every_linear_layer_but_the_head(self, name, attach, build):
        base = build()
        expected = [key for key, module in base.named_modules() if isinstance(module, nn.Linear) and key != "lm_head"]
        layers = list(attachment(attach(name, base)).layers)
        if get(name).shares_ranks:  # a layer may go without
            assert layers
            expected = [layer for layer in expected if layer in layers]
        assert layers == expected

    def test_only_the_adapter_is_trainable(self, name, attach, build):
        base = build()
        frozen = {id(parameter) for parameter in base.parameters()}
        trainable = [parameter for parameter in attach(name, base).parameters() if parameter.requires_grad]
        assert trainable
        assert not any(id(parameter) in frozen for parameter in trainable)
        assert not any(parameter.requires_grad for parameter in base.parameters() if id(parameter) in frozen)

    def test_seed_decides_and_global_randomness_is_untouched(self, name, attach, build):
        before = torch.get_rng_state()
        states = []
        for seed, noise in ((3, 0), (3, 1), (4, 0)):
            torch.manual_seed(noise)
            drawn = torch.get_rng_state()
            states.append(adapter_state(attach(name, build(), seed=seed)))
            assert torch.equal(torch.get_rng_state(), drawn)
        torch.set_rng_state(before)
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        if not isinstance(get(name).traits.alpha_law, float):
            assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
    def test_adapter_is_float32_on_a_base_of_16_bits(
        self, name, attach, build, train, logits, difference, fingerprint, dtype
    ):
        base = build().to(dtype)
        before, expected = fingerprint(base), logits(base)
        model = attach(name, base)
        adapters = [p for p in model.parameters() if p.requires_grad]
        assert all(parameter.dtype == torch.float32 for parameter in adapters)
        # The residual of a subtracting variant is rounded to 16 bits, as the base's weights themselves are.
        assert get(name).moves_at_start or difference(logits(model), expected) < 0.05
        train(model, make_optimizer(name, model), 2)
        assert fingerprint(detach(model)) == before

    def test_a_float32_start_is_independent_of_the_base_s_precision(self, name, attach, build):
        if get(name).needs:
            pytest.skip("it starts from what the base computes, in the base's precision")
        full = adapter_state(attach(name, build().to(torch.bfloat16).float()))
        half = adapter_state(attach(name, build().to(torch.bfloat16)))
        assert full.keys() == half.keys()
        assert all(torch.equal(full[key], half[key]) for key in full)

    def test_dropout_is_on_the_adapter_s_input_or_refused(self, name, attach, build):
        base = build()
        try:
            model = attach(name, base, dropout=0.25)
        except VariantError:
            with pytest.raises(VariantError, match="dropout"):
                attach(name, base, dropout=0.25)
            return
        assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} >= {0.25}


@pytest.mark.parametrize("name", names())
def test_an_option_of_zero_trains_unless_it_must_be_above(name, attach, build, train):
    """The space may name 0, and nothing that fails later is started."""
    variant = get(name)
    for option in variant.options:
        if option in variant.above_zero or not variant.kinds(option) & {int, float}:
            continue
        zero = variant.configured(**{option: 0})
        model = attach(zero, build())
        losses = train(model, zero.optimizer(model, 1e-3 * 10**variant.traits.shift), 8)
        assert all(math.isfinite(loss) for loss in losses), option


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in names() for option in get(name).above_zero])
def test_an_option_that_must_be_above_zero_is_refused_at_once(name, option, attach, build):
    """By a search, and by the variant however it was made."""
    with pytest.raises(ValueError, match=rf"space\.options\.{name}\.{option}: \[0\].*must be above 0"):
        autolora.Search([name], space=Space(options={f"{name}.{option}": [0]}))
    with pytest.raises(VariantError, match=rf"{option} = 0: set space\.options\.{name}\.{option} above 0"):
        get(name).configured(**{option: 0})
    with pytest.raises(VariantError, match=rf"{option} = -1: set space\.options\.{name}\.{option} above 0"):
        attach(dataclasses.replace(get(name), **{option: -1}), build())


@pytest.mark.parametrize("name", names())
class TestTraining:
    def test_loss_falls(self, name, attach, build, train):
        model = attach(name, build())
        losses = train(model, make_optimizer(name, model), 12)
        assert losses[-1] < losses[0] - 0.2
        assert all(math.isfinite(loss) for loss in losses)

    def test_gradients_reach_every_parameter_and_move_it(self, name, attach, build, train, tokens):
        model = attach(name, build())
        start = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
        train(model, make_optimizer(name, model), 2)
        model(input_ids=tokens, labels=tokens).loss.backward()
        for key, parameter in model.named_parameters():
            if key in start:
                assert parameter.grad.abs().sum() > 0, key
                assert not torch.equal(parameter, start[key]), key


def resolved(reference):
    """The class that "package.module:Class" names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", names())
class TestFacts:
    """What a variant declares of itself is so."""

    def test_ranks_are_shared_out_where_it_says_so(self, name, attach, build):
        base = build()
        every = linear_layers(base)
        layers = attachment(attach(name, base)).layers
        uniform = layers.keys() == every.keys() and {layer.rank for layer in layers.values()} == {RANK}
        assert uniform != get(name).shares_ranks

    def test_its_forward_pass_is_none_of_peft_s_where_it_says_so(self, name, attach, build):
        branches = [layer.branch for layer in attachment(attach(name, build())).layers.values()]
        unmerged = [isinstance(branch, Unmerged) for branch in branches]
        assert all(unmerged) if get(name).own_forward else not any(unmerged)
        experts = [isinstance(branch, Experts) for branch in branches]
        assert all(experts) if get(name).mixture else not any(experts)

    def test_its_lean_forward_pass_stands_in_for_peft_s(self, name, attach, build):
        layers = attachment(attach(name, build())).layers.values()
        used = {type(part) for layer in layers for part in (layer.module, layer.branch)}
        ours = {kind for kind in used if kind.__module__.startswith("autolora.")}
        if get(name).lean_forward:
            lean = resolved(get(name).lean_forward)
            assert ours == {lean}
            assert "forward" in vars(lean)
            assert lean.__base__.__module__.startswith("peft.")
        else:
            assert get(name).own_forward or not ours

    def test_layers_that_it_refuses_are_those_that_it_says(self, name, attach, build):
        if get(name).linear_only:
            with pytest.raises(VariantError, match=r"Conv1D.*transformer\.h\.0"):
                attach(name, build("gpt2"))
        else:
            assert attachment(attach(name, build("gpt2"))).layers

    def test_its_step_is_plain_lora_s_unless_it_says_otherwise(self, name, attach, build):
        model = attach(name, build())
        layers = attachment(model).layers.values()
        plain = (
            {type(layer.module) for layer in layers} == {LoraLinear}
            and not any(layer.branch for layer in layers)
            and type(make_optimizer(name, model)) is torch.optim.AdamW
            and all(p.requires_grad for layer in layers for p in layer.parameters.values())
        )
        assert plain != get(name).own_step


@pytest.mark.parametrize("name", names())
class TestAdapterName:
    def test_it_attaches_trains_and_leaves_under_any_name(
        self, name, attach, build, train, logits, difference, fingerprint, tmp_path
    ):
        """With the default name's numbers, and its keys but for the name."""
        models, losses = [], []
        for adapter_name in ("default", "tuned-7"):
            model = attach(name, build(), adapter_name=adapter_name)
            assert list(model.peft_config) == [adapter_name]
            losses.append(train(model, make_optimizer(name, model), 8))  # past the first restart and prunings
            models.append(model)
        assert losses[0] == losses[1]
        usual, other = (adapter_state(model) for model in models)
        renamed = {re.sub(r"\.tuned-7\b", ".default", key): tensor for key, tensor in other.items()}
        assert renamed.keys() == usual.keys()
        assert all(torch.equal(renamed[key], usual[key]) for key in usual)
        assert torch.equal(logits(models[0]), logits(models[1]))

        get(name).export(models[1], tmp_path / "adapter")
        base = build()
        before = fingerprint(base)
        loaded = load_adapter(base, tmp_path / "adapter")
        assert difference(logits(loaded), logits(models[1])) < 1e-4
        if get(name).export_form == OWN:
            assert list(loaded.peft_config) == ["tuned-7"]
            assert fingerprint(detach(loaded)) == before
        base = models[1].get_base_model()
        assert detach(models[1]) is base
        assert fingerprint(base) == before

    def test_a_plain_or_native_export_is_the_same_file_under_any_name(self, name, attach, build, tmp_path):
        if get(name).export_form == OWN:
            pytest.skip("its format records the name")
        for adapter_name in ("default", "tuned-7"):
            get(name).export(attach(name, build(), adapter_name=adapter_name), tmp_path / adapter_name)
        for file in (CONFIG, WEIGHTS):
            assert (tmp_path / "default" / file).read_bytes() == (tmp_path / "tuned-7" / file).read_bytes()

    def test_resumed_training_equals_uncut(self, name, attach, build, train):
        model = attach(name, build(), adapter_name="tuned-7")
        optimizer = make_optimizer(name, model)
        train(model, optimizer, 2)
        state, kept = adapter_state(model), copy.deepcopy(optimizer.state_dict())
        uncut = train(model, optimizer, 2)
        again = attach(name, build(), seed=9, adapter_name="tuned-7")
        load_adapter_state(again, state)
        optimizer = make_optimizer(name, again)
        optimizer.load_state_dict(kept)
        assert train(again, optimizer, 2) == uncut


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_an_attached_model_trains_as_the_original_and_alone(
    name, duplicate, attach, build, train, logits, fingerprint
):
    base = build()
    before = fingerprint(base)
    model = attach(name, base)
    train(model, make_optimizer(name, model), 2)
    other = duplicate(model)
    expected = logits(model)
    assert torch.equal(logits(other), expected)
    losses = train(other, make_optimizer(name, other), 8)  # past the first restart and prunings
    assert torch.equal(logits(model), expected)
    assert train(model, make_optimizer(name, model), 8) == losses
    assert fingerprint(detach(other)) == before
    assert fingerprint(detach(model)) == before


@pytest.mark.parametrize("name", names())
class TestMerge:
    def test_merging_gives_the_same_outputs_or_is_refused(self, name, attach, build, train, logits, difference):
        model = attach(name, build())
        train(model, make_optimizer(name, model), 4)
        expected = logits(model)
        if get(name).own_forward:
            with pytest.raises(VariantError, match="export it"):
                model.merge_and_unload()
        else:
            assert difference(logits(model.merge_and_unload()), expected) < 1e-3


@pytest.mark.parametrize("name", names())
class TestDetach:
    def test_base_is_bit_identical_over_cycles_and_nothing_grows(self, name, attach, build, train, fingerprint):
        base = build()
        parameters = {key: id(parameter) for key, parameter in base.named_parameters(remove_duplicate=False)}
        trainable = [key for key, parameter in base.named_parameters() if parameter.requires_grad]
        modules, attributes, before = [id(m) for m in base.modules()], set(vars(base)), fingerprint(base)
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # PEFT's kind: a second adapter, a wrong fan_in_fan_out
                model = attach(name, base)
            train(model, make_optimizer(name, model), 2)
            assert detach(model) is base
            gone = weakref.ref(model)
            del model
            gc.collect()
            assert gone() is None
            assert fingerprint(base) == before
            assert [id(m) for m in base.modules()] == modules
            assert set(vars(base)) == attributes
        assert {key: id(parameter) for key, parameter in base.named_parameters(remove_duplicate=False)} == parameters
        assert [key for key, parameter in base.named_parameters() if parameter.requires_grad] == trainable

    def test_checkpointing_hooks_do_not_pile_up(self, name, attach, build):
        base = build()
        base.gradient_checkpointing_enable()
        embedding = base.get_input_embeddings()
        own = list(embedding._forward_hooks)
        for _ in range(2):
            detach(attach(name, base))
            assert list(embedding._forward_hooks) == own
        base.disable_input_require_grads()
        assert not embedding._forward_hooks

    def test_detaching_twice_is_an_error(self, name, attach, build):
        model = attach(name, build())
        detach(model)
        with pytest.raises(VariantError, match="detached already"):
            detach(model)


@pytest.mark.parametrize("name", names())
class TestState:
    def test_resumed_training_equals_uncut_bit_for_bit(self, name, attach, build, train, tmp_path):
        model = attach(name, build())
        optimizer = make_optimizer(name, model)
        train(model, optimizer, 3)
        torch.save({"adapter": adapter_state(model), "optimizer": optimizer.state_dict()}, tmp_path / "cut.pt")
        uncut = train(model, optimizer, 3)

        stored = torch.load(tmp_path / "cut.pt", weights_only=True)
        again = attach(name, build(), seed=9)
        load_adapter_state(again, stored["adapter"])
        optimizer = make_optimizer(name, again)
        optimizer.load_state_dict(stored["optimizer"])
        assert train(again, optimizer, 3) == uncut
        expected = adapter_state(model)
        assert all(torch.equal(tensor, expected[key]) for key, tensor in adapter_state(again).items())

    def test_state_is_a_copy(self, name, attach, build, train):
        model = attach(name, build())
        state = adapter_state(model)
        kept = {key: tensor.clone() for key, tensor in state.items()}
        train(model, make_optimizer(name, model), 2)
        assert all(torch.equal(state[key], kept[key]) for key in state)

    def test_state_of_another_rank_or_variant_is_refused(self, name, attach, build):
        model = attach(name, build())
        state = adapter_state(model)
        with pytest.raises(VariantError, match="another rank"):
            load_adapter_state(attach(name, build(), rank=2), state)
        lacking = dict(state)
        lacking.pop(min(key for key in lacking if not key.endswith(ALLOTTED)))
        with pytest.raises(VariantError, match="misses"):
            load_adapter_state(model, lacking)


@pytest.mark.parametrize("name", names())
def test_registered_facts_are_stated(name):
    variant = get(name)
    assert variant.name == name
    assert variant.title
    assert variant.paper.startswith(("arXiv ", "OpenReview "))
    assert variant.kind in ("reference", "scaling", "start", "architecture", "optimizer")
    assert variant.export_form in ("rank r", "rank 2r", "rank kr", "rank r+", NATIVE, OWN)
    assert set(variant.needs) <= {"gradients", "activations", "horizon"}
    assert variant.constraints
    assert variant.optimizer_name
    assert variant.cost, "studies/variants/cost.py measures it"
    assert 0 < variant.traits.shift_sd < 1


def test_plain_lora_is_listed_first():
    assert autolora.variants.names()[0] == "lora"


def near_root(size):
    """The divisor next below the square root."""
    return max(divisor for divisor in range(1, math.isqrt(size) + 1) if size % divisor == 0)


def expected_parameters(name, layer):
    """What the paper trains in a layer of m x n at the rank it got."""
    m, n = layer.out_features, layer.in_features
    rank = layer.rank
    bases = -(-min(m, n) // rank)
    return {
        "adalora": rank * (m + n + 1),
        "delora": rank * (m + n) + 1,
        "denselora": rank * (m + n) + rank**2,
        "dora": rank * (m + n) + m,
        "loha": 2 * rank * (m + n),
        "lokr": near_root(m) * near_root(n) + (m // near_root(m)) * (n // near_root(n)),  # W2 whole at RANK
        "goat": rank * (m + n) + rank * n,  # as many experts as ranks
        "hydralora": rank * n + 3 * (rank * m + n),
        "lora_fa": rank * m,
        "loramoe": rank * (m + n) + rank * n,
        "moslora": rank * (m + n) + rank**2,
        "randlora": bases * (rank + min(m, n)),
        # One rank of each of the two layers of a type is in the pool, which both hold.
        "rasa": (rank + 1) * (m + n) + rank + 1,
        "vera": m + rank,
    }.get(name, rank * (m + n))


@pytest.mark.parametrize("name", names())
def test_as_many_parameters_train_as_the_paper_states(name, attach, build):
    for layer in attachment(attach(name, build())).layers.values():
        trained = sum(p.numel() for p in layer.parameters.values() if p.requires_grad)
        assert trained == expected_parameters(name, layer)


@pytest.mark.parametrize("name", [name for name in names() if get(name).moves_at_start])
def test_what_moves_at_its_start_leaves_a_trained_model_most_of_what_it_learned(name, attach, build, train, tokens):
    """At the alpha that a search takes by default."""
    base = build()
    learned = train(base, torch.optim.AdamW(base.parameters(), lr=3e-3), 30)
    base.eval().requires_grad_(False)
    model = attach(name, base, alpha=get(name).traits.law_alpha(RANK, base.config.hidden_size))
    moved = model(input_ids=tokens, labels=tokens).loss.item()
    assert moved - learned[-1] < 0.5 * (learned[0] - learned[-1])
