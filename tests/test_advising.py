"""`autolora recommend` and `autolora.recommend`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from transformers import LlamaConfig, PretrainedConfig

import autolora
from autolora.cli import cli
from autolora.errors import AutoloraError
from autolora.priors.advice import AdviceError
from tests.support.checkpoints import SHAPE
from tests.support.tiny_models import OTHERS

SETTING = ["--rank", "8", "--alpha", "16", "--batch-size", "64", "--examples", "20000"]


def run(*arguments: object):
    return CliRunner().invoke(cli, ["recommend", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    """A directory that holds config.json and nothing else."""
    LlamaConfig(**SHAPE, vocab_size=257, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    return tmp_path


def test_the_answer_comes_first_and_the_setting_with_it(folder):
    outcome = run(folder, *SETTING)
    assert outcome.exit_code == 0, outcome.output
    advice = autolora.recommend(folder, rank=8, alpha=16, batch_size=64, examples=20_000)
    rates = f"{advice.learning_rate:.1e} (90%: {advice.low:.1e} to {advice.high:.1e})"
    assert outcome.output.splitlines()[0] == f"learning rate {rates}"
    evidence = ("Evidence on small models:", "Hidden size 32 is")
    for words in ("16 (s = 2)", "20,000", *evidence, "trained, with gradients", "--dry-run"):
        assert words in outcome.output
    assert "assumed" not in outcome.output


def test_what_is_assumed_is_marked(folder):
    lines = run(folder).output.splitlines()
    assert {line.split()[0] for line in lines if "assumed:" in line} == {"rank", "alpha", "batch", "examples"}


def test_json_has_the_names_of_python(folder):
    content = json.loads(run(folder, *SETTING, "--json").output)
    advice = autolora.recommend(folder, rank=8, alpha=16, batch_size=64, examples=20_000)
    assert content == json.loads(json.dumps(advice.as_dict()))
    assert {"learning_rate", "low", "high", "reason", "memory", "outside"} <= set(content) == set(vars(advice))
    assert content["memory"]["trained"] == advice.memory.trained


def test_a_configuration_and_its_width_give_the_same_rate(folder):
    by_model, by_object = autolora.recommend(folder), autolora.recommend(LlamaConfig.from_pretrained(folder))
    by_numbers = autolora.recommend(hidden_size=32, rank=by_model.rank)
    assert by_model.learning_rate == by_object.learning_rate == by_numbers.learning_rate
    assert by_numbers.memory is None
    assert by_object.memory == by_model.memory


def test_numbers_alone_load_neither_torch_nor_transformers():
    program = (
        "import sys, autolora; autolora.recommend(hidden_size=4096, variant='lora', rank=16, alpha=32, batch_size=128, "
        "examples=100_000); print(*({'torch', 'transformers', 'peft', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_command_takes_a_width_in_place_of_a_model():
    outcome = run("--hidden-size", 4096, *SETTING)
    assert outcome.exit_code == 0, outcome.output
    assert "4,096" in outcome.output
    assert "Memory" not in outcome.output


def test_an_assumed_rank_fits_the_model(folder):
    assert autolora.recommend(folder, variant="lora_ga").rank == 8  # 2 r <= min(m, n)


def test_a_variant_that_cannot_be_trained_on_the_model_is_advised_on_and_that_is_said():
    advice = autolora.recommend(OTHERS["mixtral"](), variant="dora")
    assert advice.memory is None
    assert "`autolora tune` would refuse this: dora cannot adapt experts" in advice.notes[0]


def test_a_model_that_names_no_width_takes_the_one_given():
    config = PretrainedConfig()
    assert "hidden_size" in autolora.recommend(config).assumed
    assert "hidden_size" not in autolora.recommend(config, hidden_size=32).assumed


def test_a_width_that_is_not_the_models_is_refused():
    config = LlamaConfig(**SHAPE)
    assert autolora.recommend(config, hidden_size=32).hidden_size == 32
    with pytest.raises(AdviceError, match=r"hidden_size=64, but that of .* is 32: leave hidden_size out"):
        autolora.recommend(config, hidden_size=64)


BAD = {
    "neither": ([], "give model or hidden_size"),
    "variant": (["--hidden-size", 64, "--variant", "lorra"], "did you mean 'lora'?"),
    "rank": (["--hidden-size", 64, "--rank", 0], "rank=0 is not allowed: give a whole number of at least 1"),
    "alpha": (["--hidden-size", 64, "--alpha=-1"], "alpha=-1.0 is not allowed: give a number above 0"),
    "hub": (["nobody/nothing"], "cannot read the configuration in the hub id 'nobody/nothing'"),
    "layers": (["builtin:quickstart", "--rank", 97], "rank=97"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_plain_message(case):
    arguments, message = BAD[case]
    outcome = run(*arguments)
    assert outcome.exit_code == 2
    assert message in outcome.output
    assert "Traceback" not in outcome.output


def test_a_rank_that_no_layer_has_is_refused_with_the_layer(folder):
    with pytest.raises(AutoloraError, match=r"rank 32 does not fit layer .*k_proj"):
        autolora.recommend(folder, rank=32)
