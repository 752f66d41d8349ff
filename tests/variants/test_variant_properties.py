"""What defines each variant, in numbers."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from autolora.adapters import factors as variant_factors
from autolora.adapters.attachment import attachment, start_from
from autolora.adapters.start import DEFAULT_NAME
from autolora.space import Traits
from autolora.variants import Variant, VariantError, detach, get, names
from tests.support.variant_readings import factors, original_weights


def test_lora_starts_kaiming_uniform_with_b_zero(build):
    model = get("lora").attach(build(), rank=8, alpha=8, seed=1)
    for name, layer in attachment(model).layers.items():
        a, b = factors(model, name)
        bound = layer.in_features**-0.5
        assert a.abs().max() <= bound
        assert a.abs().max() > 0.9 * bound
        assert a.var().item() == pytest.approx(bound**2 / 3, rel=0.25)
        assert not b.any()


@pytest.mark.parametrize(("name", "scale"), [("lora", 32 / 8), ("rslora", 32 / 8**0.5), ("pissa", 4), ("olora", 4)])
def test_scaling(build, name, scale):
    model = get(name).attach(build(), rank=8, alpha=32)
    for layer in attachment(model).layers.values():
        assert layer.scaling == pytest.approx(scale)
    assert get(name).traits.scale(32, 8) == pytest.approx(scale)


def test_lora_scaled_by_c_with_b_s_rate_divided_by_c_is_the_same_run(build, train):
    def losses(alpha, ratio):
        lora_plus = dataclasses.replace(get("lora_plus"), ratio=ratio)
        model = lora_plus.attach(build(), rank=4, alpha=alpha, seed=3)
        return train(model, lora_plus.optimizer(model, 2e-3), 15)

    plain, scaled = losses(4, 1.0), losses(64, 1 / 16)
    assert plain[0] - plain[-1] > 0.2
    assert scaled == pytest.approx(plain, rel=1e-4)
    assert losses(64, 1.0) != pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize("name", [name for name in names() if get(name).traits.alpha_redundant])
def test_s_16_at_a_quarter_of_the_rate_is_the_same_run(build, train, tokens, name):
    def losses(alpha, rate):
        model = get(name).attach(build(), rank=4, alpha=alpha, batches=[{"input_ids": tokens, "labels": tokens}])
        return train(model, get(name).optimizer(model, rate), 15)

    one, sixteen = losses(4, 4e-3), losses(64, 1e-3)
    assert one[0] - one[-1] > 0.2
    assert sixteen == pytest.approx(one, rel=1e-4)
    assert losses(64, 4e-3) != pytest.approx(one, rel=1e-2)


def test_lora_plus_trains_b_at_its_ratio(build):
    variant = get("lora_plus")
    model = variant.attach(build(), rank=4, alpha=4)
    group_a, group_b = variant.optimizer(model, 1e-3).param_groups
    layers = attachment(model).layers
    assert group_a["lr"] == 1e-3
    assert group_b["lr"] == pytest.approx(16e-3)
    assert {id(p) for p in group_a["params"]} == {id(factors(model, name)[0]) for name in layers}
    assert {id(p) for p in group_b["params"]} == {id(factors(model, name)[1]) for name in layers}
    wider = dataclasses.replace(variant, ratio=4.0)
    assert wider.optimizer(model, 1e-3).param_groups[1]["lr"] == pytest.approx(4e-3)


def test_pissa_holds_the_leading_singular_triplets(build, difference):
    model = get("pissa").attach(build(), rank=4, alpha=12)
    for name, weight in original_weights(model).items():
        u, values, vh = torch.linalg.svd(weight, full_matrices=False)
        a, b = factors(model, name)
        assert difference(3 * b @ a, u[:, :4] * values[:4] @ vh[:4]) < 1e-5
        assert difference(a @ a.T, torch.diag(values[:4] / 3)) < 1e-5  # both factors carry sqrt(S / s)
        assert difference(b.T @ b, torch.diag(values[:4] / 3)) < 1e-5
        residual = attachment(model).layers[name].base_layer.weight
        assert torch.linalg.matrix_norm(residual, 2) <= values[4] * (1 + 1e-4)


@pytest.mark.parametrize("kept", [8, 256])  # fewer than a layer has, and all
def test_milora_holds_the_trailing_singular_triplets(build, difference, monkeypatch, kept):
    monkeypatch.setattr(variant_factors, "KEPT_RANK", kept)
    base = build()
    detach(get("pissa").attach(base, rank=4, alpha=12))  # its factors of the same weights are others
    model = get("milora").attach(base, rank=4, alpha=12)
    for name, weight in original_weights(model).items():
        u, values, vh = torch.linalg.svd(weight, full_matrices=False)
        a, b = factors(model, name)
        assert difference(3 * b @ a, u[:, -4:] * values[-4:] @ vh[-4:]) < 1e-4
        assert difference(a @ a.T, torch.diag(values[-4:] / 3)) < 1e-4
        residual = attachment(model).layers[name].base_layer.weight
        assert torch.linalg.matrix_norm(residual, 2).item() == pytest.approx(values[0].item(), rel=1e-4)


def test_init_ab_starts_both_factors_uniform_with_the_fan_in_of_a(build):
    model, other = (get("init_ab").attach(build(), rank=8, alpha=8, seed=seed) for seed in (1, 2))
    plain = get("lora").attach(build(), rank=8, alpha=8, seed=1)
    for name, layer in attachment(model).layers.items():
        bound = layer.in_features**-0.5
        a, b = factors(model, name)
        assert torch.equal(a, factors(plain, name)[0])
        assert b.abs().max() <= bound
        assert b.var().item() == pytest.approx(bound**2 / 3, rel=0.25)
        assert not torch.equal(b, factors(other, name)[1])


def test_lora_fa_trains_b_alone_and_s_times_eta_is_all_that_counts(build, train):
    def run(alpha, rate):
        model = get("lora_fa").attach(build(), rank=4, alpha=alpha)
        start = {name: factors(model, name)[0].clone() for name in attachment(model).layers}
        losses = train(model, get("lora_fa").optimizer(model, rate), 15)
        assert all(torch.equal(factors(model, name)[0], a) for name, a in start.items())
        return losses, sum(p.numel() for p in model.parameters() if p.requires_grad)

    (one, count), (sixteen, _) = run(4, 1.6e-2), run(64, 1e-3)
    assert one[0] - one[-1] > 0.2
    assert sixteen == pytest.approx(one, rel=1e-3)
    layers = attachment(get("lora").attach(build(), rank=4, alpha=4)).layers.values()
    assert count == sum(4 * layer.out_features for layer in layers)


def test_olora_starts_orthonormal_at_qr(build, difference):
    model = get("olora").attach(build(), rank=4, alpha=4)
    for name, weight in original_weights(model).items():
        a, b = factors(model, name)
        assert difference(b.T @ b, torch.eye(4)) < 1e-5
        assert difference(b @ (b.T @ weight), b @ a) < 1e-5
        # The first r columns of W lie in the span of the first r columns of Q.
        assert difference((b @ a)[:, :4], weight[:, :4]) < 1e-5


# Not OLoRA on GPT-2: PEFT's takes Conv1D's transposed weight for W and fails.
@pytest.mark.parametrize(("name", "family"), [("pissa", "llama"), ("pissa", "gpt2"), ("olora", "llama")])
def test_start_equals_peft_s_own(build, difference, name, family):
    model = get(name).attach(build(family), rank=4, alpha=8)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        init_lora_weights=name,
        target_modules=list(attachment(model).layers),
        fan_in_fan_out=family == "gpt2",
    )
    peft = get_peft_model(build(family), config).get_base_model()
    for layer_name, layer in attachment(model).layers.items():
        theirs = peft.get_submodule(layer_name)
        a, b = factors(model, layer_name)
        assert difference(b @ a, theirs.lora_B[DEFAULT_NAME].weight @ theirs.lora_A[DEFAULT_NAME].weight) < 1e-5
        assert difference(layer.base_layer.weight, theirs.get_base_layer().weight) < 1e-5


def test_the_way_back_from_a_shared_weight(build, fingerprint, logits, difference):
    """Two layers that share one parameter each get their own residual, and share it again afterwards."""
    base = build()
    first, second = (base.get_submodule(f"model.layers.{i}.self_attn.q_proj") for i in (0, 1))
    second.weight = first.weight
    before, expected = fingerprint(base), logits(base)

    @dataclasses.dataclass(frozen=True)
    class Random(Variant):
        def initialize(self, start):
            stream = start.stream("start")
            shapes = {n: (layer.in_features, layer.out_features) for n, layer in start.layers.items()}
            start_from(
                start.model,
                {
                    name: (torch.randn(4, n, generator=stream) / 8, torch.randn(m, 4, generator=stream) / 8)
                    for name, (n, m) in shapes.items()
                },
            )

    variant = Random(name="random", title="-", paper="-", traits=Traits(alpha_law=1.0))
    model = variant.attach(base, rank=4, alpha=4)
    assert difference(logits(model), expected) < 1e-4
    assert not torch.equal(first.weight, second.weight)
    assert fingerprint(detach(model)) == before
    assert first.weight is second.weight


def test_rank_stabilized_subtraction_keeps_its_scale_on_export(build, train, logits, difference, tmp_path):
    variant = dataclasses.replace(get("pissa"), traits=Traits(rank_stabilized=True))
    model = variant.attach(build(), rank=4, alpha=4)
    train(model, variant.optimizer(model, 2e-3), 5)
    variant.export(model, tmp_path / "adapter")
    reloaded = PeftModel.from_pretrained(build(), tmp_path / "adapter")
    assert difference(logits(reloaded), logits(model)) < 1e-4


@pytest.mark.parametrize(("name", "alpha", "stored"), [("lora", 8.0, 8), ("lora", 7.5, 7.5), ("pissa", 8.0, 16)])
def test_a_whole_alpha_is_stored_as_an_integer(build, tmp_path, name, alpha, stored):
    model = get(name).attach(build(), rank=4, alpha=alpha)
    get(name).export(model, tmp_path)
    alpha = json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"]
    assert alpha == stored
    assert type(alpha) is type(stored)


@pytest.mark.parametrize("gamma", [1.0, 16.0])
def test_init_ab_draws_both_factors_at_the_asked_variance(build, logits, difference, gamma):
    variant = get("init_ab").configured(gamma_a=gamma, gamma_b=gamma)
    base = build()
    expected = logits(base)
    model = variant.attach(base, rank=8, alpha=8)
    assert difference(logits(model), expected) < 1e-4
    for name, layer in attachment(model).layers.items():
        for factor in factors(model, name):
            bound = (gamma / layer.in_features) ** 0.5
            assert 0.9 * bound < factor.abs().max() <= bound * (1 + 1e-6)


def test_init_ab_plus_perturbs_the_base_by_s_b_a(build, logits, difference):
    model = get("init_ab_plus").attach(build(), rank=4, alpha=8)
    perturbed = build()
    for name in attachment(model).layers:
        a, b = factors(model, name)
        perturbed.get_submodule(name).weight.data += (2 * b @ a).detach()
    assert difference(logits(model), logits(perturbed)) < 1e-5


def test_options_are_the_fields_of_a_variant_s_own():
    assert get("lora").options == {}
    assert get("lora_ga").options == {"gamma": 16.0}
    assert get("lora_ga").configured(gamma=64.0).options == {"gamma": 64.0}
    with pytest.raises(VariantError, match="lora_ga has no option 'gama'; its options: gamma"):
        get("lora_ga").configured(gama=64.0)


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("lora_ga", "gamma", math.nan, "finite float"),
        ("lora_ga", "gamma", "16", "finite float"),
        ("melora", "k", 2.5, "finite int"),
        ("melora", "k", True, "finite int"),
        ("loramoe", "experts", 2.0, "finite None or int"),
    ],
)
def test_an_option_of_another_kind_is_refused_by_name(name, option, value, expected):
    with pytest.raises(VariantError, match=f"{name} got {option} = .*{expected}"):
        get(name).configured(**{option: value})


def test_an_option_takes_a_whole_number_for_a_float_and_none_where_the_rank_decides():
    assert get("lora_ga").configured(gamma=64).options == {"gamma": 64}
    assert get("loramoe").configured(experts=None).default("experts", 16) == 8
