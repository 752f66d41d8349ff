"""Small random models of the architectures that ``transformers`` has a causal language model for.

Widths are of two or three figures, so that every layer of the real models is there and none is of a real one's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 257
SHAPE: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": None,
}
"""What most configurations call these."""
EXPERTS: Mapping[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT: Mapping[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
"""Multi-head latent attention."""
MAMBA2: Mapping[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
GPT: Mapping[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4}
DELTA: Mapping[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
"""Gated delta networks beside attention."""
VISION: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}

PLAIN = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo", "olmo2", "olmo3"),
    *("granite", "glm", "glm4", "cohere", "cohere2", "stablelm", "starcoder2", "nemotron", "smollm3", "exaone4"),
    *("helium", "seed_oss", "arcee", "apertus", "ernie4_5", "hunyuan_v1_dense", "gpt_neox", "persimmon", "rwkv"),
    *("vaultgemma", "nanochat", "jais2", "ministral", "bitnet", "diffllama", "biogpt", "olmo_hybrid"),
    *("gemma4_text",),
)
MIXTURES = (
    *("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "olmoe", "flex_olmo", "granitemoe", "granitemoeshared"),
    *("phimoe", "ernie4_5_moe", "minimax", "minimax_m2", "hunyuan_v1_moe", "jetmoe", "afmoe", "solar_open"),
    *("hy_v3", "aria_text"),
)
OTHERS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gptj": {**GPT, "rotary_dim": 4},
    "codegen": {**GPT, "rotary_dim": 4},
    "bloom": GPT,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
    "doge": {"num_key_value_heads": 4, "keep_window_size": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {**EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "deepseek_v2": {**EXPERTS, **LATENT, "first_k_dense_replace": 1},
    "deepseek_v3": {**EXPERTS, **LATENT, "first_k_dense_replace": 1},
    "glm4_moe": {**EXPERTS, "first_k_dense_replace": 1},
    "glm4_moe_lite": {**EXPERTS, **LATENT},
    "longcat_flash": {**EXPERTS, **LATENT, "zero_expert_num": 2},
    "exaone_moe": {**EXPERTS, "first_k_dense_replace": 1},
    "dots1": {**EXPERTS, "first_k_dense_replace": 1},
    "axk1": {**EXPERTS, **LATENT},
    "kimi_linear": {**EXPERTS, **LATENT},
    "deepseek_v32": {**EXPERTS, **LATENT, "first_k_dense_replace": 1, "index_n_heads": 4, "index_head_dim": 16},
    "youtu": LATENT,
    "qwen3_next": {**EXPERTS, **DELTA},
    "qwen3_5_moe_text": {**EXPERTS, **DELTA},
    "qwen3_5_text": DELTA,
    "llama4_text": {**EXPERTS, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2},
    "mamba": {"state_size": 8, "time_step_rank": 4},
    "falcon_mamba": {"state_size": 8, "time_step_rank": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "expand": 2},
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 64},
    "bamba": {**MAMBA2, "attn_layer_indices": [1]},
    "granitemoehybrid": {
        **EXPERTS,
        **MAMBA2,
        "shared_intermediate_size": 32,
        "layer_types": ["mamba", "attention"],
    },
    "jamba": {
        **EXPERTS,
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "zamba2": {
        "mamba_d_state": 8,
        "mamba_headdim": 8,
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
        "layers_block_type": ["mamba", "hybrid"],
        "num_mem_blocks": 1,
        "adapter_rank": 16,
        "attention_head_dim": 16,
    },
    "nemotron_h": {
        **EXPERTS,
        "layers_block_type": ["mamba", "attention", "mlp", "moe"],
        "num_hidden_layers": 4,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "moe_shared_expert_intermediate_size": 32,
    },
}
UNSHAPED: Mapping[str, Mapping[str, Any]] = {
    "falcon": {
        **{key: value for key, value in SHAPE.items() if key not in ("head_dim", "num_key_value_heads")},
        "new_decoder_architecture": False,
    },
    "dbrx": {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 256,
        "eos_token_id": 256,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "gemma3": {
        "text_config": {**SHAPE, "model_type": "gemma3_text"},
        "vision_config": VISION,
        "mm_tokens_per_image": 1,
    },
    "gemma4": {"text_config": {**SHAPE, "pad_token_id": 0}, "vision_config": VISION, "audio_config": None},
    "got_ocr2": {
        "text_config": {**SHAPE, "model_type": "qwen2"},
        "vision_config": {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 64,
            "output_channels": 32,
            "mlp_dim": 64,
        },
    },
    "xglm": {"vocab_size": VOCABULARY, "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64},
    "xlstm": {"vocab_size": VOCABULARY, "hidden_size": 64, "num_heads": 4, "num_hidden_layers": 2},
    "fuyu": {**SHAPE, "text_config": {**SHAPE, "model_type": "persimmon"}},
}
"""Those to which ``SHAPE`` is not given as it is."""


def settings() -> dict[str, Mapping[str, Any]]:
    """By model type, what its configuration is made of."""
    return {
        **dict.fromkeys(PLAIN, SHAPE),
        **{kind: {**SHAPE, **more} for kind, more in OTHERS.items()},
        **{kind: {**SHAPE, **EXPERTS} for kind in MIXTURES},
        **UNSHAPED,
    }


def build(kind: str) -> PreTrainedModel:
    """A random model, the same at every call, in evaluation mode."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**settings()[kind])).eval()
