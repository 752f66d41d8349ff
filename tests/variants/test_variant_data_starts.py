"""Starts from data: gradients, inputs and Fisher factors of a sample."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from torch import nn

from autolora.adapters import factors as variant_factors
from autolora.adapters.attachment import attachment
from autolora.adapters.start import DEFAULT_NAME
from autolora.adapters.state import adapter_state, allotment, load_adapter_state
from autolora.adapters.statistics import FisherFactors
from autolora.adapters.targets import LinearLayer, linear_layers
from autolora.variants import VariantError, detach, get, names
from autolora.variants.gora import shared_out
from autolora.variants.lora_da import Guidance
from tests.support.variant_readings import factors, original_weights


@pytest.fixture
def batches(tokens):
    return [{"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}]


@pytest.fixture
def gradients(build, tokens):
    """dL/dW (m, n) by autograd on the weights themselves."""
    base = build()
    base(input_ids=tokens, labels=tokens).loss.backward()
    return {name: module.weight.grad for name, module in base.named_modules() if isinstance(module, nn.Linear)}


def test_lora_one_starts_with_a_step_along_the_projected_gradient(build, batches, gradients, difference):
    model = get("lora_one").attach(build(), rank=4, alpha=8, batches=batches)
    for name in attachment(model).layers:
        a, b = factors(model, name)
        u, values, vh = torch.linalg.svd(gradients[name])
        expected = -(u[:, :4] * (values[:4] / values[0])) @ vh[:4] / 128
        assert difference(b @ a, expected) < 1e-2
        assert difference(a @ a.T, b.T @ b) < 1e-3  # balanced


class TestLoraGA:
    def test_starts_in_the_gradient_s_directions_at_the_stable_scale(self, build, batches, gradients, difference):
        model = get("lora_ga").attach(build(), rank=4, alpha=4, batches=batches)
        for name, layer in attachment(model).layers.items():
            a, b = factors(model, name)
            size = layer.out_features**0.25 / 16**0.5
            assert difference(a @ a.T, size**2 * torch.eye(4)) < 1e-4
            assert difference(b.T @ b, size**2 * torch.eye(4)) < 1e-4
            u, _, vh = torch.linalg.svd(gradients[name])
            assert difference(a.T @ a / size**2, vh[:4].T @ vh[:4]) < 1e-2
            assert difference(b @ b.T / size**2, u[:, 4:8] @ u[:, 4:8].T) < 1e-2

    def test_its_first_step_is_nearer_to_full_fine_tuning_s_than_plain_lora_s(self, build, batches, gradients):
        def alignment(name):
            """Cosine of the update that a gradient step on A and B induces in W with that of full fine-tuning."""
            model = get(name).attach(build(), rank=4, alpha=4, batches=batches)
            model(**batches[0]).loss.backward()
            cosines = []
            for layer in attachment(model).layers:
                a, b = factors(model, layer)
                induced = b @ a.grad + b.grad @ a
                cosines.append(torch.cosine_similarity(induced.flatten(), gradients[layer].flatten(), dim=0).item())
            return sum(cosines) / len(cosines)

        assert alignment("lora_ga") > 1.5 * alignment("lora")

    def test_another_base_or_sample_is_read_anew(self, build, batches):
        base, passes = build(), []
        base.register_forward_hook(lambda *_: passes.append(1))
        detach(get("lora_ga").attach(base, rank=4, alpha=4, batches=batches))
        with torch.no_grad():
            base.lm_head.weight.mul_(1.5)  # another layer's weight, but the gradient goes through it
        detach(get("lora_ga").attach(base, rank=4, alpha=4, batches=batches))
        assert len(passes) == 2
        other = [{**batches[0], "input_ids": batches[0]["input_ids"].flip(0)}]
        detach(get("lora_ga").attach(base, rank=4, alpha=4, batches=other))
        assert len(passes) == 3

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"rank": 9}, r"has 16: rank 9 must be at most 8"),
            ({"dropout": 0.1}, "without dropout"),
        ],
    )
    def test_what_it_cannot_do_is_said(self, build, batches, settings, message):
        with pytest.raises(VariantError, match=message):
            get("lora_ga").attach(build(), **{"rank": 4, "alpha": 4, "batches": batches, **settings})


@pytest.fixture
def seen(build, batches):
    """By layer: inputs x (tokens, n) and gradients g (tokens, m) of the *summed* loss, read off by hooks of our own."""
    base, found = build(), {}

    def keep(name):
        def hook(module, inputs, output):
            output.retain_grad()
            found[name] = (inputs[0].detach().flatten(0, 1), output)

        return hook

    for name, module in base.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            module.register_forward_hook(keep(name))
    targets = (batches[0]["labels"][:, 1:] != -100).sum()
    (base(**batches[0]).loss * targets).backward()
    return {name: (x.double(), y.grad.flatten(0, 1).double()) for name, (x, y) in found.items()}


class TestLoraDA:
    def test_start_is_the_papers_formula(self, build, batches, seen, difference):
        model = get("lora_da").attach(build(), rank=4, alpha=4, batches=batches)
        targets = 4 * 15
        for name, (x, g) in seen.items():
            z, y = x.T @ x / len(x), (g * g).mean(0)
            z += 1e-6 * z.diagonal().mean() * torch.eye(len(z))
            y += 1e-6 * y.mean()
            step = -torch.linalg.solve(z, (g.T @ x / targets).T) @ torch.diag(1 / y)
            sigma = torch.linalg.svdvals(step)[0]
            step /= sigma
            omega = 0.03 / targets * (1 / y).sum() / sigma**2 * torch.linalg.inv(z) - step @ step.T
            kept = torch.linalg.eigh(omega)[1][:, :4]
            a, b = factors(model, name)
            assert difference(1024 * a.T @ a, (kept @ kept.T).float()) < 1e-2
            assert difference(1024 * b @ a, (step.T @ kept @ kept.T).float()) < 1e-2

    def test_without_fisher_factors_and_variance_it_is_lora_one(self, gradients, difference):
        for gradient in gradients.values():
            m, n = gradient.shape
            plain = FisherFactors(gradient, torch.eye(n), torch.ones(m), targets=10)
            directions, step = Guidance(beta=0.0, damping=0.0)(plain, gradient, 4)
            u, values, vh = torch.linalg.svd(gradient)
            assert difference(directions.T @ directions, vh[:4].T @ vh[:4]) < 1e-3
            assert difference(step @ directions, -(u[:, :4] * (values[:4] / values[0])) @ vh[:4]) < 1e-3

    def test_a_layer_that_no_gradient_reaches_starts_as_lora_s(self):
        nothing = FisherFactors(torch.zeros(3, 5), torch.eye(5), torch.zeros(3), 7)
        directions, step = Guidance(0.03, 1e-6)(nothing, torch.ones(3, 5), 2)
        assert not directions.any()
        assert not step.any()


class TestEva:
    def test_rows_are_the_top_right_singular_vectors_of_the_inputs(self, build, batches, seen, difference):
        model = get("eva").attach(build(), rank=4, alpha=4, batches=batches)
        for name in attachment(model).layers:
            a, b = factors(model, name)
            vh = torch.linalg.svd(seen[name][0])[2][: len(a)].float()
            assert difference((a @ vh.T).abs(), torch.eye(len(a))) < 1e-2
            assert not b.any()

    def test_ranks_go_where_the_variance_is_and_s_stays(self, build, batches, seen):
        model = get("eva").attach(build(), rank=4, alpha=8, batches=batches)
        ranks = {name: layer.rank for name, layer in attachment(model).layers.items()}
        assert sum(ranks.values()) == 4 * len(seen)
        assert max(ranks.values()) <= 8
        assert len(set(ranks.values())) > 1
        assert {layer.scaling for layer in attachment(model).layers.values()} == {2.0}
        shares = {}
        for name, (x, _) in seen.items():
            values = torch.linalg.svdvals(x) ** 2
            shares[name] = values / values.sum()
        taken = min(shares[name][rank - 1] for name, rank in ranks.items())
        left = max(shares[name][ranks.get(name, 0)] for name in seen if ranks.get(name, 0) < 8)
        assert taken > left * (1 - 1e-4)

    def test_rho_of_one_leaves_ranks_uniform(self, build, batches):
        model = get("eva").configured(rho=1.0).attach(build(), rank=4, alpha=4, batches=batches)
        assert {layer.rank for layer in attachment(model).layers.values()} == {4}

    def test_prompt_tokens_do_not_count(self, build, batches, seen, difference):
        masked = {**batches[0], "labels": batches[0]["labels"].clone()}
        masked["labels"][:, :8] = -100
        model = get("eva").attach(build(), rank=4, alpha=4, batches=[masked])
        for name in attachment(model).layers:
            a = factors(model, name)[0]
            completion = seen[name][0].unflatten(0, (4, 16))[:, 8:].flatten(0, 1)
            vh = torch.linalg.svd(completion)[2][: len(a)].float()
            assert difference((a @ vh.T).abs(), torch.eye(len(a))) < 1e-2

    def test_fewer_directions_than_the_rank_are_refused(self, build, batches):
        with pytest.raises(VariantError, match=r"eva\.rho is 0\.5"):
            get("eva").configured(rho=0.5).attach(build(), rank=4, alpha=4, batches=batches)


class TestCorda:
    @pytest.mark.parametrize(("name", "method"), [("corda", "ipm"), ("corda_kpm", "kpm")])
    def test_product_equals_peft_s_own(self, build, batches, difference, name, method):
        """On one sequence: PEFT scales each by its largest value, which the product does not depend on."""
        one = [{key: tensor[:1] for key, tensor in batches[0].items()}]
        model = get(name).attach(build(), rank=4, alpha=8, batches=one)
        base = build()
        config = LoraConfig(
            r=4,
            lora_alpha=8,
            init_lora_weights="corda",
            corda_config=CordaConfig(corda_method=method),
            target_modules=list(attachment(model).layers),
        )
        preprocess_corda(base, config, run_model=lambda: base(**one[0]))
        peft = get_peft_model(base, config).get_base_model()
        for layer in attachment(model).layers:
            theirs, (a, b) = peft.get_submodule(layer), factors(model, layer)
            product = theirs.lora_B[DEFAULT_NAME].weight @ theirs.lora_A[DEFAULT_NAME].weight
            # Components of the smallest singular values carry the inverse's error.
            assert difference(b @ a, product) < (1e-3 if method == "ipm" else 2e-2)

    def test_all_components_give_w_back(self, build, batches, difference):
        model = get("corda").attach(build(), rank=16, alpha=16, batches=batches)
        weights = original_weights(model)
        square = [name for name, weight in weights.items() if min(weight.shape) == 16]
        assert square
        for name in square:
            a, b = factors(model, name)
            assert difference(b @ a, weights[name]) < 1e-3


class TestGora:
    def test_starts_a_step_along_the_compressed_gradient(self, build, batches, gradients, difference):
        model = get("gora").attach(build(), rank=4, alpha=6, batches=batches)
        for name, layer in attachment(model).layers.items():
            a, b = factors(model, name)
            assert layer.scaling == pytest.approx(6 / len(a) ** 0.5)
            inside = gradients[name] @ torch.linalg.pinv(a) @ a
            size = 0.05 * (layer.in_features / len(a)) ** 0.5
            assert difference(layer.scaling * b @ a, -size * inside) < 1e-2

    def test_ranks_follow_importance_within_bounds_and_budget(self, build, batches, gradients):
        base = build()
        model = get("gora").attach(base, rank=4, alpha=4, batches=batches)
        layers = attachment(model).layers
        ranks = {name: layer.rank for name, layer in layers.items()}
        assert all(2 <= rank <= 16 for rank in ranks.values())
        costs = {name: layer.in_features + layer.out_features for name, layer in layers.items()}
        budget = 4 * sum(costs.values())
        spent = sum(costs[name] * ranks[name] for name in costs)
        assert budget - max(costs.values()) < spent <= budget
        weights = {name: base.get_submodule(name).get_base_layer().weight for name in layers}
        worth = {name: (weights[name] * gradients[name]).abs().mean().item() / costs[name] for name in layers}
        free = [name for name, rank in ranks.items() if 2 < rank < 16]
        assert len(free) > 2
        per_rank = [worth[name] / ranks[name] for name in free]
        assert max(per_rank) < 2 * min(per_rank)

    def test_nothing_to_tell_layers_apart_leaves_ranks_alike(self):
        layers = {str(i): LinearLayer(8, 8, transposed=False) for i in range(3)}
        assert shared_out(layers, dict.fromkeys(layers, 1.0), 4) == dict.fromkeys(layers, 4)
        assert shared_out(layers, dict.fromkeys(layers, 0.0), 4) == dict.fromkeys(layers, 4)


@pytest.mark.parametrize("name", [name for name in names() if get(name).needs_batches])
class TestSample:
    def test_is_read_once_for_all_trials(self, build, batches, name):
        base, passes = build(), []
        base.register_forward_hook(lambda *_: passes.append(1))
        for rank in (4, 8, 2):
            detach(get(name).attach(base, rank=rank, alpha=4, batches=batches))
        assert len(passes) == 1

    def test_more_passes_where_memory_is_short_give_the_same(self, build, batches, name, monkeypatch):
        whole = adapter_state(get(name).attach(build(), rank=4, alpha=4, batches=batches))
        monkeypatch.setattr(variant_factors, "STATISTICS_BYTES", 10_000)
        split = adapter_state(get(name).attach(build(), rank=4, alpha=4, batches=batches))
        assert all(torch.equal(whole[key], split[key]) for key in whole)

    def test_is_asked_for(self, build, name):
        with pytest.raises(VariantError, match="pass batches"):
            get(name).attach(build(), rank=4, alpha=4)

    def test_a_smaller_rank_holds_the_best_of_a_larger_one(self, build, batches, name):
        """Ranks up to the kept one are served from one factorization."""
        fresh = adapter_state(get(name).attach(build(), rank=2, alpha=4, batches=batches))
        base = build()
        detach(get(name).attach(base, rank=8, alpha=4, batches=batches))
        served = adapter_state(get(name).attach(base, rank=2, alpha=4, batches=batches))
        assert all(torch.equal(fresh[key], served[key]) for key in fresh)


@pytest.mark.parametrize("name", [name for name in names() if get(name).needs_batches])
class TestBadSample:
    def test_without_a_target_is_said(self, build, batches, name):
        masked = [{**batches[0], "labels": torch.full_like(batches[0]["labels"], -100)}]
        with pytest.raises(VariantError, match="no target token"):
            get(name).attach(build(), rank=4, alpha=4, batches=masked)

    def test_a_base_that_is_not_finite_is_said(self, build, batches, name):
        base = build()
        base.get_submodule("model.layers.1.mlp.up_proj").weight.data[0, 0] = float("nan")
        with pytest.raises(VariantError, match="not finite"):
            get(name).attach(base, rank=4, alpha=4, batches=batches)


@pytest.mark.parametrize("name", ["eva", "gora"])
def test_a_state_goes_on_with_its_own_ranks_where_the_sample_now_gives_others(build, batches, train, logits, name):
    variant = get(name)
    model = variant.attach(build(), rank=4, alpha=8, batches=batches)
    train(model, variant.optimizer(model, 2e-3), 2)
    state = adapter_state(model)
    other = [{**batches[0], "input_ids": batches[0]["input_ids"].flip(1)}]
    ranks = {key: layer.rank for key, layer in attachment(model).layers.items()}
    again = variant.attach(build(), rank=4, alpha=8, batches=other)
    assert {key: layer.rank for key, layer in attachment(again).layers.items()} != ranks
    again = variant.attach(build(), rank=4, alpha=8, batches=other, allotted=allotment(state))
    load_adapter_state(again, state)
    assert torch.equal(logits(again), logits(model))


def test_gradient_starts_share_one_factorization(build, batches):
    base, passes = build(), []
    base.register_forward_hook(lambda *_: passes.append(1))
    for name in ("lora_ga", "lora_one", "gora"):
        detach(get(name).attach(base, rank=4, alpha=4, batches=batches))
    assert len(passes) == 1
    assert linear_layers(base)


@pytest.mark.parametrize("largest", [True, False])
def test_eigenvectors_of_a_large_matrix_are_those_of_a_full_decomposition(monkeypatch, difference, largest):
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(200, 200, generator=generator).double())[0]
    ends = torch.cat([torch.linspace(-5, -1, 6), torch.linspace(-0.1, 0.1, 188), torch.linspace(1, 5, 6)]).double()
    matrix = basis @ torch.diag(ends) @ basis.T
    exact_values, exact = variant_factors.extreme_eigenvectors(matrix, 4, largest)
    assert exact_values.tolist() == pytest.approx(sorted(ends.tolist(), reverse=largest)[:4])
    monkeypatch.setattr(variant_factors, "DENSE", 64)
    values, vectors = variant_factors.extreme_eigenvectors(matrix, 4, largest)
    assert values.tolist() == pytest.approx(exact_values.tolist(), rel=1e-4)
    assert difference(vectors @ vectors.T, exact @ exact.T) < 0.01
