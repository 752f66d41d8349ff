"""The head on target tokens alone, in chunks: the loss and every gradient are those of whole logits."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.checkpoint import checkpoint
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from autolora import head, losses, variants
from autolora.adapters.attachment import attachment
from tests.support.tiny_models import VOCABULARY, build_model

FAMILIES = ("llama", "gpt2", "gemma2", "cohere", "mixtral", "qwen3")
"""Among them one that caps its logits, one that scales them, one with experts, and one with tied embeddings."""
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
BEHIND_THE_HEAD = {
    "gemma2": {"final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "cohere": {"logit_scale": 0.25},
}


def batch() -> dict[str, torch.Tensor]:
    """Three rows, the second padded, with a few targets each."""
    ids = torch.randint(3, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(0))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :5] = losses.IGNORED
    labels[1, 8:], mask[1, 8:] = losses.IGNORED, 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def adapted(family: str = "llama", **options: object):
    if family in BEHIND_THE_HEAD:
        torch.manual_seed(0)
        own = {**SHAPE, "num_attention_heads": 4, "num_key_value_heads": 2, **BEHIND_THE_HEAD[family]}
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**own, initializer_range=0.2))
    else:
        model = build_model(family)
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 4, "init_lora_weights": False, "target_modules": "all-linear", **options})
    return get_peft_model(model, config).train()


def gradients(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """But for rounding: sums are taken in another order."""
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-5 * float(gradient.abs().max()), name


def whole(model) -> torch.Tensor:
    logits, targets = losses.target_logits(model, batch())
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")


@pytest.fixture(params=[1, 5, 10**6])
def chunk(request, monkeypatch):
    """So many targets are looked at together."""
    monkeypatch.setattr(head, "CHUNK", request.param * VOCABULARY)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_whole_logits(family, monkeypatch):
    monkeypatch.setattr(head, "CHUNK", 3 * VOCABULARY)
    model = adapted(family)
    expected, loss = whole(model), head.summed_loss(model, batch(), apart=True)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    found, wanted = gradients(model, loss), gradients(model, whole(model))
    assert_same(found, wanted)


def test_an_adapter_on_the_head_itself_gets_its_gradient(chunk):
    model = adapted(modules_to_save=None, exclude_modules=None)
    model = get_peft_model(
        model.unload(), LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "lm_head"])
    )
    found = gradients(model, 0.5 * head.summed_loss(model, batch(), apart=True))
    wanted = gradients(model, 0.5 * whole(model))
    assert any("lm_head" in name for name in wanted)
    assert_same(found, wanted)


def test_losses_and_predictions_of_each_target_are_those_of_whole_logits(chunk):
    model = adapted().eval()
    with torch.no_grad():
        expected = losses.token_losses(model, batch())
    for found, wanted in zip(head.token_predictions(model, batch(), apart=True), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_head_never_sees_more_than_a_chunk_of_tokens(monkeypatch):
    monkeypatch.setattr(head, "CHUNK", 2 * VOCABULARY)
    model, seen = adapted(), []
    model.get_base_model().lm_head.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[:-1].numel())
    )
    head.summed_loss(model, batch(), apart=True).backward()
    assert max(seen) <= len(batch()["input_ids"])
    assert sum(seen) < batch()["input_ids"].numel()


def test_a_batch_without_targets_has_no_loss(chunk):
    nothing = {**batch(), "labels": torch.full((3, 12), losses.IGNORED)}
    model = adapted()
    assert float(head.summed_loss(model, nothing, apart=True)) == 0.0
    assert all(len(found) == 0 for found in head.token_predictions(model, nothing, apart=True))


def test_a_model_is_as_it_was_also_when_its_forward_fails(monkeypatch):
    model = adapted()
    inner = model.get_base_model()
    with monkeypatch.context() as broken:
        broken.setattr(inner.lm_head, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
        with pytest.raises(RuntimeError, match="broken"):
            head.summed_loss(model, batch(), apart=True)
    assert "forward" not in vars(inner.base_model)
    assert not inner.base_model._forward_hooks
    assert float(whole(model)) == pytest.approx(float(head.summed_loss(model, batch(), apart=True)), rel=1e-6)


def test_a_balance_is_not_kept_again_where_checkpointing_repeats_a_pass():
    """It would keep the graph of each layer that a backward pass has gone through."""
    model = build_model("llama")
    adapted = variants.get("loramoe").attach(model, rank=4, alpha=4.0)
    adapted.train()
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    loss = head.summed_loss(adapted, batch(), apart=True)
    penalty = variants.get("loramoe").penalty(adapted)
    (loss + penalty).backward()
    branches = [layer.branch for layer in attachment(adapted).layers.values()]
    assert all(branch.take_balance() is None for branch in branches)
    routers = [p for name, p in adapted.named_parameters() if "router" in name and p.requires_grad]
    assert routers
    assert all(router.grad is not None for router in routers)
