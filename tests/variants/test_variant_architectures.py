"""Variants that change what an adapter is: DoRA, GraLoRA, RandLoRA."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import transformers
from packaging.version import Version
from peft import PeftModel, RandLoraConfig, get_peft_model
from peft.tuners.lora.variants import DoraLinearVariant
from safetensors.torch import load_file, save_file

from autolora.adapters.attachment import attachment
from autolora.adapters.export import CONFIG, WEIGHTS
from autolora.adapters.kernels.dora import GramDora
from autolora.adapters.start import DEFAULT_NAME
from autolora.adapters.subtraction import weight_matrix
from autolora.variants import VariantError, get
from tests.support.variant_readings import factors


def test_dora_magnitudes_are_row_norms(build, difference):
    model = get("dora").attach(build("gpt2"), rank=4, alpha=4)
    for name, layer in attachment(model).layers.items():
        magnitude = layer.entry("lora_magnitude_vector").weight
        assert difference(magnitude, weight_matrix(layer.base_layer).norm(dim=1)) < 1e-6
        assert not factors(model, name)[1].any()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dora_trains_as_peft_s_own(build, train, tokens, difference, monkeypatch, family, dtype):
    """Logits, gradients and a few steps: the lean pass computes what PEFT's does, to the base's rounding."""
    # GPT-2 of transformers before 5.15 differs by 0.0625 in bfloat16.
    rounding = 0.05 if Version(transformers.__version__) >= Version("5.15") else 0.1
    tolerance = 1e-4 if dtype == torch.float32 else rounding

    def run():
        model = get("dora").attach(build(family).to(dtype), rank=4, alpha=12)
        losses = train(model, get("dora").optimizer(model, 5e-3), 4)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        return losses, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}

    losses, gradients = run()
    monkeypatch.setattr(GramDora, "forward", staticmethod(DoraLinearVariant.forward))
    expected, theirs = run()
    assert losses == pytest.approx(expected, rel=tolerance)
    for name, gradient in gradients.items():
        assert difference(gradient, theirs[name]) < tolerance, name


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_dora_survives_rows_of_zero_norm(build, train, logits, difference, tmp_path, family):
    def pruned():
        base = build(family)
        inner = "transformer.h.0.attn.c_attn" if family == "gpt2" else "model.layers.0.self_attn.q_proj"
        weight = base.get_submodule(inner).weight.data
        (weight.T if family == "gpt2" else weight)[3] = 0
        return base, inner

    base, inner = pruned()
    expected = logits(base)
    dora = get("dora")
    model = dora.attach(base, rank=4, alpha=4)
    assert difference(logits(model), expected) < 1e-6
    losses = train(model, dora.optimizer(model, 5e-3), 5)
    assert losses[-1] < losses[0]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert attachment(model).layers[inner].entry("lora_magnitude_vector").weight[3] != 0
    dora.export(model, tmp_path / "dora")
    reloaded = PeftModel.from_pretrained(pruned()[0], tmp_path / "dora")
    assert difference(logits(reloaded), logits(model)) < 1e-4


def trainable(layer):
    return sum(p.numel() for p in layer.parameters.values() if p.requires_grad)


class TestGralora:
    def test_with_one_block_it_is_lora(self, build, train):
        def losses(variant):
            model = variant.attach(build(), rank=4, alpha=8, seed=3)
            return train(model, variant.optimizer(model, 5e-3), 8)

        plain = losses(get("lora"))
        assert plain[0] - plain[-1] > 0.2
        assert losses(get("gralora").configured(k=1)) == pytest.approx(plain, rel=1e-5)
        assert losses(get("gralora").configured(k=2)) != pytest.approx(plain, rel=1e-3)

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_each_block_has_a_rank_of_its_own_and_the_plain_factors_are_their_sum(
        self, build, train, difference, family
    ):
        variant = get("gralora").configured(k=4)
        model = variant.attach(build(family), rank=8, alpha=8)
        train(model, variant.optimizer(model, 5e-3), 5)
        for layer in attachment(model).layers.values():
            a, b = variant.plain_factors(layer)
            assert a.shape == (32, layer.in_features)
            delta = layer.module.get_delta_weight(layer.adapter)
            delta = delta.T if family == "gpt2" else delta
            assert difference(b @ a, delta) < 1e-5
            block = delta[: layer.out_features // 4, -(layer.in_features // 4) :]
            assert torch.linalg.matrix_rank(block, rtol=1e-4) == 2
            assert torch.linalg.matrix_rank(delta, rtol=1e-5) > 8
            assert trainable(layer) == 8 * (layer.in_features + layer.out_features)  # as LoRA's

    def test_blocks_grow_with_the_rank(self):
        assert [get("gralora").blocks(rank) for rank in (8, 32, 64)] == [2, 2, 4]

    @pytest.mark.parametrize(
        ("k", "rank", "message"),
        [
            (2, 3, "rank 3 must be divisible"),
            (3, 6, r"k = 3 blocks a side, and 'model.*' is 32 x 32: set space.options.gralora.k"),
        ],
    )
    def test_what_does_not_divide_is_said(self, build, k, rank, message):
        with pytest.raises(VariantError, match=message):
            get("gralora").configured(k=k).attach(build(), rank=rank, alpha=8)


class TestRandlora:
    def test_update_is_of_full_rank_with_few_parameters(self, build, train):
        variant = get("randlora")
        model = variant.attach(build(), rank=4, alpha=80)
        train(model, variant.optimizer(model, 1e-2), 10)
        for layer in attachment(model).layers.values():
            least = min(layer.in_features, layer.out_features)
            # Of products of random bases the least singular value may be as small as float32 rounds.
            assert torch.linalg.matrix_rank(layer.module.get_delta_weight(layer.adapter), rtol=1e-5) >= least - 1
            bases = -(-least // 4)
            assert trainable(layer) == bases * (4 + least)

    def test_bases_are_shared_frozen_and_of_the_seed(self, build, train):
        def bases(seed):
            model = get("randlora").attach(build(), rank=4, alpha=80, seed=seed)
            return model, model.base_model.randlora_A[DEFAULT_NAME], model.base_model.randlora_B[DEFAULT_NAME]

        model, a, b = bases(1)
        before = a.clone(), b.clone()
        layers = list(attachment(model).layers.values())
        assert all(layer.entry("randlora_A") is a and layer.entry("randlora_B") is b for layer in layers)
        train(model, get("randlora").optimizer(model, 1e-2), 3)
        assert torch.equal(a, before[0])
        assert torch.equal(b, before[1])
        assert torch.equal(bases(1)[1], a)
        assert not torch.equal(bases(2)[1], a)

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_it_is_peft_s_own_with_the_key_of_its_configuration(self, build, logits, difference, family, dtype):
        ours = get("randlora").attach(build(family).to(dtype), rank=4, alpha=80, seed=3)
        config = ours.peft_config[DEFAULT_NAME]
        assert config.save_projection
        theirs = get_peft_model(
            build(family).to(dtype),
            RandLoraConfig(
                r=4,
                randlora_alpha=80,
                target_modules=list(attachment(ours).layers),
                projection_prng_key=config.projection_prng_key,
                fan_in_fan_out=family == "gpt2",
            ),
        )
        own, reference = (dict(model.base_model.named_buffers()) for model in (ours, theirs))
        assert all(torch.equal(own[key], reference[key]) for key in reference if "randlora" in key)
        stream = torch.Generator().manual_seed(0)
        for (name, ours_parameter), (other, parameter) in zip(
            ours.named_parameters(), theirs.named_parameters(), strict=True
        ):
            assert name == other
            if ours_parameter.requires_grad:
                drawn = torch.randn(parameter.shape, generator=stream) / 10
                ours_parameter.data.copy_(drawn)
                parameter.data.copy_(drawn)
        assert difference(logits(ours), logits(theirs)) < (1e-6 if dtype == torch.float32 else 1e-2)

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_it_loads_exactly_without_its_bases_too(self, build, train, logits, tmp_path, family):
        """PEFT then draws them from the key."""
        variant = get("randlora")
        model = variant.attach(build(family), rank=4, alpha=80, seed=7)
        train(model, variant.optimizer(model, 1e-2), 5)
        variant.export(model, tmp_path / "with")
        tensors = load_file(tmp_path / "with" / WEIGHTS)
        trained = {key: tensor for key, tensor in tensors.items() if not key.endswith(("randlora_A", "randlora_B"))}
        assert len(trained) == len(tensors) - 2
        config = json.loads((tmp_path / "with" / CONFIG).read_text())
        (tmp_path / "without").mkdir()
        save_file(trained, tmp_path / "without" / WEIGHTS)
        (tmp_path / "without" / CONFIG).write_text(json.dumps({**config, "save_projection": False}))
        expected = logits(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that bases are missing or not saved
            for folder in ("with", "without"):
                loaded = PeftModel.from_pretrained(build(family), tmp_path / folder)
                assert torch.equal(logits(loaded), expected), folder


def test_lora_alpha_scales_each_layer_by_its_inputs(build):
    """sqrt(3 n r) at the law's alpha for a model 32 wide, whatever the layer's n."""
    variant = get("lora_alpha")
    model = variant.attach(build(), rank=4, alpha=variant.traits.law_alpha(4, 32))
    widths = set()
    for layer in attachment(model).layers.values():
        assert layer.scaling == pytest.approx((3 * layer.in_features * 4) ** 0.5 / 4)
        widths.add(layer.in_features)
    assert widths == {32, 48}


@pytest.mark.slow
def test_lora_alpha_matches_the_signal_curvature_of_full_fine_tuning(build):
    """E[s^2 A0^T A0] is the identity: what a step on B moves W by is what a step on W would be, on average."""
    variant = get("lora_alpha")
    total = 0
    for seed in range(200):
        model = variant.attach(build(), rank=4, alpha=variant.traits.law_alpha(4, 32), seed=seed)
        layer = attachment(model).layers["model.layers.0.mlp.down_proj"]
        a = layer.a.detach()
        # alpha^2 / r^2 A^T A over r rows of variance 1 / (3 n): alpha^2 = r / var makes it r ** 0
        total = total + layer.scaling**2 * a.T @ a
    assert (total / 200).diagonal().mean().item() == pytest.approx(1.0, rel=0.05)


def test_the_empirical_form_does_not_know_the_width():
    assert get("lora_alpha_empirical").traits.law_alpha(16, 64) == 1024.0
    assert get("lora_alpha").traits.law_alpha(16, 64) == pytest.approx((3 * 64 * 16) ** 0.5)
