"""What is filled into a command line, how it is quoted, and what is said of a line before anything runs."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest

from autolora.space import Space
from autolora.trainers.command.errors import CommandError
from tests.support.commands import CONFIG, command_trainer, job

SHOWS = "import sys, json, os; json.dump(sys.argv[1:], open(os.environ['SHOWN'], 'w'))"
"""Writes its arguments to a file."""


def shown(folder: Path, arguments: str, monkeypatch, segment=None, **settings) -> list[str]:
    """The arguments that a command gets."""
    monkeypatch.setenv("SHOWN", str(folder / "shown.json"))
    program = folder / "shows.py"
    program.write_text(SHOWS + "\nopen(os.environ['AUTOLORA_REPORT'], 'a').write('{\"eval_loss\": 2}')")
    command = f"{sys.executable} {program} {arguments}"
    command_trainer(folder / "run", command, **settings).run(segment or job())
    return json.loads((folder / "shown.json").read_text())


def test_every_field_of_a_trial_is_filled_in(tmp_path, monkeypatch):
    text = (
        "{learning_rate} {batch_size} {rank} {alpha} {trial} {variant} {rung} {stop} {stop_examples} {stop_steps} "
        "{steps} {examples} {start}"
    )
    segment = job(trial=7, rung=1, config=CONFIG.replaced(learning_rate=3e-5))
    found = shown(tmp_path, text, monkeypatch, segment, examples=70)
    assert found == ["3e-05", "8", "4", "8", "7", "lora", "1", repr(1 / 3), "24", "3", "9", "70", "0"]


def test_searched_fields_and_a_variant_s_options_are_filled_in(tmp_path, monkeypatch):
    config = CONFIG.replaced(dropout=0.1, warmup_ratio=0.03, weight_decay=0.01, options={"ratio": 16})
    space = {
        **{"rank": 4, "learning_rate": [1e-3, 3e-1], "dropout": [0, 0.1], "warmup_ratio": [0.03, 0.1]},
        **{"weight_decay": [0, 0.01], "options": {"lora_plus.ratio": [4, 16]}},
    }
    segment = job(variant="lora_plus", config=config)
    text = "{dropout} {warmup_ratio} {weight_decay} {ratio} {variant}"
    found = shown(tmp_path, text, monkeypatch, segment, variants=["lora_plus"], space=space)
    assert found == ["0.1", "0.03", "0.01", "16", "lora_plus"]


@pytest.mark.parametrize("name", ["with space", "it's", 'quo"te', "$HOME `id`", "a\nb", "-x; exit 1 #", "ünï*?[a]"])
def test_a_path_arrives_as_it_is_whatever_its_name(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    found = shown(tmp_path, "{folder}", monkeypatch, checkpoints=str(tmp_path / name))
    assert found == [str(tmp_path / name / "trials" / "0" / "work")]


ODD = ["with space", "it's", 'quo"te', "$HOME `id`", "a\nb", "-x; exit 1 #", "a\\b", "*"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('"{folder}"', "inside quotes"),
        ("'{folder}'", "inside quotes"),
        ('--out="{folder}/x"', "inside quotes"),
        ("sh -c 'echo {folder}'", "inside quotes"),
        ('sh -c "echo \\"a\\" {folder}"', "inside quotes"),
        ("$'a\\' {folder}'", "inside quotes"),
        ("`echo {folder}`", "inside backticks"),
        ('"`echo {folder}`"', "inside backticks"),
        ("\\{folder}", "after a backslash"),
        ("a # don't {folder}", "in a comment"),
        ("<<'END' cat\n{folder}\nEND", "in a here-document"),
    ],
)
def test_a_value_that_needs_quotes_inside_quotes_is_refused(tmp_path, name, text, place):
    (tmp_path / name).mkdir()
    trainer = command_trainer(tmp_path / "run", f"echo {text}", checkpoints=str(tmp_path / name))
    for tried in (lambda: trainer.check(["lora"], Space(rank=4), {}), lambda: trainer.run(job())):
        with pytest.raises(
            CommandError, match=rf"trainer\.command: \{{folder\}} is {place}; autolora quotes it itself"
        ):
            tried()


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    "text",
    ["'it'{folder}", '"a b"{folder}', '"$(printf %s {folder})"', "\\\\{folder}", "a#'b'{folder}", "$(echo a){folder}"],
)
def test_behind_quotes_that_are_closed_a_value_is_quoted(tmp_path, monkeypatch, name, text):
    (tmp_path / name).mkdir()
    found = shown(tmp_path, text, monkeypatch, checkpoints=str(tmp_path / name))
    assert found[-1].endswith(str(tmp_path / name / "trials" / "0" / "work"))


def test_numbers_and_plain_paths_may_stand_inside_quotes(tmp_path, monkeypatch):
    text = "\"--lr={learning_rate} {rank}\" '{variant}' \"{folder}\" $(sh -c 'echo {alpha}')"
    found = shown(tmp_path, text, monkeypatch)
    assert found == ["--lr=0.05 4", "lora", str(tmp_path / "run" / "trials" / "0" / "work"), "8"]


def test_run_directory_and_working_directory_may_have_any_name(tmp_path):
    folder = tmp_path / "a b\n$c'd\"e"
    folder.mkdir()
    command = """echo '{{"eval_loss": 2}}' >> "$AUTOLORA_REPORT"; touch here; cat "$AUTOLORA_TRIAL" > there"""
    command_trainer(folder, command, trainer={"cwd": str(folder)}).run(job())
    assert (folder / "here").exists()
    told = json.loads((folder / "there").read_text())
    assert told["folder"] == str(folder / "trials" / "0" / "work")


def test_double_braces_are_braces(tmp_path, monkeypatch):
    assert shown(tmp_path, "'{{rank}}' {{}} '${{HOME}}' {rank}{rank}", monkeypatch)[0::3] == ["{rank}", "44"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{learning_rat}", r"trainer\.command: \{learning_rat\} is unknown; did you mean \{learning_rate\}\?"),
        ("{zzz}", r"trainer\.command: \{zzz\} is unknown; known here: \{learning_rate\}"),
        ("{dropout}", r"\{dropout\} is unknown"),
        ("{learning_rate:.2f}", r"\{learning_rate:\.2f\} is not a placeholder.*for braces of its own"),
        ("{learning_rate!r}", r"\{learning_rate!r\} is not a placeholder"),
        ("{rank.real}", r"\{rank\.real\} is not a placeholder"),
        ("{}", r"\{\} is not a placeholder"),
        ("{0}", r"\{0\} is not a placeholder"),
        ("{rank", "for braces of its own"),
        ("rank}", "for braces of its own"),
        ("awk '{print $1}'", r"\{print \$1\} is not a placeholder.*for braces of its own"),
    ],
)
def test_an_unknown_placeholder_is_refused_before_anything_runs(tmp_path, text, said):
    trainer = command_trainer(tmp_path, f"train {text}")
    with pytest.raises(CommandError, match=said):
        trainer.check(["lora"], Space(rank=4), {})


def test_a_placeholder_of_a_metric_file_is_checked_too(tmp_path):
    trainer = command_trainer(tmp_path, "train {stop}", trainer={"metric_file": "{foldr}/metrics.json"})
    with pytest.raises(CommandError, match=r"trainer\.metric_file: \{foldr\} is unknown; did you mean \{folder\}"):
        trainer.check(["lora"], Space(rank=4), {})


def test_an_option_that_another_variant_lacks_is_refused(tmp_path):
    variants = ["lora", "lora_plus"]
    trainer = command_trainer(tmp_path, "train {ratio} {variant} {stop}", variants=variants)
    space = Space(rank=4, options={"lora_plus.ratio": [4, 16]})
    with pytest.raises(CommandError, match=r"\{ratio\} has no value for variant lora:"):
        trainer.check(variants, space, {})


ALL = "{learning_rate} {batch_size} {rank} {alpha} {stop_examples}"


@pytest.mark.parametrize(
    ("command", "variants", "space", "said"),
    [
        (ALL, ["lora"], {}, []),
        (ALL.replace("{rank}", ""), ["lora"], {"rank": 4}, []),
        (ALL.replace("{rank}", ""), ["lora"], {}, ["rank is searched and not in trainer.command"]),
        (ALL.replace("{rank} {alpha}", ""), ["lora"], {}, ["rank, alpha are searched"]),
        (ALL.replace("{alpha}", ""), ["lora"], {"rank": 4}, []),
        (ALL.replace("{alpha}", ""), ["lora"], {"alpha": 16}, []),
        (ALL, ["lora"], {"dropout": [0, 0.1]}, ["dropout is searched"]),
        (ALL, ["lora"], {"dropout": 0.1}, []),
        (ALL, ["lora", "dora"], {}, ["the variants are lora, dora, and {variant} is not in"]),
        (f"{ALL} {{variant}}", ["lora", "dora"], {}, []),
        (f"{ALL} {{variant}}", ["lora_plus"], {"options": {"lora_plus.ratio": [4, 16]}}, ["ratio is searched"]),
        (ALL.replace("{stop_examples}", ""), ["lora"], {}, ["neither {stop} nor {stop_examples}"]),
        (ALL.replace("{stop_examples}", "{stop}"), ["lora"], {}, []),
        ("train --trial $AUTOLORA_TRIAL", ["lora", "dora"], {}, []),
    ],
)
def test_what_a_command_line_leaves_out_is_warned_of(tmp_path, command, variants, space, said):
    trainer = command_trainer(tmp_path, command, variants=variants)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.check(variants, Space(**space), {})
    assert len(caught) == len(said)
    assert all(each in str(one.message) for each, one in zip(said, caught, strict=True))


@pytest.mark.parametrize("reads", ["trial = autolora.current_trial()", "open(os.environ['AUTOLORA_TRIAL'])", "pass"])
def test_a_script_that_reads_its_trial_need_not_be_told_by_arguments(tmp_path, reads):
    (tmp_path / "my train.py").write_text(reads)
    trainer = command_trainer(tmp_path, "python 'my train.py'", trainer={"cwd": str(tmp_path)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.check(["lora", "dora"], Space(), {})
    assert len(caught) == (3 if reads == "pass" else 0)


def test_a_metric_file_that_trials_share_is_warned_of(tmp_path):
    trainer = command_trainer(tmp_path, f"train {ALL}", trainer={"metric_file": "metrics.json"})
    with pytest.warns(UserWarning, match=r"neither \{folder\} nor \{trial\}"):
        trainer.check(["lora"], Space(), {})


def test_without_early_stop_nothing_is_said_of_stops(tmp_path):
    trainer = command_trainer(tmp_path, "{learning_rate} {batch_size} {rank} {alpha}", trainer={"early_stop": False})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.check(["lora"], Space(), {})


FIELDS = {"adam_beta2": [0.95, 0.999], "packed": [True, False], "layers": [["q_proj", "v_proj"], "all-linear"]}


def test_fields_of_the_command_s_own_are_filled_in_and_told(tmp_path, monkeypatch):
    config = CONFIG.replaced(fields={"adam_beta2": 0.95, "packed": True, "layers": ["q_proj", "v_proj"]})
    text = "{adam_beta2} {packed} {layers}"
    space = {"fields": FIELDS}
    found = shown(tmp_path, text, monkeypatch, job(config=config), space=space)
    assert found == ["0.95", "true", "q_proj,v_proj"]
    [told] = (tmp_path / "run" / "trials" / "0").glob("*.json")
    expected = {"adam_beta2": 0.95, "packed": True, "layers": ["q_proj", "v_proj"]}
    assert expected.items() <= json.loads(told.read_text())["config"].items()


@pytest.mark.parametrize(
    ("fields", "text", "said"),
    [
        ({"adam_beta2": [0.95]}, "{adam_beta1}", "{adam_beta1} is unknown; did you mean {adam_beta2}"),
        ({"seed": [1, 2]}, "", "space.fields.seed: a trial has a seed of its own"),
        (
            {"optim": ["a", "b"], "ratio": {"choices": [4, 16], "when": {"optim": "a"}}},
            "{ratio}",
            "{ratio} has no value where its condition is not met: read it from",
        ),
    ],
)
def test_fields_that_cannot_be_filled_in_are_refused(tmp_path, fields, text, said):
    trainer = command_trainer(tmp_path, f"echo {{learning_rate}} {text}", space={"fields": fields})
    with pytest.raises(CommandError, match=said):
        trainer.check(["lora"], trainer.spec.space, {})


def test_a_field_that_is_not_in_the_command_line_is_warned_of(tmp_path):
    trainer = command_trainer(
        tmp_path, "echo {learning_rate} {stop}", space={"batch_size": 4, "rank": 4, "fields": FIELDS}
    )
    with pytest.warns(
        UserWarning, match="adam_beta2, layers, packed are searched and not in trainer.command"
    ) as warned:
        trainer.check(["lora"], trainer.spec.space, {})
    assert len(warned) >= 1
