"""One function loads any exported adapter; what cannot be loaded is said, and leaves the base as it was."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

import autolora
from autolora.variants import VariantError, get


@pytest.fixture
def exported(build, train, tmp_path):
    """``exported(name)``: a trained adapter's folder, and the model that it was exported from."""

    def export(name):
        model = get(name).attach(build(), rank=4, alpha=8)
        train(model, get(name).optimizer(model, 5e-3), 3)
        get(name).export(model, tmp_path / name)
        return tmp_path / name, model

    return export


@pytest.mark.parametrize("name", ["lora", "pissa", "dora", "hydralora"])
def test_every_form_is_loaded_for_use_alone(exported, build, logits, difference, name):
    folder, trained = exported(name)
    loaded = autolora.load_adapter(build(), folder)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert difference(logits(loaded), logits(trained)) < 1e-4


def test_options_and_alpha_are_the_exported_ones(build, train, logits, tmp_path):
    variant = get("hydralora").configured(heads=2)
    model = variant.attach(build(), rank=4, alpha=6.5)
    train(model, variant.optimizer(model, 5e-3), 3)
    variant.export(model, tmp_path)
    assert (logits(autolora.load_adapter(build(), tmp_path)) == logits(model)).all()


def test_a_folder_without_an_adapter_is_named(build, tmp_path):
    with pytest.raises(
        VariantError, match=r"holds no adapter: neither adapter_config\.json nor autolora_adapter\.json"
    ):
        autolora.load_adapter(build(), tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:20], "is damaged"),
        (lambda text: json.dumps({**json.loads(text), "format": 99}), "is of format 99, this version reads 1"),
        (lambda text: json.dumps({**json.loads(text), "variant": "hydralra"}), "did you mean 'hydralora'"),
        (lambda text: json.dumps({**json.loads(text), "options": {"headz": 3}}), "no option 'headz'"),
    ],
)
def test_settings_that_cannot_be_used_are_said(exported, build, fingerprint, damage, message):
    folder, _ = exported("hydralora")
    file = folder / "autolora_adapter.json"
    file.write_text(damage(file.read_text()))
    base = build()
    before = fingerprint(base)
    with pytest.raises(VariantError, match=message):
        autolora.load_adapter(base, folder)
    assert fingerprint(base) == before


def test_truncated_weights_are_named(exported, build, fingerprint):
    folder, _ = exported("hydralora")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    base = build()
    before = fingerprint(base)
    with pytest.raises(VariantError, match=r"adapter_model\.safetensors cannot be read .*: export the adapter again"):
        autolora.load_adapter(base, folder)
    assert fingerprint(base) == before


def test_an_adapter_of_another_model_is_refused_and_leaves_the_base_clean(exported, build, fingerprint):
    folder, _ = exported("hydralora")
    base = build("gpt2")
    before, attributes = fingerprint(base), set(vars(base))
    with pytest.raises(VariantError, match="another rank, variant or model"):
        autolora.load_adapter(base, folder)
    assert fingerprint(base) == before
    assert set(vars(base)) == attributes


def test_an_adapter_that_fails_amid_the_layers_leaves_the_base_as_it_was(exported, build, fingerprint):
    """PEFT has wrapped all layers by the time that it finds a tensor of another shape."""
    folder, _ = exported("lora")
    file = folder / "adapter_model.safetensors"
    state = load_file(file)
    key = sorted(state)[-1]
    state[key] = state[key][:, :2].contiguous()
    save_file(state, file)
    base = build()
    before, modules = fingerprint(base), list(base.modules())
    trainable, attributes = [parameter.requires_grad for parameter in base.parameters()], set(vars(base))
    with pytest.raises(VariantError, match="is damaged or of another model"):
        autolora.load_adapter(base, folder)
    assert fingerprint(base) == before
    assert list(base.modules()) == modules
    assert [parameter.requires_grad for parameter in base.parameters()] == trainable
    assert set(vars(base)) == attributes
    get("lora").attach(base, rank=2, alpha=2.0)  # it carries nothing
