"""What the exported adapter of every registered variant must be. A new variant gets these tests by registering."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.numpy import load_file

from autolora.adapters.export import CONFIG, NATIVE, OWN, WEIGHTS, config_file
from autolora.adapters.targets import linear_layers
from autolora.variants import get, names
from tests.support.variant_settings import HORIZON, RANK, alpha_of, make_optimizer

RELOAD = """
import sys, torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
folder = sys.argv[1]
tokens = torch.load(f"{folder}/tokens.pt")
for name in sys.argv[2:]:
    base = AutoModelForCausalLM.from_pretrained(f"{folder}/base")
    model = load(base, f"{folder}/{name}").eval()
    with torch.no_grad():
        torch.save(model(input_ids=tokens).logits, f"{folder}/{name}/reloaded.pt")
"""
PLAIN = "from peft import PeftModel; load = PeftModel.from_pretrained"
WITHOUT_AUTOLORA = 'assert not any(module.startswith("autolora") for module in sys.modules)'
OWN_LOADER = "from autolora import load_adapter as load"


@pytest.fixture(scope="module")
def exported(tmp_path_factory, build, tokens, train, logits):
    """Every variant trained, exported and reloaded: the folder, the trained logits by variant, those of the base."""
    folder = tmp_path_factory.mktemp("exported")
    build().save_pretrained(folder / "base")
    torch.save(tokens, folder / "tokens.pt")
    expected = {}
    for name in names():
        base = build()
        base.name_or_path = str(folder / "base")
        batch = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
        model = get(name).attach(base, RANK, alpha_of(name, RANK), batches=[batch], horizon=HORIZON)
        train(model, make_optimizer(name, model), 10)
        get(name).export(model, folder / name)
        expected[name] = logits(model)
    own = [name for name in names() if get(name).export_form == OWN]
    plain = [name for name in names() if name not in own]
    for script, chosen in ((f"{PLAIN}{RELOAD}{WITHOUT_AUTOLORA}", plain), (f"{OWN_LOADER}{RELOAD}", own)):
        subprocess.run([sys.executable, "-c", script, str(folder), *chosen], check=True)
    return folder, expected, logits(build())


def read_without_peft(base, folder):
    """The base with a plain LoRA added to it: W + alpha / r B A, as any tool reads it that knows no more of LoRA."""
    config = json.loads((folder / CONFIG).read_text())
    factors = load_file(folder / WEIGHTS)
    for name in {key.partition(".lora_")[0] for key in factors}:
        a, b = (factors[f"{name}.lora_{side}.weight"] for side in "AB")
        change = torch.from_numpy(config["lora_alpha"] / config["r"] * b @ a)
        weight = base.get_submodule(name.removeprefix("base_model.model.")).weight
        weight.data += change.T if config["fan_in_fan_out"] else change
    return base


@pytest.mark.parametrize("name", [name for name in names() if get(name).export_form not in (NATIVE, OWN)])
class TestPlainExport:
    """What says that it leaves as a plain LoRA is one to every reader."""

    def test_a_reader_without_peft_gives_the_same_logits(self, name, exported, build, logits, difference):
        folder, expected, untrained = exported
        assert difference(expected[name], untrained) > 0.01, "training must move the weights, or this proves nothing"
        assert difference(logits(read_without_peft(build(), folder / name)), expected[name]) < 1e-4

    def test_so_it_does_where_weights_are_transposed(self, name, attach, build, train, logits, difference, tmp_path):
        if get(name).linear_only:
            pytest.skip("it refuses such layers")
        model = attach(name, build("gpt2"))
        train(model, make_optimizer(name, model), 8)
        get(name).export(model, tmp_path)
        assert difference(logits(read_without_peft(build("gpt2"), tmp_path)), logits(model)) < 1e-4

    def test_it_has_one_rank_one_alpha_and_no_flag(self, name, exported):
        folder, _, _ = exported
        config = json.loads((folder / name / CONFIG).read_text())
        assert config["peft_type"] == "LORA"
        flags = ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "layer_replication")
        assert not any(config.get(flag) for flag in flags)
        assert type(config["lora_alpha"]) in (int, float)
        factors = load_file(folder / name / WEIGHTS)
        assert {len(a) for key, a in factors.items() if ".lora_A." in key} == {config["r"]}
        assert {b.shape[1] for key, b in factors.items() if ".lora_B." in key} == {config["r"]}


@pytest.mark.parametrize("name", names())
class TestExport:
    def test_another_process_gives_the_same_logits_on_the_unmodified_base(self, name, exported, difference):
        """With plain PEFT, or where the format is autolora's own, its one function and exactly."""
        folder, expected, untrained = exported
        assert difference(expected[name], untrained) > 0.01, "training must move the weights, or this proves nothing"
        tolerance = 0 if get(name).export_form == OWN else 1e-4
        assert difference(torch.load(folder / name / "reloaded.pt"), expected[name]) <= tolerance

    def test_configuration_is_plain(self, name, exported, build):
        folder, _, _ = exported
        form = get(name).export_form
        config = json.loads((folder / name / config_file(form)).read_text())
        assert config.get("init_lora_weights", True) is True
        assert config["base_model_name_or_path"] == str(folder / "base")
        if form in (NATIVE, OWN):
            return
        expected = get(name).exported_rank(RANK, linear_layers(build()))
        assert expected is not None or get(name).shares_ranks  # there the largest decides
        assert config["r"] == (expected or config["r"])

    def test_export_replaces_an_older_one_and_leaves_no_litter(self, name, attach, build, tmp_path, train, logits):
        folder = tmp_path / "adapter"
        folder.mkdir()
        (folder / "notes.txt").write_text("the user's own")
        model = attach(name, build())
        get(name).export(model, folder)
        first = (folder / "adapter_model.safetensors").read_bytes()
        before = logits(model)
        train(model, make_optimizer(name, model), 1)
        get(name).export(model, str(folder))
        assert (folder / "adapter_model.safetensors").read_bytes() != first
        expected = {config_file(get(name).export_form), "adapter_model.safetensors", "notes.txt"}
        assert {p.name for p in folder.iterdir()} == expected
        assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
        assert not torch.equal(logits(model), before)

    def test_exporting_leaves_the_model_trainable(self, name, attach, build, tmp_path, train):
        one, other = attach(name, build()), attach(name, build())
        get(name).export(one, tmp_path / "adapter")
        assert train(one, make_optimizer(name, one), 2) == train(other, make_optimizer(name, other), 2)
