"""Quantized models: unpacked where transformers can, refused by their method elsewhere."""

from __future__ import annotations

import pytest
import torch
import transformers
from packaging.version import Version
from transformers.utils.quantization_config import QuantizationMethod

from autolora import bases
from autolora.bases import quantized
from tests.support.checkpoints import reconfigured, reweighted, saved, tiny
from tests.support.specs import small_spec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, r"is quantized with gptq, .*pip install gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, r"is quantized with awq, .*pip install gptqmodel"),
        (
            {"quant_method": "compressed-tensors"},
            r"quantized with compressed-tensors, .*pip install compressed-tensors",
        ),
        ({"quant_method": "unheard-of"}, r"is quantized with unheard-of\. autolora tunes bases in float32"),
    ],
)
def test_a_quantized_checkpoint_is_refused_with_its_library(tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr(quantized, "find_spec", lambda _: None)
    folder = reconfigured(saved(tmp_path, tiny()), quantization_config=settings)
    with pytest.raises(bases.ModelError, match=message):
        bases.load(small_spec(model=str(folder)))


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"),
    reason="transformers 5.4 fails to unpack matrices smaller than a block; 5.23 does it",
)
def test_weights_in_eight_bits_of_floating_point_are_unpacked_and_it_is_said(tmp_path):
    originals = {}

    def pack(weights):
        originals.update({name: tensor.clone() for name, tensor in weights.items()})
        for name in [name for name in weights if name.endswith("proj.weight")]:
            scale = weights[name].abs().max() / 448
            weights[name] = (weights[name] / scale).to(torch.float8_e4m3fn)
            weights[f"{name}_scale_inv"] = scale.view(1, 1)

    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    folder = reconfigured(reweighted(saved(tmp_path, tiny()), pack), quantization_config=settings)
    base = bases.load(small_spec(model=str(folder)))
    assert base.notes == ("the checkpoint is quantized (fp8); its weights are unpacked",)
    assert base.dtype == torch.float32
    for name, weight in base.model.state_dict().items():
        assert torch.allclose(weight, originals[name], atol=0.07 * float(originals[name].abs().max())), name


@pytest.mark.parametrize(
    "quantize",
    [
        lambda model: setattr(model, "quantization_method", QuantizationMethod.BITS_AND_BYTES),
        lambda model: setattr(model, "hf_quantizer", object()),
        lambda model: setattr(
            model.lm_head, "weight", torch.nn.Parameter(torch.zeros(257, 16, dtype=torch.uint8), requires_grad=False)
        ),
    ],
    ids=["by its mark", "by its quantizer", "by its weights"],
)
def test_a_quantized_model_object_is_refused(quantize):
    model = tiny()
    quantize(model)
    with pytest.raises(bases.ModelError, match=r"LlamaForCausalLM (given is quantized|is packed, though)"):
        bases.load(small_spec(model=model))
