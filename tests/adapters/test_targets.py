"""Which layers carry an adapter, and what is said of the others."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from autolora.adapters.attachment import attachment
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.targets import every_linear_layer, linear_layers, survey
from autolora.variants import VariantError, get
from tests.support.tiny_models import CONFIGS, OTHERS, build_model

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]


def adapter(**keys):
    return AdapterSpec.model_validate(keys)


class TestEveryWeight:
    @pytest.mark.parametrize("family", [*CONFIGS, *OTHERS])
    def test_it_is_adapted_or_left_out_for_a_reason(self, family):
        model = build_model(family)
        coverage = survey(model)
        told = {weight.key for weight in coverage.adapted} | {weight.key for weight, _ in coverage.left_out}
        assert {name for name, parameter in model.named_parameters() if parameter.ndim > 1} <= told
        assert all(reason.words for _, reason in coverage.left_out)
        assert sum(weight.size for weight in coverage.adapted) + sum(w.size for w, _ in coverage.left_out) == sum(
            parameter.numel() for parameter in model.parameters() if parameter.ndim > 1
        )

    @pytest.mark.parametrize("family", CONFIGS)
    def test_of_a_plain_model_all_linear_layers_are_adapted_as_ever(self, family):
        model = build_model(family)
        coverage = survey(model)
        assert list(coverage.layers) == every_linear_layer(model)
        assert coverage.share == 1.0

    def test_values_are_not_read(self):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(OTHERS["mixtral"]())
        assert survey(model).lines() == survey(build_model("mixtral")).lines()

    def test_the_lines_name_kinds_reasons_and_the_share_of_the_weights(self):
        first, second = survey(build_model("mixtral")).lines()
        assert first == (
            "adapters on q_proj, k_proj, v_proj, o_proj, experts.gate_up_proj, experts.down_proj "
            "(99.4% of the weights of layers)"
        )
        assert second == "no adapter on embed_tokens (embedding); gate (router); lm_head (output head)"


class TestByDefault:
    @pytest.mark.parametrize(
        ("family", "experts"),
        [
            ("mixtral", ["experts.gate_up_proj", "experts.down_proj"]),
            ("gpt_oss", ["experts.gate_up_proj", "experts.down_proj"]),
            ("jetmoe", ["mlp.input_linear", "mlp.output_linear", "experts.input_linear", "experts.output_linear"]),
        ],
    )
    def test_experts_are_adapted(self, family, experts):
        assert set(experts) <= set(survey(build_model(family)).kinds)

    @pytest.mark.parametrize(
        ("family", "routers"),
        [
            ("mixtral", ["gate"]),
            ("gpt_oss", ["router"]),
            ("jetmoe", ["router.layer"]),
            ("qwen2_moe", ["gate", "shared_expert_gate"]),
            ("deepseek_v3", ["gate"]),
        ],
    )
    def test_routers_and_gates_are_not(self, family, routers):
        assert survey(build_model(family)).reasons["router"] == routers

    @pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe"])
    def test_dense_layers_beside_experts_are_adapted(self, family):
        layers = survey(build_model(family)).layers
        assert {f"model.layers.0.mlp.{end}" for end in FEED_FORWARD} <= layers.keys()
        assert {f"model.layers.1.mlp.shared_experts.{end}" for end in FEED_FORWARD} <= layers.keys()
        assert {f"model.layers.1.mlp.experts.{end}" for end in ("gate_up_proj", "down_proj")} <= layers.keys()

    @pytest.mark.parametrize(
        ("family", "passed_by"),
        [("mamba", ["x_proj", "dt_proj", "out_proj"]), ("mamba2", ["out_proj"]), ("falcon_h1", ["out_proj"])],
    )
    def test_what_mamba_s_kernels_read_directly_is_not(self, family, passed_by):
        coverage = survey(build_model(family))
        assert coverage.reasons["Mamba's kernels read its weight directly, past an adapter"] == passed_by
        assert "in_proj" in coverage.kinds

    def test_a_vision_tower_is_not(self):
        coverage = survey(build_model("gemma3_with_vision"))
        assert coverage.kinds == [*ATTENTION, *FEED_FORWARD]
        assert all(name.startswith("model.language_model.") for name in coverage.layers)
        (reason,) = [words for words in coverage.reasons if words.startswith("outside the language model")]
        assert coverage.reasons[reason] == ["vision_tower", "multi_modal_projector"]

    def test_a_gate_of_one_output_does_not_limit_the_rank(self):
        model = get("lora").attach(build_model("qwen2_moe"), rank=16, alpha=16)
        assert {layer.rank for layer in attachment(model).layers.values()} == {16}

    def test_a_narrow_layer_gives_way_to_a_higher_rank_and_others_limit_it(self):
        model = build_model()
        attention = model.get_submodule("model.layers.0.self_attn")
        attention.heads = nn.Linear(4096, 3)
        attention.wide = nn.Linear(4096, 128)
        coverage = survey(model)
        assert "heads is left out at ranks above 3" in coverage.lines()
        assert coverage.at_rank(3).keys() - coverage.at_rank(4).keys() == {"model.layers.0.self_attn.heads"}


class TestNamed:
    def kinds(self, family, **keys):
        return survey(build_model(family), adapter(**keys)).kinds

    def test_a_list_names_the_ends_of_names(self):
        assert self.kinds("llama", target_modules=["q_proj", "self_attn.v_proj"]) == ["q_proj", "v_proj"]
        assert self.kinds("gpt2", target_modules=["c_attn"]) == ["c_attn"]

    def test_a_text_is_an_expression_over_whole_names(self):
        coverage = survey(build_model(), adapter(target_modules=r".*layers\.1\..*_proj"))
        assert len(coverage.layers) == 7
        assert all(".layers.1." in name for name in coverage.layers)

    def test_what_is_excluded_is_left_out_and_said(self):
        coverage = survey(build_model("mixtral"), adapter(exclude_modules=["o_proj", "experts.down_proj"]))
        assert coverage.kinds == ["q_proj", "k_proj", "v_proj", "experts.gate_up_proj"]
        assert coverage.reasons["adapter.exclude_modules"] == ["o_proj", "experts.down_proj"]

    def test_experts_are_left_out_where_no_parameter_is_wanted(self):
        for nothing in (None, []):
            coverage = survey(build_model("mixtral"), adapter(target_parameters=nothing))
            assert coverage.kinds == ATTENTION
            assert coverage.reasons["not named by adapter.target_parameters"] == [
                "experts.gate_up_proj",
                "experts.down_proj",
            ]

    def test_named_parameters_alone(self):
        named = {"target_modules": [], "target_parameters": ["down_proj"]}
        assert self.kinds("mixtral", **named) == ["experts.down_proj"]

    def test_a_list_of_modules_reaches_experts_that_it_names(self):
        assert self.kinds("mixtral", target_modules=["q_proj"]) == ["q_proj"]
        assert self.kinds("mixtral", target_modules=["q_proj", "gate_up_proj"]) == ["q_proj", "experts.gate_up_proj"]

    def test_a_router_that_is_a_linear_layer_is_adapted_where_it_is_named(self):
        assert self.kinds("jetmoe", target_modules=["router.layer"]) == ["layer"]

    def test_a_name_of_layers_does_not_reach_a_vision_tower_unless_it_names_that(self):
        model = build_model("gemma3_with_vision")
        few = survey(model, adapter(target_modules=["q_proj"]))
        assert all(".language_model." in name for name in few.layers)
        (name,) = (name for name, _ in model.named_modules() if "vision_tower" in name and name.endswith("q_proj"))
        for asked in (r".*vision_tower.*q_proj", [name.removeprefix("model.")]):
            assert list(survey(model, adapter(target_modules=asked)).layers) == [name]

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            (
                {"target_modules": ["q_prj"]},
                r"target_modules: 'q_prj' matches no layer .*Did you mean 'q_proj'\?.*k_proj",
            ),
            ({"target_modules": "q_proj"}, r"regular expression over whole names; write names as a list"),
            ({"target_modules": ["lm_head"]}, r"'lm_head' names only what cannot be adapted: lm_head \(output head\)"),
            ({"exclude_modules": ["lora"]}, r"exclude_modules: 'lora' matches no layer"),
            ({"target_parameters": ["down_proj"]}, r"target_parameters: 'down_proj' matches no layer .*There are none"),
            ({"exclude_modules": ".*"}, r"LlamaForCausalLM has no linear layer to adapt.*adapter\.exclude_modules"),
        ],
    )
    def test_a_name_that_changes_nothing_is_refused(self, keys, message):
        with pytest.raises(VariantError, match=message):
            survey(build_model(), adapter(**keys))

    def test_what_peft_refuses_is_refused_by_name(self):
        with pytest.raises(VariantError, match=r"'out_proj' names only what cannot be adapted.*Mamba"):
            survey(build_model("mamba"), adapter(target_modules=["out_proj"]))

    def test_linear_layers_are_those_that_are_modules(self):
        assert list(linear_layers(build_model("mixtral"))) == every_linear_layer(build_model("mixtral"))
