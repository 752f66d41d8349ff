"""One schema for files, flags and Python; every mistake is one clear line before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import yaml

from autolora import spec as specs
from autolora import variants
from autolora.errors import AutoloraError
from autolora.space import Range, Space
from autolora.spec import Spec, SpecError
from autolora.study.directory import read_recorded
from autolora.variants import Variant

TRAIN = "builtin:quickstart/train.jsonl"
BASE = {"model": "builtin:quickstart", "data": TRAIN}
FULL = """
model: builtin:quickstart
data: {train: "builtin:quickstart/train.jsonl", eval: "builtin:quickstart/test.jsonl", eval_size: 24}
variants: [lora, dora, pissa]
space: {learning_rate: [1e-5, 3e-2], batch_size: [8, 16], rank: [4, 8], alpha: {low: 8, high: 64}}
training: {examples: 800, max_length: 256, schedule: cosine, warmup_ratio: 0.03}
metric: token_accuracy
budget: 6
baseline: {learning_rate: 2.0e-4, rank: 8, alpha: 16}
seed: 3
"""


def load(**overrides) -> Spec:
    return specs.load(BASE, **overrides)


def message(**overrides) -> str:
    """What is said to be wrong; one line."""
    with pytest.raises(SpecError) as error:
        load(**overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def full(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(FULL)
    return path


def test_model_and_data_are_enough():
    spec = load()
    assert (spec.variants, spec.budget, spec.metric.name, spec.space) == (["lora"], 8.0, "eval_loss", Space())


def test_a_file_a_mapping_and_flags_say_the_same(full):
    python = specs.load(
        model="builtin:quickstart",
        data={"train": TRAIN, "eval": "builtin:quickstart/test.jsonl", "eval_size": 24},
        variants=["lora", "dora", "pissa"],
        space=Space(learning_rate=(1e-5, 3e-2), batch_size=[8, 16], rank=[4, 8], alpha=(8, 64)),
        training={"examples": 800, "max_length": 256},
        metric={"name": "token_accuracy"},
        budget=6,
        baseline={"learning_rate": 2e-4, "rank": 8, "alpha": 16},
        seed=3,
    )
    flags = specs.load(
        **BASE,
        variants="lora, dora,pissa",
        budget=6.0,
        metric="token_accuracy",
        seed=3,
        **{
            "data.eval": "builtin:quickstart/test.jsonl",
            "data.eval_size": 24,
            "space.learning_rate": ["1e-5", "3e-2"],
            "space.batch_size": [8, 16],
            "space.rank": [4, 8],
            "space.alpha": {"low": 8, "high": 64},
            "training.examples": 800,
            "training.max_length": 256,
            "baseline.learning_rate": "2e-4",
            "baseline.rank": 8,
            "baseline.alpha": 16,
        },
    )
    assert specs.load(full) == specs.load(str(full)) == specs.load(yaml.safe_load(FULL)) == python == flags


def test_yaml_reads_1e_3_as_text_and_it_is_taken_as_a_number():
    raw = yaml.safe_load("{learning_rate: [1e-5, 1e-3], alpha: 1e1}")
    assert raw["learning_rate"] == ["1e-5", "1e-3"]
    space = load(space=raw).space
    assert (space.learning_rate, space.alpha) == (Range(low=1e-5, high=1e-3), 10.0)


@pytest.mark.parametrize("rate", ["1e-3", 1e-3])
def test_a_pinned_rate_may_be_text(rate):
    assert load(**{"space.learning_rate": rate}).space.learning_rate == 1e-3


def test_overrides_win_over_the_file(full):
    spec = specs.load(full, budget=9, **{"training.examples": 100, "space.rank": 2})
    assert (spec.budget, spec.training.examples, spec.space.rank) == (9.0, 100, [2])
    assert spec.training.max_length == 256


def test_overrides_leave_the_mapping_alone():
    raw = {**BASE, "training": {"examples": 800}}
    specs.load(raw, **{"training.examples": 100, "data.eval_size": 8})
    assert raw == {**BASE, "training": {"examples": 800}}


def test_an_override_reaches_into_a_bare_value():
    spec = load(metric="my.metrics:score", **{"data.eval_size": 8, "metric.direction": "maximize"})
    assert (spec.data.train, spec.data.eval_size) == (TRAIN, 8)
    assert (spec.metric.name, spec.metric.resolved_direction) == ("my.metrics:score", "maximize")


def test_an_override_reaches_into_a_space_object():
    assert load(space=Space(rank=[4], alpha=[4, 8]), **{"space.batch_size": 8}).space == Space(
        rank=[4], alpha=[4, 8], batch_size=[8]
    )


@pytest.mark.parametrize(
    "text", ["{lora_ga.gamma: [4, 16]}", "{lora_ga: {gamma: [4, 16]}}", "{lora_ga: {gamma: ['4', 1.6e+1]}}"]
)
def test_options_are_read_from_yaml_with_dots_or_nested(text):
    space = load(variants="lora_ga", space=yaml.safe_load(f"options: {text}")).space
    assert space.options == {"lora_ga.gamma": [4, 16]}


@pytest.mark.parametrize("given", [None, {}, {"lora_ga.gamma": 64}, {"lora_ga": {"gamma": [4, 64]}}])
def test_an_override_opens_an_option_however_the_file_has_it(given):
    space = {} if given is None else {"options": given}
    spec = load(variants="lora_ga", space=space, **{"space.options.lora_ga.gamma": [4, 16]})
    assert spec.space.options == {"lora_ga.gamma": [4, 16]}


def test_an_override_of_one_option_leaves_the_others():
    space = Space(options={"lora_ga.gamma": [4, 16], "lora_plus.ratio": 4})
    spec = load(variants="lora_ga,lora_plus", space=space, **{"space.options.lora_ga.gamma": 8})
    assert spec.space.options == {"lora_ga.gamma": [8], "lora_plus.ratio": [4]}


def test_an_override_inside_a_value_without_keys_is_refused():
    assert "model.revision: cannot be set inside 'builtin:quickstart'" in message(**{"model.revision": "main"})


@pytest.mark.parametrize(
    ("metric", "direction"), [("eval_loss", "minimize"), ("token_accuracy", "maximize"), ("exact_match", "maximize")]
)
def test_built_in_metrics_know_their_direction(metric, direction):
    assert load(metric=metric).metric.resolved_direction == direction


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("budgett", "budget"),
        ("varients", "variants"),
        ("space.ranks", "rank"),
        ("space.learningrate", "learning_rate"),
        ("training.exampels", "examples"),
        ("data.evalsize", "eval_size"),
        ("metric.directon", "direction"),
    ],
)
def test_unknown_keys_are_named_with_a_suggestion(key, suggestion):
    assert message(**{key: 1}) == f"{key}: unknown key; did you mean {suggestion!r}?"


def test_an_unknown_key_of_the_baseline_has_a_suggestion():
    given = {"learning_rate": 1e-4, "rank": 8, "alpha": 16, "batchsize": 8}
    assert message(baseline=given) == "baseline.batchsize: unknown key; did you mean 'batch_size'?"


def test_an_unknown_key_like_none_lists_what_there_is():
    assert message(color=1).startswith("color: unknown key; known here: trainer, model, data, variants")
    assert "known here: learning_rate, batch_size, rank" in message(**{"space.color": 1})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("budget", 0, "at least 1"),
        ("budget", "many", "number"),
        ("budget", float("nan"), "finite"),
        ("seed", -1, "at least 0"),
        ("seed", 1.5, "whole number"),
        ("rungs", [0.1, 0.5], "end in 1.0"),
        ("rungs", [0.5, 0.2, 1.0], "ascend"),
        ("rungs", [0, 1.0], "above 0"),
        ("rungs", [], "end in 1.0"),
        ("rungs", 0.3, "list"),
        ("confirm", -1, '"auto" or a whole number'),
        ("confirm", "some", '"auto" or a whole number'),
        ("variants", [], "at least 1"),
        ("prior", "flat", "'laws'"),
        ("space.learning_rate", "high", '"auto", a number, (low, high)'),
        ("space.learning_rate", -1e-3, "above 0"),
        ("space.learning_rate", float("nan"), "above 0"),
        ("space.alpha", "sqrt", '"law", "rank", a number'),
        ("space.alpha", {"low": 8}, "{low: 8, high: 64}"),
        ("space.hidden_size", 0, "at least 1"),
        ("space.options", [4], "{lora_ga.gamma: [4, 16, 64]}"),
        ("space.options", {"gamma": 4}, "write variant.option"),
        (
            "space.options",
            {"lora_ga.gamma": [4, -1]},
            "lora_ga.gamma: [4, -1] is not allowed; use a number, a list, or {low, high}, from 0 on",
        ),
        (
            "space.options",
            {"lora_ga": {"gamma": "big"}},
            "lora_ga.gamma: 'big' is not allowed; use a number, a list, or {low, high}, from 0 on",
        ),
        ("training.examples", 0, "at least 1"),
        ("training.warmup_ratio", 1.5, "below 1"),
        ("training.schedule", "cosin", "'cosine', 'linear'"),
        ("training.dtype", "fp8", "'bfloat16' or 'float16'"),
        ("base.attn_implementation", "", "at least 1"),
        ("base.attn_implementation", True, "true is not allowed"),
        ("base.attention", "sdpa", "attn_implementation"),
        ("base", "sdpa", "it holds keys: attn_implementation"),
        ("data.eval_size", 0, "at least 1"),
        ("data.format", "csv", "'messages'"),
        ("metric.direction", "up", "'minimize' or 'maximize'"),
        ("evaluation.subset", 0, '"auto", false, a number of rows of at least 1, or a list'),
        ("evaluation.subset", 1.5, '"auto", false, a number of rows'),
        ("evaluation.subset", "some", '"auto", false, a number of rows'),
        ("evaluation.subset", None, '"auto", false, a number of rows'),
        ("evaluation.subset", True, "write auto, false, or a number of rows"),
        ("evaluation.subset", [True, 8], "write auto, false, or a number of rows"),
        ("evaluation.subset", [8, False], "write auto, false, or a number of rows"),
        ("evaluation.subset", [8, 0], '"auto", false, a number of rows'),
        ("evaluation.subset", [9, 8], "as many rows or more"),
        ("evaluation", 8, "it holds keys: subset"),
        ("space", "wide", "it holds keys: learning_rate"),
        ("baseline", 3, "it holds keys: learning_rate"),
    ],
)
def test_impossible_values_are_named_with_what_is_possible(key, value, says):
    line = message(**{key: value})
    assert line.startswith(f"{key}: ")
    assert says in line


@pytest.mark.parametrize("subset", ["auto", False, 1, 10**6, (8, 9), (8, 8)])
def test_rows_of_short_runs_are_recorded_as_they_were_said(subset, tmp_path):
    spec = load(**{"evaluation.subset": subset})
    assert spec.evaluation.subset == subset
    assert type(spec.evaluation.subset) is type(subset)
    specs.save(spec, tmp_path / "spec.yaml")
    assert specs.load(tmp_path / "spec.yaml").evaluation == spec.evaluation


@pytest.mark.parametrize(("subset", "rungs"), [([8], None), ([8, 9, 10], None), ([8], [1.0]), ([], [0.5, 1.0])])
def test_a_list_of_rows_has_one_number_for_each_rung_before_the_last(subset, rungs):
    given = {"evaluation.subset": subset, **({"rungs": rungs} if rungs else {})}
    assert message(**given).startswith(f"evaluation.subset={subset} has {len(subset)} numbers of rows for ")


def test_what_auto_has_come_to_is_settled_and_what_the_user_says_stays():
    auto = load().evaluation
    assert auto.settled((64, 85, 256)).subset == (64, 85)
    assert auto.settled((256, 256)).subset is False
    assert auto.settled(()).subset is False
    for subset in (False, 7, (3, 4)):
        said = load(**{"evaluation.subset": subset}).evaluation
        assert said.settled((64, 85, 256)) == said


def test_an_impossible_item_of_a_list_is_named_by_its_place():
    assert message(**{"space.rank": [8, 0]}) == "space.rank[1]: 0 is not allowed; it should be at least 1"


def test_an_option_that_a_variant_lacks_has_a_suggestion():
    line = message(variants="lora_ga", **{"space.options.lora_ga.gama": [4, 16]})
    assert line == (
        "space.options.lora_ga.gama: [4, 16] is not allowed; lora_ga has no option 'gama'; its options: gamma; "
        "did you mean 'gamma'?"
    )


def test_an_option_of_a_variant_that_is_not_tuned_is_refused():
    line = message(variants="lora,pissa", **{"space.options.lora_ga.gamma": 4})
    assert line == (
        "space.options.lora_ga.gamma: [4] is not allowed; 'lora_ga' is not among the variants tuned here, lora, pissa"
    )


def test_an_option_of_a_misspelt_variant_has_a_suggestion():
    assert message(variants="lora_ga", **{"space.options.loraga.gamma": 4}).endswith("; did you mean 'lora_ga'?")


@pytest.fixture
def redundant(monkeypatch):
    """LoRA+'s ratio is said to be redundant with alpha."""
    monkeypatch.setattr(type(variants.get("lora_plus")), "redundant_with_alpha", ("ratio",), raising=False)


@pytest.mark.usefixtures("redundant")
@pytest.mark.parametrize("alpha", [[8, 16], (8, 64)])
def test_an_option_that_is_redundant_with_alpha_is_not_searched_together_with_it(alpha):
    line = message(variants="lora_plus", **{"space.alpha": alpha, "space.options.lora_plus.ratio": [4, 16]})
    assert line.startswith("space.options.lora_plus.ratio: [4, 16] is not allowed; alpha is searched")
    assert "ratio c at s is ratio 1 at c s where B0 = 0" in line


@pytest.mark.usefixtures("redundant")
@pytest.mark.parametrize("alpha", ["law", "rank", 16, [16]])
def test_an_option_that_is_redundant_with_alpha_is_searched_where_alpha_is_pinned(alpha):
    spec = load(variants="lora_plus", **{"space.alpha": alpha, "space.options.lora_plus.ratio": [4, 16]})
    assert spec.space.options == {"lora_plus.ratio": [4, 16]}


@pytest.mark.usefixtures("redundant")
def test_an_option_that_is_redundant_with_alpha_may_be_pinned_while_alpha_is_searched():
    spec = load(variants="lora_plus", **{"space.alpha": [8, 16], "space.options.lora_plus.ratio": 4})
    assert spec.space.options == {"lora_plus.ratio": [4]}


@dataclass(frozen=True)
class Counted(Variant):
    """Has options that count, one of them by default as it sees fit, and one that is no number."""

    k: int = 2
    depth: int | None = None
    mode: str = "fast"


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setitem(variants.registry._variants, "counted", Counted("counted", "Counted", ""))


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("option", ["k", "depth"])
def test_an_option_that_counts_takes_whole_numbers(option):
    line = message(variants="counted", **{f"space.options.counted.{option}": [1.5, 2]})
    assert line.endswith(f"{option} of counted takes whole numbers")
    assert load(variants="counted", **{f"space.options.counted.{option}": [1, 2]})


@pytest.mark.usefixtures("counted")
def test_an_option_that_is_no_number_is_not_searched():
    line = message(variants="counted", **{"space.options.counted.mode": 4})
    assert line.endswith("mode of counted is 'fast', and only numbers can be searched")


@pytest.mark.parametrize("key", ["space.learning_rate", "space.alpha", "space.dropout", "space.weight_decay"])
def test_an_inverted_range_is_named(key):
    assert message(**{key: (1e-1, 1e-3)}) == f"{key}: the range (0.1, 0.001) is empty: low must be below high"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ({"low": 64, "high": 4}, "the range (64, 4) is empty: low must be below high"),
        ({"low": 4}, "{'low': 4} is not allowed; a range is {low: .., high: ..}, from 0 on"),
        ({"high": 4}, "{'high': 4} is not allowed; a range is {low: .., high: ..}, from 0 on"),
        ({"choices": "x"}, "{'choices': 'x'} is not allowed; use a number, a list, or {low, high}, from 0 on"),
    ],
)
def test_a_bad_domain_of_an_option_is_named_in_one_line(written, why):
    assert message(variants="lora_ga", **{"space.options.lora_ga.gamma": written}).endswith(f"lora_ga.gamma: {why}")


def test_a_single_choice_may_be_written_without_a_list():
    assert load(**{"space.rank": {"choices": 8}}).space.rank == [8]


def test_a_long_value_is_cut_short():
    assert len(message(**{"space.learning_rate": "x" * 5000})) < 300


def test_a_misspelt_variant_has_a_suggestion():
    assert "unknown variant 'pisa': did you mean 'pissa'?" in message(variants="lora,pisa")


def test_a_variant_named_twice_is_refused():
    assert "twice" in message(variants=["lora", "lora"])


def test_an_unknown_metric_lists_the_built_in_ones():
    assert "'bleu' is unknown; use one of eval_loss, exact_match, sequence_accuracy, token_accuracy" in message(
        metric="bleu"
    )


def test_a_metric_of_one_s_own_needs_a_direction():
    assert "'my.metrics:score' needs a direction" in message(metric="my.metrics:score")


def test_a_built_in_metric_in_the_wrong_direction_contradicts_itself():
    line = message(metric={"name": "eval_loss", "direction": "maximize"})
    assert line == "metric: 'eval_loss' can only be minimized, not maximized"


def test_more_confirmation_than_the_budget_holds_contradicts_it():
    assert "at most 3" in message(budget=4, confirm=4)
    assert load(budget=4, confirm=3).confirm == 3


def test_a_prompt_column_without_a_completion_is_refused():
    assert "name both columns" in message(**{"data.prompt": "question"})


def test_a_prompt_column_and_a_template_contradict_each_other():
    data = {"train": TRAIN, "prompt": "q", "completion": "a", "template": "{q}"}
    assert "give one" in message(data=data)


@pytest.mark.parametrize("missing", ["model", "data"])
def test_what_has_no_default_is_named(missing):
    with pytest.raises(SpecError, match=rf"^{missing}: missing; it has no default$"):
        specs.load({key: value for key, value in BASE.items() if key != missing})


@pytest.mark.parametrize("empty", [None, ""])
def test_a_key_written_without_a_value_is_missing(empty):
    assert message(model=empty) == "model: missing; it has no default"
    assert message(data=empty) == "data: missing; it has no default"


def test_several_mistakes_are_a_line_each():
    with pytest.raises(SpecError) as error:
        load(budget=0, seed=-1, **{"space.rank": [0]})
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["space.rank[0]", "budget", "seed"]


def test_mistakes_are_plain_errors_of_the_package():
    with pytest.raises(AutoloraError):
        load(budget=0)
    with pytest.raises(ValueError, match="budget"):
        load(budget=0)


def test_a_missing_data_file_is_named_with_its_neighbor(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}\n")
    line = message(data=str(tmp_path / "trian.jsonl"))
    assert line == f"data.train: no such file: {tmp_path}/trian.jsonl (did you mean {tmp_path}/train.jsonl?)"


def test_a_missing_evaluation_file_is_named():
    assert message(**{"data.eval": "nowhere/eval.csv"}) == "data.eval: no such file: nowhere/eval.csv"


def test_a_missing_model_directory_is_named_with_its_neighbor(tmp_path):
    (tmp_path / "llama").mkdir()
    line = message(model=f"{tmp_path}/lama")
    assert line == f"model: no such model directory: {tmp_path}/lama (did you mean {tmp_path}/llama?)"


def test_names_of_a_hub_are_taken_as_they_are():
    spec = specs.load(model="someone/some-model", data="someone/some-data")
    assert (spec.model, spec.data.train) == ("someone/some-model", "someone/some-data")


def test_a_missing_spec_file_is_named_with_its_neighbor(full):
    with pytest.raises(SpecError, match=r"^no such spec file: .*/studdy\.yaml \(did you mean .*/study\.yaml\?\)$"):
        specs.load(full.parent / "studdy.yaml")


def test_a_file_that_is_not_yaml_is_said_so(tmp_path):
    (tmp_path / "a.yaml").write_text("model: [unclosed")
    with pytest.raises(SpecError, match=r"a\.yaml is not valid YAML"):
        specs.load(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["", "- model", "just text"])
def test_a_file_without_keys_is_said_so(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"a\.yaml must hold keys such as 'model:' and 'data:'"):
        specs.load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"space": Space(learning_rate=(1e-4, 1e-2), alpha=(8, 64), hidden_size=64)},
        {"space": {"learning_rate": [1e-4, 1e-3, 1e-2], "alpha": [8, 16]}},
        {"variants": "lora_ga", "space.options.lora_ga.gamma": [0.5, 4, 16]},
        {"space.alpha": "rank", "prior": None, "rungs": [0.25, 1.0], "confirm": 2},
        {"baseline": {"learning_rate": 1e-4, "rank": 8, "alpha": 16}},
        {"metric": {"name": "m:f", "direction": "maximize"}},
    ],
)
def test_what_is_saved_is_read_back(tmp_path, changed):
    spec = load(**changed)
    specs.save(spec, tmp_path / "spec.yaml")
    assert specs.load(tmp_path / "spec.yaml") == spec
    assert read_recorded(tmp_path / "spec.yaml") == specs.dump(spec)


def test_every_key_is_dumped():
    assert set(specs.dump(load())) == set(Spec.model_fields)


class Fingerprinted:
    """Stands for a datasets.Dataset."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint


def test_a_data_set_object_is_dumped_by_its_fingerprint():
    old, new = (specs.dump(load(data=Fingerprinted(name))) for name in ("a1", "b2"))
    assert old["data"]["train"] == "<dataset a1>"
    assert specs.differences(old, new) == ["data.train: <dataset a1> -> <dataset b2>"]


def test_an_object_that_cannot_be_recorded_is_said_so():
    with pytest.raises(SpecError, match=r"cannot record object in spec\.yaml"):
        specs.dump(load(data=object()))


def differences(**changed) -> list[str]:
    return specs.differences(specs.dump(load()), specs.dump(load(**changed)))


def test_equal_specifications_do_not_differ():
    assert differences() == []


OF_COMMANDS = ("trainer.cwd", "trainer.launcher", "resources.nodes")


@pytest.mark.parametrize("key", [key for key in specs.MUTABLE if key not in OF_COMMANDS])
def test_what_may_change_between_starts_is_no_difference(key):
    values = {"device": "cpu", "gradient_checkpointing": True, "attn_implementation": "eager", "compile": True}
    value = {"metrics": "seconds"}.get(key, values.get(key.partition(".")[2], 2))
    assert differences(**{key: value}) == []


def test_a_command_may_be_run_on_another_number_of_nodes():
    command = {"command": "train", "examples": 10}
    one, two = (specs.dump(load(trainer=command, **{"resources.nodes": nodes})) for nodes in (1, 2))
    assert specs.differences(one, two) == []


def test_a_command_may_be_run_in_another_folder(tmp_path):
    command = {"command": "train", "examples": 10}
    here, there = (specs.dump(load(trainer={**command, "cwd": str(each)})) for each in (tmp_path, tmp_path.parent))
    assert specs.differences(here, there) == []


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("seed", 1, "seed: 0 -> 1"),
        ("training.examples", 800, "training.examples: None -> 800"),
        ("variants", "lora,dora", "variants: ['lora'] -> ['lora', 'dora']"),
        ("space.rank", 4, "space.rank: [8, 32] -> [4]"),
        ("prior", "laws", "prior.curvature: True -> False"),
    ],
)
def test_differences_are_named_with_both_values(key, value, line):
    assert differences(**{key: value}) == [line]


def test_an_option_opened_is_a_difference():
    old, new = (
        specs.dump(load(variants="lora_ga", **{"space.options.lora_ga.gamma": gamma})) for gamma in (4, [4, 16])
    )
    assert specs.differences(old, new) == ["space.options.lora_ga.gamma: [4] -> [4, 16]"]


def test_a_space_recorded_before_there_were_options_is_no_difference():
    old, new = specs.dump(load()), specs.dump(load())
    del old["space"]["options"]
    assert specs.differences(old, new) == []


def test_a_new_baseline_is_a_difference():
    assert (
        differences(baseline={"learning_rate": 1e-4, "rank": 8, "alpha": 16})[0] == "baseline.alpha: (not set) -> 16.0"
    )


def test_a_specification_cannot_be_changed_in_place():
    spec = load()
    with pytest.raises(ValueError, match="frozen"):
        spec.budget = 9


class TestAdapter:
    def test_by_default_it_is_every_linear_layer_and_all_experts(self):
        adapter = load().adapter
        assert (adapter.target_modules, adapter.exclude_modules, adapter.target_parameters) == (
            "all-linear",
            None,
            "auto",
        )

    def test_lists_and_expressions_are_as_in_peft(self):
        adapter = load(
            **{"adapter.target_modules": ["q_proj", "v_proj"], "adapter.exclude_modules": ".*layers.0.*"}
        ).adapter
        assert (adapter.target_modules, adapter.exclude_modules) == (("q_proj", "v_proj"), ".*layers.0.*")

    @pytest.mark.parametrize("nothing", [None, []])
    def test_no_parameter_is_null_or_an_empty_list(self, nothing):
        assert load(**{"adapter.target_parameters": nothing}).adapter.target_parameters == ()

    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ({"target_modules": "(q_proj"}, "adapter.target_modules: '(q_proj' is not a valid regular expression"),
            ({"target_modules": 3}, 'adapter.target_modules: 3 is not allowed; use "all-linear", a list of names'),
            ({"target_parameters": "all"}, "adapter.target_parameters: 'all' is not allowed; use \"auto\", a list"),
            ({"target_modules": None}, "adapter: target_modules is empty: name what to adapt in target_parameters"),
            (
                {"target_modules": [], "target_parameters": []},
                "adapter: target_modules and target_parameters are both empty",
            ),
            ({"targets": []}, "adapter.targets: unknown key"),
        ],
    )
    def test_what_is_wrong_is_named(self, keys, expected):
        assert message(adapter=keys).startswith(expected)


@pytest.mark.parametrize(
    ("trainer", "kind"),
    [
        ("builtin", "builtin"),
        ("my_training:make_trainer", "function"),
        ({"trl": "dpo"}, "trl"),
        ({"command": "train {rank}", "examples": 10}, "command"),
    ],
)
def test_who_trains_is_named_in_few_words(trainer, kind):
    assert load(trainer=trainer).trainer.kind == kind


@pytest.mark.parametrize(
    ("trainer", "says"),
    [
        (5, r'5 is not allowed; use "builtin", "module:function", or one of'),
        ("two words", "names no function"),
        ({"comand": "x", "examples": 1}, "did you mean 'command'"),
        ({"command": "x"}, "examples: missing"),
        ({"command": "x", "examples": 0}, "examples: 0 is not allowed; it should be at least 1"),
        ({"trl": "sfd"}, "trl: 'sfd' is not allowed"),
        ({"trl": "sft", "config": "nowhere.yaml"}, "config: no such file"),
        ({"trl": "sft", "command": "x", "examples": 1}, "names 2 kinds of trainers"),
    ],
)
def test_a_wrong_trainer_is_said_with_what_would_be_right(trainer, says):
    with pytest.raises(SpecError, match=says):
        load(trainer=trainer)


def test_model_and_data_are_needed_where_the_trainer_has_none_of_its_own():
    spec = specs.load(trainer="my_training:make_trainer")
    assert (spec.model, spec.data) == (None, None)
    with pytest.raises(SpecError, match=r"model: missing; it has no default\ndata: missing; it has no default"):
        specs.load(trainer="builtin")


def test_a_metric_that_is_reported_has_any_name_and_a_direction():
    spec = specs.load(trainer="a:b", metric={"name": "rewards/accuracies", "direction": "maximize"})
    assert spec.metric.resolved_direction == "maximize"
    assert specs.load(trainer="a:b", metric="my_loss").metric.resolved_direction == "minimize"
    with pytest.raises(SpecError, match="needs a direction"):
        specs.load(trainer="a:b", metric="accuracy")


def test_what_a_pattern_finds_has_to_be_named():
    trainer = {"command": "x", "examples": 1, "metric_pattern": "accuracy: ([0-9.]+)"}
    with pytest.raises(SpecError, match=r"metric: missing; say what trainer\.metric_pattern finds"):
        specs.load(trainer=trainer)
    assert specs.load(trainer=trainer, metric="eval_loss").metric.name == "eval_loss"


def test_a_command_that_cannot_stop_has_one_rung():
    trainer = {"command": "x", "examples": 1, "early_stop": False}
    assert specs.load(trainer=trainer).rungs == (1.0,)
    with pytest.raises(SpecError, match="cannot be reached with early_stop: false"):
        specs.load(trainer=trainer, rungs=[0.5, 1.0])
