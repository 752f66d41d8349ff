"""Tiny random models of the families that users bring."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

VOCABULARY = 96
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SHAPE, tie_word_embeddings=True),  # grouped-query attention
    "qwen3": lambda: Qwen3Config(**_SHAPE),
    "gemma3": lambda: Gemma3TextConfig(**_SHAPE, query_pre_attn_scalar=8, sliding_window=16),
    "gpt2": lambda: GPT2Config(  # Conv1D, biases
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
    ),
}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
OTHERS: dict[str, Callable[[], PretrainedConfig]] = {
    "mixtral": lambda: CONFIG_MAPPING["mixtral"](**{**_SHAPE, **_EXPERTS}),
    "gpt_oss": lambda: CONFIG_MAPPING["gpt_oss"](**{**_SHAPE, **_EXPERTS}),  # experts are stored transposed
    "jetmoe": lambda: CONFIG_MAPPING["jetmoe"](**{**_SHAPE, **_EXPERTS}),  # experts in attention, linear routers
    "qwen2_moe": lambda: CONFIG_MAPPING["qwen2_moe"](  # a shared expert, with a gate of one output
        **{**_SHAPE, **_EXPERTS, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 32}
    ),
    "deepseek_v3": lambda: CONFIG_MAPPING["deepseek_v3"](  # the first layer is dense
        **{**_SHAPE, **_EXPERTS, **_LATENT},
        moe_intermediate_size=24,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
        n_shared_experts=1,
    ),
    "glm4_moe": lambda: CONFIG_MAPPING["glm4_moe"](
        **{**_SHAPE, **_EXPERTS},
        moe_intermediate_size=24,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
        n_shared_experts=1,
    ),
    "falcon": lambda: CONFIG_MAPPING["falcon"](  # adds in place to what a layer returns
        **{key: value for key, value in _SHAPE.items() if key not in ("head_dim", "num_key_value_heads")}
    ),
    "llama4": lambda: CONFIG_MAPPING["llama4_text"](  # so does its mixture of experts
        **{**_SHAPE, **_EXPERTS}, intermediate_size_mlp=48, interleave_moe_layer_step=2
    ),
    "mamba": lambda: CONFIG_MAPPING["mamba"](**_SHAPE, state_size=8, time_step_rank=4),
    "mamba2": lambda: CONFIG_MAPPING["mamba2"](
        **{**_SHAPE, "head_dim": 8}, num_heads=8, n_groups=1, state_size=8, expand=2
    ),
    "falcon_h1": lambda: CONFIG_MAPPING["falcon_h1"](  # attention beside Mamba
        **_SHAPE, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, mamba_d_ssm=64
    ),
    "gemma3_with_vision": lambda: CONFIG_MAPPING["gemma3"](
        text_config={**_SHAPE, "model_type": "gemma3_text"}, vision_config=_VISION, mm_tokens_per_image=1
    ),
}
"""Models with layers of other kinds: experts in one parameter, Mamba blocks, a vision tower."""


def build_model(family: str = "llama") -> PreTrainedModel:
    """A random model, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config({**CONFIGS, **OTHERS}[family]())
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()
