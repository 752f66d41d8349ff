"""Mixtures of LoRA experts: LoRAMoE, GOAT, HydraLoRA."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch

from autolora.adapters.attachment import attachment
from autolora.adapters.factors import weight_factors
from autolora.adapters.kernels.experts import Experts
from autolora.adapters.state import adapter_state
from autolora.adapters.subtraction import weight_matrix
from autolora.adapters.svd import leading_svd
from autolora.api import load_adapter
from autolora.variants import VariantError, detach, get, names
from autolora.variants.goat import SegmentedSvd
from tests.support.variant_readings import factors, original_weights

MIXTURES = [name for name in names() if get(name).mixture]
RANK = 8
LAYER = "model.layers.0.mlp.down_proj"


def trained(name, model, train, steps=6, rank=RANK, **options):
    variant = get(name).configured(**options)
    adapted = variant.attach(model, rank=rank, alpha=2 * rank, seed=3)
    train(adapted, variant.optimizer(adapted, 5e-3), steps)
    return variant, adapted


def branch_of(layer):
    return layer.branch


def written_out(layer, x, experts, top_k, shared_a):
    """s sum_e g_e B_e A_e x in float64, token by token and expert by expert."""
    a, b = (factor.weight.detach().double() for factor in (layer.entry("lora_A"), layer.entry("lora_B")))
    width = b.shape[1] // experts
    rows = []
    for token in x.double().flatten(0, -2):
        logits = layer.given("router").detach().double() @ token
        chosen = sorted(range(experts), key=lambda e: -logits[e])[:top_k]
        total = sum(torch.exp(logits[e]) for e in chosen)
        y = torch.zeros(len(b), dtype=torch.float64)
        for e in chosen:
            own = slice(e * width, (e + 1) * width)
            y += torch.exp(logits[e]) / total * (b[:, own] @ ((a if shared_a else a[own]) @ token))
        rows.append(layer.scaling * y)
    return torch.stack(rows).unflatten(0, x.shape[:-1])


@pytest.mark.parametrize(
    ("name", "options", "experts", "top_k"),
    [
        ("loramoe", {}, 8, 2),
        ("loramoe", {"experts": 4, "top_k": 3}, 4, 3),
        ("loramoe", {"experts": 2, "top_k": 5}, 2, 2),
        ("goat", {"experts": 4}, 4, 2),
        ("hydralora", {}, 3, 3),
        ("hydralora", {"heads": 5}, 5, 5),
    ],
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_branch_is_the_formula(build, train, difference, name, options, experts, top_k, family):
    _, model = trained(name, build(family), train, **options)
    model.eval()
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(4))
    for layer in attachment(model).layers.values():
        if layer.in_features != 32:
            continue
        gates = branch_of(layer).gates(layer.module, x)
        assert ((gates > 0).sum(-1) == top_k).all()
        assert (gates.sum(-1) - 1).abs().max() < 1e-6
        with torch.no_grad():
            branch = layer.module(x) - layer.base_layer(x)
        assert difference(branch.double(), written_out(layer, x, experts, top_k, name == "hydralora")) < 1e-5


@pytest.mark.parametrize(("name", "option"), [("loramoe", "experts"), ("hydralora", "heads")])
def test_one_expert_is_lora(build, train, name, option):
    def run(name, **options):
        variant = get(name).configured(**options)
        model = variant.attach(build(), rank=4, alpha=8, seed=3)
        losses = train(model, variant.optimizer(model, 5e-3), 8)
        assert variant.penalty(model) is None
        return losses, adapter_state(model)

    losses, state = run("lora")
    own_losses, own_state = run(name, **{option: 1})
    assert own_losses == losses
    assert own_state.keys() == state.keys()
    assert all(torch.equal(own_state[key], state[key]) for key in state)


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_and_router_learn_and_come_apart(build, train, tokens, name):
    """Heads that share A and start at 0 differ by their gates alone."""
    start = get(name).attach(build(), rank=RANK, alpha=16, seed=3)
    _, model = trained(name, build(), train, steps=20)
    model(input_ids=tokens, labels=tokens).loss.backward()
    apart = []
    for key, layer in attachment(model).layers.items():
        assert layer.given("router").grad.abs().max() > 0
        assert (layer.given("router") - attachment(start).layers[key].given("router")).abs().max() > 1e-3
        b = layer.b.detach().unflatten(1, (branch_of(layer).experts, -1))
        apart.append(((b - b.mean(1, keepdim=True)).norm() / b.norm()).item())
    assert min(apart) > 0.3


@pytest.mark.parametrize("name", MIXTURES)
def test_gates_stay_float32_under_autocast(build, train, difference, name):
    _, model = trained(name, build(), train)
    layer = attachment(model).layers[LAYER]
    x = torch.randn(2, 7, 48, generator=torch.Generator().manual_seed(4))
    exact = branch_of(layer).gates(layer.module, x)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        gates, y = branch_of(layer).gates(layer.module, x), layer.module(x)
    assert gates.dtype == torch.float32
    assert torch.equal(gates, exact)
    assert y.dtype == torch.bfloat16
    with torch.no_grad():
        assert difference(y.float(), layer.module(x)) < 0.03


@pytest.mark.parametrize("name", MIXTURES)
def test_dropout_is_the_experts_alone(build, name):
    model = get(name).attach(build(), rank=RANK, alpha=16, dropout=0.5)
    layer = attachment(model).layers[LAYER]
    layer.module.train()
    layer.b.data.normal_(generator=torch.Generator().manual_seed(5))
    seen = []
    layer.entry("lora_A").register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x = torch.ones(2, 7, 48)
    gates = branch_of(layer).gates(layer.module, x)
    assert not torch.equal(layer.module(x), layer.module(x))
    assert torch.equal(branch_of(layer).gates(layer.module, x), gates)
    assert {value.item() for value in seen[0].unique()} == {0.0, 2.0}


def test_of_equal_logits_the_first_are_chosen(build):
    model = get("loramoe").attach(build(), rank=RANK, alpha=16)
    layer = attachment(model).layers[LAYER]
    layer.given("router").data.copy_(torch.ones(8, 48))
    layer.given("router").data[0] = -1
    gates = branch_of(layer).gates(layer.module, torch.ones(2, 3, 48))
    assert torch.equal(gates, torch.tensor([0, 0.5, 0.5, 0, 0, 0, 0, 0]).expand(2, 3, 8))


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_is_no_matrix_to_merge(build, fingerprint, name):
    base = build()
    before = fingerprint(base)
    model = get(name).attach(base, rank=RANK, alpha=16)
    for safe in (False, True):
        with pytest.raises(VariantError, match="cannot be merged"):
            attachment(model).layers[LAYER].module.merge(safe_merge=safe)
    assert fingerprint(detach(model)) == before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("loramoe", {"experts": 2, "top_k": 5, "balance": 0.0}),
        ("goat", {"experts": 4, "rho": 3.0}),
        ("hydralora", {"heads": 4}),
    ],
)
def test_an_exported_adapter_knows_its_options(build, train, logits, tmp_path, name, options):
    variant, model = trained(name, build(), train, **options)
    expected = logits(model)
    variant.export(model, tmp_path / "adapter")
    assert torch.equal(logits(load_adapter(build(), tmp_path / "adapter")), expected)


class TestBalance:
    @pytest.mark.parametrize(("name", "weight"), [("loramoe", 0.01), ("goat", 0.1)])
    def test_penalty_is_the_switch_transformer_s(self, build, tokens, name, weight):
        model = get(name).attach(build(), rank=RANK, alpha=16, seed=3).train()
        inputs = {}
        for key, layer in attachment(model).layers.items():
            layer.module.register_forward_hook(
                lambda module, args, output, key=key: inputs.update({key: args[0].detach()})
            )
        model(input_ids=tokens)
        penalty = get(name).penalty(model)
        terms = []
        for key, layer in attachment(model).layers.items():
            probabilities = (inputs[key].double() @ layer.given("router").detach().double().T).softmax(-1).flatten(0, 1)
            shares = torch.zeros(8, dtype=torch.float64)
            for token in probabilities:
                shares[token.topk(2).indices] += 1 / len(probabilities)
            terms.append(8 * sum(shares[e] * probabilities[:, e].mean() for e in range(8)))
        assert penalty.item() == pytest.approx(weight * (sum(terms) / len(terms)).item(), rel=1e-5)
        penalty.backward()
        for layer in attachment(model).layers.values():
            reached = {key for key, p in layer.parameters.items() if p.grad is not None and p.grad.any()}
            assert "router" in reached

    def test_it_makes_an_unbalanced_router_balanced(self, build):
        """From 2 experts for all tokens, where the term is E, to the even load's top_k."""
        model = get("loramoe").attach(build(), rank=RANK, alpha=16).train()
        layer = attachment(model).layers[LAYER]
        x = torch.randn(4, 64, 48, generator=torch.Generator().manual_seed(6)) + 0.5
        layer.given("router").data[2:4] += 0.5
        terms = []
        for _ in range(250):
            layer.module(x)
            term = branch_of(layer).take_balance()
            terms.append(term.item())
            (gradient,) = torch.autograd.grad(term, layer.given("router"))
            layer.given("router").data -= 0.3 * gradient
        assert terms[0] > 7.9
        assert terms[-1] == pytest.approx(2, abs=0.02)
        shares = (branch_of(layer).gates(layer.module, x) > 0).float().mean((0, 1))
        assert shares.max() < 0.4
        assert shares.min() > 0.15

    def test_it_is_taken_once_and_only_in_training(self, build, tokens):
        variant = get("loramoe")
        model = variant.attach(build(), rank=RANK, alpha=16).train()
        branches = [branch_of(layer) for layer in attachment(model).layers.values()]
        model(input_ids=tokens)
        assert variant.penalty(model).requires_grad
        assert variant.penalty(model) is None
        model(input_ids=tokens)
        graph = weakref.ref(branches[0]._balance)
        model.eval()
        with torch.no_grad():
            model(input_ids=tokens)
        gc.collect()
        assert graph() is None
        assert variant.penalty(model) is None
        copy.deepcopy(model)  # which tensors with a graph refuse

    @pytest.mark.parametrize("options", [{"balance": 0.0}, {"experts": 2}])
    def test_without_weight_or_choice_there_is_none(self, build, tokens, options):
        variant = get("loramoe").configured(**options)
        model = variant.attach(build(), rank=RANK, alpha=16).train()
        model(input_ids=tokens)
        assert variant.penalty(model) is None

    def test_it_reaches_routers_under_checkpointing(self, build, tokens):
        def gradients(checkpointing):
            base = build()
            if checkpointing:
                base.gradient_checkpointing_enable({"use_reentrant": False})
            model = get("loramoe").attach(base, rank=RANK, alpha=16).train()
            loss = model(input_ids=tokens, labels=tokens).loss
            (loss + get("loramoe").penalty(model)).backward()
            return [layer.given("router").grad for layer in attachment(model).layers.values()]

        assert all(torch.equal(own, plain) for own, plain in zip(gradients(True), gradients(False), strict=True))


class TestGoat:
    SCALE = 2.0

    def attach(self, base, rank=RANK, **options):
        return get("goat").configured(**options).attach(base, rank=rank, alpha=self.SCALE * rank, seed=3)

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    @pytest.mark.parametrize("experts", [2, 4, 8])
    def test_experts_start_from_disjoint_segments(self, build, difference, family, experts):
        model = self.attach(build(family), experts=experts)
        share = RANK // experts
        for key, weight in original_weights(model).items():
            a, b = (factor.detach().double() for factor in factors(model, key))
            weight = weight.detach().double()
            weight = weight.T if family == "gpt2" else weight
            u, values, vh = torch.linalg.svd(weight, full_matrices=False)
            indices = [e * (len(values) // experts) + i for e in range(experts) for i in range(share)]
            gram = a @ a.T
            assert difference(gram.diagonal(), values[indices] / (self.SCALE * 10)) < 1e-5
            assert (gram - gram.diagonal().diag()).abs().max() < 1e-5 * gram.max()
            for row, index in enumerate(indices):
                expected = values[index] * torch.outer(u[:, index], vh[index]) / (self.SCALE * 10)
                assert difference(torch.outer(b[:, row], a[row]), expected) < 1e-4

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_the_mean_over_even_gates_is_the_base(self, build, difference, family):
        model = self.attach(build(family))
        for key, layer in attachment(model).layers.items():
            a, b = (factor.detach() for factor in factors(model, key))
            original = original_weights(model)[key].detach()
            original = original.T if family == "gpt2" else original
            residual = weight_matrix(layer.base_layer)
            assert difference(residual + self.SCALE / 8 * b @ a, original) < 1e-6
            assert difference(residual, original) > 1e-3

    def test_even_gates_give_the_base_s_outputs(self, build, logits, difference):
        """Routers at 0 choose all alike."""
        expected = logits(build())
        model = self.attach(build(), experts=4, top_k=4)
        assert difference(logits(model), expected) > 1e-3
        for layer in attachment(model).layers.values():
            layer.given("router").data.zero_()
        assert difference(logits(model), expected) < 1e-5

    def test_the_start_moves_as_far_whatever_alpha_is_and_less_with_rho(self, build, logits, difference):
        expected = logits(build())

        def moved(alpha, **options):
            model = get("goat").configured(**options).attach(build(), rank=RANK, alpha=alpha, seed=3)
            return difference(logits(model), expected)

        assert moved(8) == pytest.approx(moved(200), rel=1e-2)
        assert moved(8, rho=100.0) < 0.2 * moved(8)

    @pytest.mark.parametrize("rho", [1.0, 10.0])
    def test_one_expert_is_pissa_over_rho(self, build, logits, difference, rho):
        base, pissa = build(), get("pissa").attach(build(), rank=4, alpha=8)
        expected = logits(base)
        model = self.attach(base, rank=4, experts=1, rho=rho)
        for key in attachment(model).layers:
            for own, theirs in zip(factors(model, key), factors(pissa, key), strict=True):
                assert difference(own * rho**0.5, theirs) < 1e-6
        assert difference(logits(model), expected) < 1e-5

    def test_alpha_moves_the_rate_of_the_factors_by_a_square_root_and_the_router_s_not_at_all(self, build, train):
        """eta and s or eta / 2 and 4 s are one run, as long as the routers rest."""

        def run(alpha, rate, routers_rest):
            model = get("goat").attach(build(), rank=RANK, alpha=alpha, seed=3)
            for layer in attachment(model).layers.values():
                layer.given("router").requires_grad_(not routers_rest)
            return train(model, get("goat").optimizer(model, rate), 6)

        assert run(16, 4e-3, True) == pytest.approx(run(64, 2e-3, True), rel=1e-4)
        assert run(16, 4e-3, False) != pytest.approx(run(64, 2e-3, False), rel=1e-4)

    def test_one_factorization_serves_every_rank_of_as_many_experts(self, build):
        base = build()
        layer = {LAYER: base.get_submodule(LAYER)}
        first = weight_factors(base, layer, 4, SegmentedSvd(4))[LAYER]
        assert weight_factors(base, layer, 32, SegmentedSvd(4))[LAYER] is first
        assert [tuple(part.shape) for part in first] == [(32, 4, 8), (4, 8), (4, 8, 48)]

    def test_segments_are_whole_triplets_and_few_are_kept_of_a_large_matrix(self, difference):
        matrix = torch.randn(70, 90, generator=torch.Generator().manual_seed(7))
        u, values, vh = SegmentedSvd(4)(matrix, 10)
        expected_u, expected_values, expected_vh = leading_svd(matrix, 70)
        assert values.shape == (4, 2)
        indices = [0, 1, 17, 18, 34, 35, 51, 52]
        assert torch.equal(values.flatten(), expected_values[indices])
        assert torch.equal(u.flatten(1), expected_u[:, indices])
        assert torch.equal(vh.flatten(0, 1), expected_vh[indices])


@pytest.mark.parametrize(
    ("name", "options", "rank", "message"),
    [
        ("loramoe", {"experts": 3}, 8, r"experts = 3: rank 8 must be divisible.*space\.options\.loramoe\.experts"),
        ("loramoe", {"experts": 0}, 8, "experts = 0"),
        ("loramoe", {}, 11, "rank 11 has no divisor from 2 to 8"),
        ("goat", {}, 1, "rank 1 has no divisor from 2 to 8"),
        ("loramoe", {"top_k": 1}, 8, "top_k = 1 of 8 experts"),
        ("goat", {"top_k": 0, "experts": 1}, 8, r"top_k = 0.*space\.options\.goat\.top_k"),
        ("loramoe", {"balance": -0.1}, 8, r"balance = -0\.1"),
        ("goat", {"balance": float("nan")}, 8, "balance = nan"),
        ("goat", {"rho": 0.0}, 8, r"rho = 0\.0.*above 0"),
        ("hydralora", {"heads": 0}, 8, r"heads = 0.*space\.options\.hydralora\.heads"),
    ],
)
def test_what_cannot_be_is_said(build, fingerprint, name, options, rank, message):
    base = build()
    before = fingerprint(base)
    with pytest.raises(VariantError, match=message):
        get(name).configured(**options).attach(base, rank=rank, alpha=8)
    assert fingerprint(base) == before


def test_experts_grow_with_the_rank_up_to_eight():
    for name in ("loramoe", "goat"):
        assert [get(name).default("experts", rank) for rank in (2, 4, 6, 8, 12, 15, 16, 64)] == [2, 4, 6, 8, 6, 5, 8, 8]
        assert get(name).configured(experts=4).default("experts", 64) == 4
        assert get(name).default("top_k", 64) == 2


@pytest.mark.parametrize("name", MIXTURES)
def test_every_layer_is_a_mixture_with_a_router_of_the_seed(build, name):
    def routers(seed):
        layers = attachment(get(name).attach(build(), rank=RANK, alpha=16, seed=seed)).layers.values()
        assert all(isinstance(branch_of(layer), Experts) for layer in layers)
        return [layer.given("router") for layer in layers]

    one, again, other = routers(1), routers(1), routers(2)
    assert all(torch.equal(first, second) for first, second in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[1])
    assert all(router.abs().max() <= router.shape[1] ** -0.5 for router in one)
