"""Variants that put another function in place of B A x: MoSLoRA, MELoRA, DeLoRA, RaSA, DenseLoRA."""

from __future__ import annotations

import math

import pytest
import torch
from peft.tuners.delora.layer import DeloraLayer
from torch import nn
from torch.nn.functional import gelu

from autolora.adapters.attachment import attachment
from autolora.adapters.start import DEFAULT_NAME
from autolora.adapters.state import adapter_state
from autolora.adapters.subtraction import weight_matrix
from autolora.api import load_adapter
from autolora.variants import VariantError, detach, get

RANK = 4
SHARED = {"rasa": ("pool_A", "pool_B"), "denselora": (f"lora_A.{DEFAULT_NAME}.weight", f"lora_B.{DEFAULT_NAME}.weight")}


def trained(variant, base, train, rank=RANK, alpha=2 * RANK, rate=1e-2, steps=4, **settings):
    model = variant.attach(base, rank=rank, alpha=alpha, **settings)
    train(model, variant.optimizer(model, rate), steps)
    return model.eval()


def losses(variant, build, train, steps=8):
    model = variant.attach(build(), rank=RANK, alpha=2 * RANK, seed=3)
    return train(model, variant.optimizer(model, 5e-3), steps)


def factors(layer):
    return layer.a, layer.b


@torch.no_grad()
def change(layer):
    """W' - W, (m, n): what the adapter adds to the outputs of the unit vectors."""
    unit = torch.eye(layer.in_features)
    return (layer.module(unit) - layer.base_layer(unit)).T


@pytest.mark.parametrize("name", ["moslora", "melora", "delora", "rasa"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_plain_factors_are_the_change_of_w(name, family, build, train, difference):
    variant = get(name)
    alpha = RANK if variant.traits.unit_scale else 2 * RANK
    model = trained(variant, build(family), train, alpha=alpha)
    for layer in attachment(model).layers.values():
        a, b = variant.plain_factors(layer)
        assert not a.requires_grad
        assert not b.requires_grad
        assert difference(layer.scaling * b @ a, change(layer)) < 1e-4


@pytest.mark.parametrize("name", ["moslora", "melora", "delora", "rasa", "denselora"])
def test_inputs_may_have_any_batch_shape(name, build, train):
    variant = get(name)
    model = trained(variant, build(), train, alpha=RANK)
    layer = attachment(model).layers["model.layers.1.mlp.down_proj"]
    x = torch.randn(2, 3, 5, layer.in_features)
    with torch.no_grad():
        expected = torch.stack([layer.module(row) for row in x.flatten(0, 2)])
        assert torch.allclose(layer.module(x), expected.view(2, 3, 5, -1), atol=1e-5)


class TestMoslora:
    def test_with_the_identity_between_it_is_lora(self, build, train):
        """As long as M stays there: it trains in neither run."""

        def run(variant):
            model = variant.attach(build(), rank=RANK, alpha=2 * RANK, seed=3)
            for layer in attachment(model).layers.values():
                if hasattr(layer.module, "mixer"):
                    layer.given("mixer").requires_grad_(False).copy_(torch.eye(RANK))
            return train(model, variant.optimizer(model, 5e-3), 8)

        plain = run(get("lora"))
        assert plain[0] - plain[-1] > 0.2
        assert run(get("moslora")) == pytest.approx(plain, rel=1e-5)
        assert losses(get("moslora"), build, train) != pytest.approx(plain, rel=1e-3)

    def test_it_is_b_m_a(self, build, train, difference):
        model = trained(get("moslora"), build(), train)
        for layer in attachment(model).layers.values():
            a, b = factors(layer)
            assert difference(2 * b @ layer.given("mixer") @ a, change(layer)) < 1e-4

    def test_the_mixer_is_kaiming_uniform_of_the_seed(self, build):
        def mixers(seed):
            model = get("moslora").attach(build(), rank=16, alpha=16, seed=seed)
            return torch.stack([layer.given("mixer").detach() for layer in attachment(model).layers.values()])

        drawn = mixers(0)
        assert drawn.abs().max() <= 0.25
        assert drawn.std().item() == pytest.approx(0.25 / math.sqrt(3), rel=0.05)
        assert torch.equal(mixers(0), drawn)
        assert not torch.equal(mixers(1), drawn)
        assert not torch.equal(drawn[0], drawn[1])


class TestMelora:
    def test_with_one_block_it_is_lora(self, build, train):
        plain = losses(get("lora"), build, train)
        assert plain[0] - plain[-1] > 0.2
        assert losses(get("melora").configured(k=1), build, train) == pytest.approx(plain, rel=1e-5)
        assert losses(get("melora"), build, train) != pytest.approx(plain, rel=1e-3)

    @pytest.mark.parametrize("k", [2, 4])
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_the_update_is_block_diagonal_of_rank_k_r(self, k, family, build, train, difference):
        model = trained(get("melora").configured(k=k), build(family), train)
        for layer in attachment(model).layers.values():
            delta, (a, b) = change(layer), factors(layer)
            rows, columns = layer.out_features // k, layer.in_features // k
            blocks = delta.view(k, rows, k, columns).transpose(1, 2)
            for i in range(k):
                own = b[i * rows : (i + 1) * rows] @ a[:, i * columns : (i + 1) * columns]
                assert difference(blocks[i, i], 2 * own) < 1e-4
            assert not blocks[~torch.eye(k, dtype=torch.bool)].abs().gt(1e-6).any()
            assert torch.linalg.matrix_rank(delta, rtol=1e-4) == min(k * RANK, *delta.shape)

    def test_each_block_is_kaiming_uniform_in_its_own_inputs(self, build):
        variant = get("melora").configured(k=4)
        plain = attachment(get("lora").attach(build(), rank=RANK, alpha=RANK, seed=5)).layers
        for name, layer in attachment(variant.attach(build(), rank=RANK, alpha=RANK, seed=5)).layers.items():
            a, b = factors(layer)
            bound = math.sqrt(4 / layer.in_features)
            assert 0.9 * bound < a.abs().max() <= bound
            assert torch.equal(a, 2 * factors(plain[name])[0])
            assert not b.any()

    @pytest.mark.parametrize(
        ("k", "rank", "message"),
        [
            (3, 4, r"k = 3 blocks, and 'model.*' is 32 x 32: set space.options.melora.k to a divisor"),
            (4, 5, r"k = 4 blocks rank 5, .* 'model.*k_proj' \(16 x 32\): use rank 1 to 4, or a smaller"),
        ],
    )
    def test_what_does_not_divide_or_fit_is_said(self, build, k, rank, message):
        with pytest.raises(VariantError, match=message):
            get("melora").configured(k=k).attach(build(), rank=rank, alpha=8)


class TestDelora:
    def test_it_moves_with_its_layer(self, build, logits, difference):
        model = get("delora").attach(build(), rank=4, alpha=4)
        expected = logits(model)
        assert difference(logits(model.bfloat16()), expected) < 0.1

    @pytest.mark.parametrize("steps", [0, 4])
    def test_outputs_and_gradients_are_peft_s_less_those_of_the_start(self, build, tokens, train, difference, steps):
        """PEFT's formula for the change of W, of A and B and of what they started as."""
        ours = get("delora").attach(build(), rank=RANK, alpha=RANK)
        layers = attachment(ours).layers
        starts = {name: [factor.detach().clone() for factor in factors(layer)] for name, layer in layers.items()}
        train(ours, get("delora").optimizer(ours, 1e-2), steps)
        trained_parameters = [p for p in ours.parameters() if p.requires_grad]

        base, weights = build(), {}
        for name, layer in layers.items():
            weight = base.get_submodule(name).weight
            rest = layer.given("bound").view(1), RANK, weight.norm(dim=0)
            moved, start = (DeloraLayer._compute_delta(*pair, *rest) for pair in (factors(layer), starts[name]))
            weights[f"{name}.weight"] = weight + moved - start
        inputs = {"input_ids": tokens, "labels": tokens}
        results = [ours.eval()(**inputs), torch.func.functional_call(base, weights, kwargs=inputs)]
        assert difference(results[0].logits, results[1].logits) < 1e-4
        own, reference = (torch.autograd.grad(result.loss, trained_parameters) for result in results)
        for found, expected in zip(own, reference, strict=True):
            assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * max(1e-3, expected.abs().max().item()))

    def test_it_starts_where_the_authors_does(self, build):
        """A and B Kaiming-uniform, bounds 1/sqrt(n) and 1/sqrt(r), and the change of W 0."""
        model = get("delora").attach(build(), rank=RANK, alpha=RANK)
        for layer in attachment(model).layers.values():
            for factor, fan_in in zip(factors(layer), (layer.in_features, RANK), strict=True):
                assert 0.8 * fan_in**-0.5 < factor.abs().max() <= fan_in**-0.5
            assert change(layer).abs().max() < 1e-5

    @pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-3])
    def test_a_first_step_is_as_small_as_its_rate(self, build, train, rate):
        """From B = 0 it would take W the whole bound away at any rate."""
        model = trained(get("delora"), build(), train, alpha=RANK, rate=rate, steps=1)
        for layer in attachment(model).layers.values():
            whole = layer.given("bound").item() * weight_matrix(layer.base_layer).norm(dim=0).mean().item()
            assert 0 < change(layer).norm().item() < 30 * rate * whole

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_no_learning_rate_takes_w_further_than_twice_the_bound(self, family, build, train):
        """|sum_i lambda/r b_i/|b_i| (a_i o w)/|a_i|| is at most the mean over i of lambda |a_i o w|/|a_i|."""
        for rate in (1e-3, 10.0):
            model = trained(get("delora"), build(family), train, alpha=RANK, rate=rate, steps=6)
            for layer in attachment(model).layers.values():
                widest = weight_matrix(layer.base_layer).norm(dim=0)
                limit = layer.given("bound").abs().item() * widest.max().item()
                assert 0 < change(layer).norm().item() <= 2 * limit * (1 + 1e-5)

    def test_a_step_sets_the_direction_and_lambda_the_length(self, build, train):
        """The length of b_i is nothing to the update, once it is above the clamp."""
        model = trained(get("delora"), build(), train, alpha=RANK)
        layer = attachment(model).layers["model.layers.0.mlp.up_proj"]
        before = change(layer)
        layer.b.data.mul_(7)
        assert torch.allclose(change(layer), before, atol=1e-5)
        layer.given("bound").data.mul_(2)
        assert torch.allclose(change(layer), 2 * before, atol=1e-4)

    def test_lambda_starts_at_the_option(self, build):
        model = get("delora").configured(bound=4.0).attach(build(), rank=RANK, alpha=RANK)
        assert all(layer.given("bound").item() == 4 for layer in attachment(model).layers.values())

    def test_the_norms_of_the_base_are_not_in_the_state(self, build):
        model = get("delora").attach(build(), rank=RANK, alpha=RANK)
        kinds = {key.rpartition("_proj.")[2] for key in adapter_state(model)}
        factors = {f"lora_A.{DEFAULT_NAME}.weight", f"lora_B.{DEFAULT_NAME}.weight"}
        assert kinds == {*factors, "bound", "start_A", "start_B"}

    def test_another_scale_is_refused_and_leaves_no_trace(self, build, fingerprint):
        base = build()
        before = fingerprint(base)
        with pytest.raises(VariantError, match="alpha 8 at rank 4: it is defined at s = 1"):
            get("delora").attach(base, rank=4, alpha=8)
        assert fingerprint(base) == before


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
class TestSharing:
    def test_layers_of_a_type_hold_one_parameter(self, name, family, build):
        model = get(name).attach(build(family), rank=RANK, alpha=RANK)
        layers = attachment(model).layers
        distinct = set()
        for first, layer in layers.items():
            other = layers[first.replace(".0.", ".1.")]
            for key in SHARED[name]:
                assert layer.parameters[key] is other.parameters[key]
                distinct.add(id(layer.parameters[key]))
        assert len(distinct) == len(layers)  # two of each type, of which there are half as many as layers

    def test_the_state_has_it_once(self, name, family, build):
        model = get(name).attach(build(family), rank=RANK, alpha=RANK)
        state, layers = adapter_state(model), attachment(model).layers
        assert sum(key.endswith(SHARED[name]) for key in state) == len(layers)
        trained = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
        assert sum(tensor.numel() for tensor in state.values()) == sum(trained.values())

    def test_its_gradient_is_the_sum_over_the_layers(self, name, family, build, train, tokens, difference):
        """Against the same model whose layers hold copies."""
        model = trained(get(name), build(family), train)
        layers = list(attachment(model).layers.values())
        model.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        whole = {id(p): p.grad for layer in layers for p in layer.parameters.values()}
        originals = {}
        for layer in layers:
            for key in SHARED[name]:
                path, _, last = key.rpartition(".")
                owner = layer.module.get_submodule(path)
                originals[layer, key] = getattr(owner, last)
                setattr(owner, last, nn.Parameter(originals[layer, key].detach().clone()))
        model.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        sums = {}
        for (layer, key), original in originals.items():
            gradient = layer.parameters[key].grad
            sums[id(original)] = sums.get(id(original), 0) + gradient
            assert difference(gradient, whole[id(original)]) > 0.01
        for original, gradient in sums.items():
            assert difference(whole[original], gradient) < 1e-4


class TestRasa:
    def test_it_is_the_private_and_the_pooled_ranks_weighed(self, build, train, difference):
        model = trained(get("rasa").configured(shared=2), build(), train, rank=6, alpha=18)
        for layer in attachment(model).layers.values():
            (a, b), d = factors(layer), layer.given("diagonal")
            assert a.shape == (4, layer.in_features)
            assert layer.given("pool_A").shape == (4, layer.in_features)  # two ranks of either layer
            assert d.shape == (8,)
            expected = 3 * (b @ d[:4].diag() @ a + layer.given("pool_B") @ d[4:].diag() @ layer.given("pool_A"))
            assert difference(expected, change(layer)) < 1e-4
            assert torch.linalg.matrix_rank(change(layer), rtol=1e-5) == 8

    def test_the_pool_is_made_of_the_ranks_that_the_layers_give(self, build):
        """LoRA's very numbers, so its parameters are LoRA's but for the diagonals."""
        plain = attachment(get("lora").attach(build(), rank=RANK, alpha=RANK, seed=2)).layers
        model = get("rasa").attach(build(), rank=RANK, alpha=RANK, seed=2)
        layers = attachment(model).layers
        for name, layer in layers.items():
            assert torch.equal(factors(layer)[0], factors(plain[name])[0][:-1])
            given = [factors(plain[key])[0][-1] for key in plain if key.split(".")[3:] == name.split(".")[3:]]
            assert torch.equal(layer.given("pool_A"), torch.stack(given))
            assert not factors(layer)[1].any()
            assert not layer.given("pool_B").any()
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        lora = sum(RANK * (layer.in_features + layer.out_features) for layer in layers.values())
        assert count == lora + 5 * len(layers)

    def test_private_and_pooled_parts_start_at_half_of_lora_s_weight(self, build):
        for layer in attachment(get("rasa").attach(build(), rank=RANK, alpha=RANK)).layers.values():
            assert layer.given("diagonal").sum().item() == pytest.approx(RANK)
            assert layer.given("diagonal")[:3].tolist() == pytest.approx([4 / 6] * 3)
            assert layer.given("diagonal")[3:].tolist() == pytest.approx([4 / 4] * 2)

    def test_an_eighth_of_the_rank_is_shared(self, build):
        assert [get("rasa").default("shared", rank) for rank in (2, 8, 16, 32)] == [1, 1, 2, 4]
        model = get("rasa").attach(build(), rank=16, alpha=16)
        assert all(len(layer.given("diagonal")) == 14 + 2 * 2 for layer in attachment(model).layers.values())

    @pytest.mark.parametrize(("shared", "rank"), [(None, 1), (4, 4)])
    def test_a_rank_with_nothing_private_is_refused(self, build, shared, rank):
        with pytest.raises(VariantError, match=rf"of rank {rank}: .* change space.rank, or space.options.rasa.shared"):
            get("rasa").configured(shared=shared).attach(build(), rank=rank, alpha=rank)

    def test_types_with_unlike_pools_leave_together(self, build, train, logits, difference, tmp_path):
        """As in a model of which one layer lacks a projection, or has it in another shape."""

        def uneven():
            base = build()
            base.model.layers[1].mlp.up_proj = nn.Linear(32, 40, bias=False)
            base.model.layers[1].mlp.gate_proj = nn.Linear(32, 40, bias=False)
            base.model.layers[1].mlp.down_proj = nn.Linear(40, 32, bias=False)
            generator = torch.Generator().manual_seed(4)
            for parameter in base.model.layers[1].mlp.parameters():
                parameter.data.normal_(0, 0.2, generator=generator)
            return base

        model = trained(get("rasa"), uneven(), train)
        ranks = {len(layer.given("diagonal")) for layer in attachment(model).layers.values()}
        assert ranks == {3 + 2, 3 + 1}
        get("rasa").export(model, tmp_path / "rasa")
        assert difference(logits(load_adapter(uneven(), tmp_path / "rasa")), logits(model)) < 1e-4


class TestDenselora:
    def test_branch_and_gradients_are_the_formula_s(self, build, train):
        model = trained(get("denselora"), build(), train)
        layer = attachment(model).layers["model.layers.1.mlp.gate_proj"]
        x = torch.randn(3, 5, layer.in_features)
        (a, b), upstream = factors(layer), torch.randn(3, 5, layer.out_features)
        own = [a, layer.given("mixer"), b]
        copies = [p.detach().clone().requires_grad_() for p in own]
        expected = 2 * gelu(gelu(x @ copies[0].T) @ copies[1].T @ copies[2].T)
        found = layer.module(x) - layer.base_layer(x)
        assert torch.allclose(found, expected, atol=1e-5)
        theirs = torch.autograd.grad((expected * upstream).sum(), copies)
        for gradient, reference in zip(torch.autograd.grad((found * upstream).sum(), own), theirs, strict=True):
            assert reference.abs().max() > 0
            assert torch.allclose(gradient, reference, rtol=1e-4, atol=1e-5)

    def test_it_is_not_linear(self, build, train):
        model = trained(get("denselora"), build(), train)
        layer = attachment(model).layers["model.layers.1.mlp.gate_proj"]
        x = torch.randn(5, layer.in_features)
        with torch.no_grad():
            one, two = (layer.module(scale * x) - layer.base_layer(scale * x) for scale in (1, 2))
        assert not torch.allclose(two, 2 * one, rtol=0.1)

    def test_shared_a_is_lora_s_and_m_is_each_layer_s_own(self, build):
        plain = attachment(get("lora").attach(build(), rank=RANK, alpha=RANK, seed=2)).layers
        layers = attachment(get("denselora").attach(build(), rank=RANK, alpha=RANK, seed=2)).layers
        for name, layer in layers.items():
            assert torch.equal(factors(layer)[0], factors(plain[name.replace(".1.", ".0.")])[0])
            assert not factors(layer)[1].any()
        mixers = torch.stack([layer.given("mixer").detach() for layer in layers.values()])
        assert 0.4 < mixers.abs().max() <= 0.5
        assert len({tuple(mixer.flatten().tolist()) for mixer in mixers}) == len(layers)

    def test_layers_of_a_type_train_one_pair_and_a_small_matrix_each(self, build):
        model = get("denselora").attach(build(), rank=RANK, alpha=RANK)
        layers = attachment(model).layers
        pairs = sum(RANK * (layer.in_features + layer.out_features) for layer in layers.values()) // 2
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert count == pairs + RANK**2 * len(layers)

    def test_it_comes_back_exactly_on_a_fresh_base(self, build, train, logits, tmp_path, fingerprint):
        model = trained(get("denselora"), build(), train, seed=5)
        get("denselora").export(model, tmp_path / "dense")
        base = build()
        before = fingerprint(base)
        again = load_adapter(base, tmp_path / "dense")
        assert torch.equal(logits(again), logits(model))
        layers = attachment(again).layers
        for name, layer in layers.items():
            assert factors(layer)[0] is factors(layers[name.replace(".1.", ".0.")])[0]
        assert fingerprint(detach(again)) == before
