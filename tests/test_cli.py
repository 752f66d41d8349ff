"""The command as a user meets it: light help, plain errors, interruption, the small commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from click.testing import CliRunner
from peft import PeftModel
from transformers import AutoModelForCausalLM

from autolora import quickstart, variants
from autolora.cli import cli
from tests.support.specs import SMALL_SPEC

LIST_IMPORTS = """
import sys
from autolora.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n".join(sys.modules))
"""
COMMAND = [sys.executable, "-c", "from autolora.cli import main; main()"]


def run(*arguments: str):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def spec_file(tmp_path):
    def write(**overrides) -> str:
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump({**SMALL_SPEC, **overrides}))
        return str(path)

    return write


BASELINE = {"learning_rate": 2e-4, "rank": 2, "alpha": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**SMALL_SPEC, "budget": 1, "variants": ["lora", "dora"], "baseline": BASELINE}))
    outcome = run("tune", path, "--dir", folder / "run")
    assert outcome.exit_code == 0, outcome.output
    return folder / "run", outcome.output


def base_model():
    return AutoModelForCausalLM.from_pretrained(quickstart.resolve(SMALL_SPEC["model"]))


def imported_by(arguments: list[str]) -> set[str]:
    output = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTS, *arguments], capture_output=True, text=True, check=True
    ).stdout
    return set(output.split())


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"], ["recommend", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    assert not imported_by(arguments) & {"torch", "transformers", "peft", "optuna", "datasets", "pandas", "numpy"}


def test_variants_are_listed_without_torch():
    assert "torch" not in imported_by(["variants"])
    lines = {line.split()[0]: line for line in run("variants").output.splitlines() if line}
    assert set(variants.names()) < set(lines)
    assert all(len(line) <= 80 for line in lines.values())
    assert re.search(r"2407\.05000 +start +gradients +rank 2r", lines["lora_ga"])


def test_one_variant_is_told_of():
    output = run("variants", "lora_ga").output
    for fact in (
        "LoRA-GA",
        "arXiv 2407.05000",
        "gamma = 16.0",
        "0.32 of plain LoRA's",
        "2 r <= min(m, n), no dropout",
        "rank 2r LoRA",
    ):
        assert fact in output
    assert "did you mean 'lora_ga'" in run("variants", "lora_gaa").output


def test_an_adapter_of_its_own_format_is_cut_to_a_plain_lora_with_the_error_said(finished, tmp_path):
    folder, _ = finished
    out = tmp_path / "plain"
    outcome = run("export", folder, "--variant", "dora", "--to", "lora", "--rank", 2, out)
    assert outcome.exit_code == 0, outcome.output
    *files, said = outcome.output.splitlines()
    assert files == [str(out / "adapter_config.json"), str(out / "adapter_model.safetensors")]
    overall, worst = (float(number) for number in re.findall(r"([\d.]+)(?= over all| in)", said))
    assert 0 < overall <= worst < 1
    model = PeftModel.from_pretrained(base_model(), folder / "best" / "dora")
    plain = PeftModel.from_pretrained(base_model(), out)
    missing = size = 0.0
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "lora_magnitude_vector"):
            before = module.base_layer.weight.clone()
            module.merge()
            change = module.base_layer.weight - before
            size += change.square().sum().item()
            missing += (change - plain.get_base_model().get_submodule(name).get_delta_weight("default")).square().sum()
    assert overall == pytest.approx((missing.item() / size) ** 0.5, rel=0.05)


def test_a_rank_beyond_the_layers_is_cut_to_theirs_and_exact(finished, tmp_path):
    outcome = run("export", finished[0], "--variant", "dora", "--to", "lora", "--rank", 4000, tmp_path)
    assert re.search(r"rank 96; .* 0 over all layers, 0 in the worst", outcome.output)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 96


def test_a_plain_adapter_is_not_cut(finished, tmp_path):
    outcome = run("export", finished[0], "--variant", "lora", "--to", "lora", tmp_path / "plain")
    assert "plain LoRA already, exactly: use --to peft" in outcome.output
    outcome = run("export", finished[0], "--variant", "lora", "--rank", 4, tmp_path / "plain")
    assert "--rank goes with --to lora" in outcome.output


def test_the_end_shows_baseline_and_tuned_and_where_the_adapters_are(finished):
    folder, output = finished
    for word in ("baseline", "tuned", "learning rate", "lora", "dora", str(folder / "best" / "dora"), "Wall time"):
        assert word in output


def test_status_shows_where_the_study_stands(finished):
    output = run("status", finished[0]).output
    assert "1.00/1" in output
    assert "2 trials" in output
    assert "so far: differences to plain LoRA cannot be told from seed noise" in output


def test_best_tells_the_verdict(finished):
    assert "Verdict: differences to plain LoRA cannot be told from seed noise" in run("best", finished[0]).output


def test_best_prints_one_variant_as_json(finished):
    content = json.loads(run("best", finished[0], "--variant", "dora", "--json").output)
    assert list(content) == ["dora"]
    assert content["dora"]["config"]["rank"] in (2, 4)


def test_a_dry_run_plans_and_trains_nothing(spec_file, tmp_path):
    outcome = run("tune", spec_file(budget=8), "--dir", tmp_path / "run", "--dry-run")
    assert outcome.exit_code == 0, outcome.output
    assert re.search(r"layers: adapters on q_proj, .*100\.0% of the weights", outcome.output)
    assert "layers: no adapter on embed_tokens (embedding)" in outcome.output
    for words in ("search 6 + 2 further seeds", "prior's mode", "of memory", "of disk"):
        assert words in outcome.output
    assert not (tmp_path / "run").exists()


def test_prior_shows_curvature_learning_rate_interval_and_cost(spec_file):
    lines = run("prior", spec_file(variants=["lora", "pissa"])).output.splitlines()
    head = next(line for line in lines if line.startswith("variant"))
    row = next(line for line in lines if line.startswith("pissa"))
    assert " ".join(head.split()) == "variant curvature learning rate central 90% batch rank alpha cost"
    curvature, rate, low, _, high, *_, cost = row.split()[1:]
    assert float(curvature) > 1
    assert float(low) < float(rate) < float(high)
    assert float(cost) == pytest.approx(32 / 72 / 2, abs=1e-3)


def test_prior_draws_pictures(spec_file, tmp_path):
    output = run("prior", spec_file(variants=["lora", "pissa"]), "--plots", tmp_path / "plots").output
    written = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert written == ["curvature.png", "prior.png"]
    assert all(name in output for name in written)
    assert all((tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in written)


def test_pictures_without_matplotlib_say_what_to_install(spec_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = run("prior", spec_file(variants=["lora"]), "--plots", tmp_path / "plots")
    assert outcome.exit_code == 2
    assert "pip install 'autolora-tune[report]'" in outcome.output


def test_prior_without_one_says_so(spec_file):
    assert "anywhere in the range" in run("prior", spec_file(prior=None)).output


BAD_INPUT = {
    "unknown key": ({"modle": "x"}, "modle: unknown key; did you mean 'model'?"),
    "model path": ({"model": "./no/such/model"}, "no such model directory: no/such/model"),
    "data file": ({"data": "./missing.jsonl"}, "no such file: missing.jsonl"),
    "variant": ({"variants": ["lorra"]}, "did you mean 'lora'?"),
    "inverted range": ({"space": {"learning_rate": [0.1, 0.001]}}, "low must be below high"),
    "rank too large": ({"space": {"rank": [512]}}, "rank 512"),
    "hub": ({"model": "nobody/nothing"}, "cannot load"),
    "metric": ({"metric": "bleu"}, "metric: 'bleu' is unknown"),
    "confirmation": ({"budget": 2, "confirm": 5}, "confirm=5 leaves no full run of budget=2"),
}


@pytest.mark.parametrize("case", list(BAD_INPUT))
def test_bad_input_is_one_plain_message(spec_file, tmp_path, case):
    overrides, message = BAD_INPUT[case]
    outcome = run("tune", spec_file(**overrides), "--dir", tmp_path / "run")
    assert outcome.exit_code == 2
    assert message in outcome.output
    assert "Traceback" not in outcome.output


BAD_DATA = {
    "empty": ("", "no rows"),
    "not json": ('{"prompt": "a", "completion": "b"}\n{oops\n', "row 2"),
    "column": ('{"prompt": "a", "completion": "b"}\n', "answer"),
}


@pytest.mark.parametrize("case", list(BAD_DATA))
def test_bad_data_is_named_by_file_and_row(spec_file, tmp_path, case):
    content, message = BAD_DATA[case]
    (tmp_path / "bad.jsonl").write_text(content)
    columns = {"prompt": "prompt", "completion": "answer"} if case == "column" else {}
    outcome = run("tune", spec_file(data={"train": str(tmp_path / "bad.jsonl"), **columns}), "--dir", tmp_path / "run")
    assert outcome.exit_code == 2
    assert message in outcome.output
    assert "bad.jsonl" in outcome.output


def test_a_model_without_linear_layers_is_refused(spec_file, tmp_path, monkeypatch, base):
    from torch import nn

    from autolora import bases

    class Wordless(nn.Module):
        config = base.model.config

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(4, 4)

    monkeypatch.setattr(bases, "load", lambda spec: bases.Base(Wordless(), base.tokenizer, base.device, base.dtype))
    outcome = run("tune", spec_file(), "--dir", tmp_path / "run")
    assert outcome.exit_code == 2
    assert "no linear layer" in outcome.output


def test_flags_and_settings_say_what_a_file_says(tmp_path):
    arguments = ["tune", "--model", "builtin:quickstart", "--data", "builtin:quickstart/train.jsonl", "--budget", "1"]
    for setting in ("training.examples=16", "training.max_length=64", "data.eval_size=8", "space.batch_size=[8]"):
        arguments += ["--set", setting]
    arguments += ["--set", "space.rank=[2]"]
    outcome = run(*arguments, "--dir", tmp_path / "run")
    assert outcome.exit_code == 0, outcome.output
    recorded = yaml.safe_load((tmp_path / "run" / "spec.yaml").read_text())
    assert recorded["space"]["rank"] == [2]
    assert recorded["training"]["examples"] == 16


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(spec_file, tmp_path):
    """A real process and a real signal, once it has begun to train."""
    folder = tmp_path / "run"
    training = {**SMALL_SPEC["training"], "examples": 2000, "checkpoint_seconds": 0}
    arguments = ["tune", spec_file(training=training), "--dir", str(folder)]
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("trials/0/step-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Completed work is saved." in errors
    assert f"autolora resume {folder}" in errors
    assert list((folder / "trials" / "0").glob("step-*"))
    assert "Traceback" not in errors


def test_sigterm_while_it_loads_ends_with_130_and_a_line(spec_file, tmp_path):
    """The signal arrives when the model's configuration is opened."""
    code = (
        "import os, signal, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('config.json'):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.addaudithook(hook)\n"
        "from autolora.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "tune", spec_file(), "--dir", str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 130
    assert "Stopped. Completed work is saved." in ended.stderr
    assert "Traceback" not in ended.stderr
    assert run("tune", spec_file(budget=1), "--dir", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize(
    "both", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["stdout", "stdout and stderr"]
)
def test_a_closed_pipe_ends_with_141_and_the_study_goes_on_later(spec_file, tmp_path, both):
    spec = spec_file(budget=1)
    process = subprocess.Popen(
        [*COMMAND, "tune", spec, "--dir", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if both else subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline()
    process.stdout.close()
    errors = "" if both else process.stderr.read()
    assert process.wait(timeout=120) == 141
    assert both or errors.splitlines() == ["error: nobody reads the output any more. Completed work is saved."]
    assert run("tune", spec, "--dir", tmp_path / "run").exit_code == 0


@pytest.mark.slow
def test_closed_standard_streams_do_not_get_into_the_study(spec_file, tmp_path):
    spec = spec_file(budget=1)
    command = [*COMMAND, "tune", spec, "--dir", str(tmp_path / "run")]
    ended = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], timeout=120)
    assert ended.returncode == 0
    assert "1.00/1" in run("status", tmp_path / "run").output


def test_a_study_in_which_nothing_could_be_tuned_ends_with_3_and_says_why(spec_file, tmp_path):
    spec = spec_file(space={"learning_rate": [30, 100], "batch_size": 4, "rank": 2}, prior="laws")
    outcome = run("tune", spec, "--dir", tmp_path / "run")
    assert outcome.exit_code == 3, outcome.output
    said = outcome.output[outcome.output.index("error: nothing was tuned in") :]
    assert re.search(r"lora: \d+ trials \(\d+ diverged.*\); trial \d+: .+ at step \d+", said)
    assert "lower the range of space.learning_rate" in said
    assert run("tune", spec, "--dir", tmp_path / "run").exit_code == 3


def test_help_states_the_codes_that_tuning_ends_with():
    words = run("tune", "--help").output
    assert all(re.search(rf"\b{code}\b", words) for code in (0, 2, 3, 130, 141))


def test_a_warning_of_ours_is_one_plain_line():
    code = (
        "import warnings, sys; sys.argv = ['autolora', 'variants']; from autolora import cli; cli.cli = lambda: "
        "warnings.warn_explicit('mind this', UserWarning, cli.__file__, 1); cli.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert run.stderr == "warning: mind this\n"
