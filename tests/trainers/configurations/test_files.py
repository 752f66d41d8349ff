"""Configuration files: read as a baseline, written for a trial, and with tuned values; by the tools' released names."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from autolora import variants
from autolora.documents import DocumentError
from autolora.trainers.configurations import TOOLS, ConfigurationError, known, whole
from autolora.trainers.configurations.data import Data
from tests.support.configured import FILES, parsed

OUTPUT = Path("/run/trials/3/work/output")
BASELINE = {"learning_rate": 5e-3, "batch_size": 8, "rank": 4, "alpha": 8.0}
KINDS = list(FILES)


def trial(file, config=BASELINE, variant="lora", examples=96, resume=None, **keys):
    text = file.trial(config, variants.get(variant), examples, 7, OUTPUT, resume, **keys)
    return yaml.safe_load(text)


@pytest.mark.parametrize("kind", KINDS)
class TestBoth:
    def test_a_file_says_what_it_trains_with(self, kind):
        file = parsed(kind)
        file.check(stops_early=True)
        baseline = file.baseline()
        assert {name: getattr(baseline, name) for name in BASELINE} == BASELINE
        assert dict(baseline.further) == {"dropout": 0.0, "weight_decay": 0.0, "warmup_ratio": 0.0}
        assert (file.examples, file.model, list(file.unknown())) == (96, "owner/model", [])

    def test_its_baseline_written_back_is_the_same_training(self, kind):
        file = parsed(kind)
        text = file.tuned(BASELINE, variants.get("lora"), 96, ["tuned"])
        before, after = file.values, yaml.safe_load(text)
        rank, alpha, rate = file.tool.keys.rank, file.tool.keys.alpha, file.tool.keys.learning_rate
        assert (after[rank], after[alpha], after[rate]) == (4, 8, 5e-3)
        assert before.items() <= {**after, rate: before[rate]}.items()
        assert "# what we run today" in text

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("accumulation", "auto", "'auto' is not a number"),
            ("accumulation", "0", "0 is not a whole number of at least 1"),
            ("accumulation", "1.5", "1.5 is not a whole number"),
            ("rank", "-8", "-8 is not a whole number of at least 1"),
            ("rank", "8.5", "8.5 is not a whole number"),
            ("rank", "[8]", r"\[8\] is not a number"),
            ("alpha", "-16", "-16 is not above 0"),
            ("max_steps", ".inf", "inf is not a number"),
            ("max_steps", "-2", "-2 is not a whole number of at least -1"),
            ("micro_batch", "2.5", "2.5 is not a whole number"),
            ("micro_batch", "true", "True is not a number"),
            ("learning_rate", "-1e-4", "is not above 0"),
            ("learning_rate", "{a: 1}", "is not a number"),
            ("dropout", "1.0", "1.0 is not a share"),
            ("warmup_ratio", "-0.1", "-0.1 is not a share"),
            ("warmup_steps", "-1", "-1 is not a share"),
            ("weight_decay", ".nan", "nan is not a number"),
        ],
    )
    def test_a_wrong_value_is_an_error_with_file_and_key(self, kind, name, value, said):
        key = getattr(TOOLS[kind].keys, name)
        text = "\n".join(line for line in FILES[kind].splitlines() if not line.startswith(f"{key}:"))
        file = parsed(kind, f"{text}\n{key}: {value}\n")
        with pytest.raises(ConfigurationError, match=rf"^my\.yaml: {key}: .*{said}"):
            file.baseline(file.examples)

    @pytest.mark.parametrize("limited", [True, False])
    @pytest.mark.parametrize("warmup", ["warmup_steps: 3", "warmup_ratio: 0.25", "warmup_steps: 0.25"])
    def test_the_baseline_has_the_warmup_of_the_file(self, kind, limited, warmup):
        text = FILES[kind] + warmup + "\n"
        file = parsed(kind, text if limited else text.replace("max_steps: 12\n", ""))
        assert dict(file.baseline(96).further)["warmup_ratio"] == 0.25
        assert trial(file, {**BASELINE, "warmup_ratio": 0.25})["warmup_steps"] == 3

    @pytest.mark.parametrize("key", ["resume_from_checkpoint", "auto_resume_from_checkpoints"])
    def test_a_tuned_file_does_not_go_on_from_an_earlier_training(self, kind, key):
        file = parsed(kind, FILES[kind] + f"{key}: true\n")
        if key not in file.tool.known(file.values):
            return
        text = file.tuned(BASELINE, variants.get("lora"), 96, ["tuned"])
        assert key not in yaml.safe_load(text)
        assert f"{key} of your file is left out" in text

    def test_all_that_is_written_is_known_to_the_tool(self, kind):
        file = parsed(kind)
        for name in variants.names():
            try:
                written = trial(file, variant=name, resume=Path("/x/checkpoint-4"))
            except ConfigurationError:
                continue
            assert not written.keys() - set(file.tool.known(written))
            assert file.tool.keys.resume in written

    def test_one_variant_does_not_leave_switches_to_another(self, kind):
        file = parsed(kind)
        for name in ("dora", "rslora", "lora_plus", "pissa"):
            text = file.tuned(BASELINE, variants.get(name), 96, ["tuned"])
            again = parsed(kind, text)
            assert again.tool.made(variants.get(name), again.values).items() <= again.values.items()
            plain = yaml.safe_load(again.tuned(BASELINE, variants.get("lora"), 96, ["tuned"]))
            assert not set(file.tool.switches) & plain.keys()

    def test_nothing_of_the_users_evaluates_stops_or_publishes_a_trial(self, kind):
        given = "eval_strategy: steps\neval_steps: 5\nload_best_model_at_end: true\nhub_model_id: me/x\n"
        written = trial(parsed(kind, FILES[kind] + given))
        assert written.get("eval_strategy", "no") == "no"
        assert not {"eval_steps", "load_best_model_at_end", "hub_model_id"} & written.keys()

    def test_the_same_trial_has_the_same_file(self, kind):
        assert trial(parsed(kind)) == trial(parsed(kind))

    @pytest.mark.parametrize("seed", range(40))
    def test_any_configuration_is_read_back_as_it_was_written(self, kind, seed):
        rng = random.Random(seed)
        devices = rng.choice([1, 1, 2, 4])
        config = {
            "learning_rate": 10 ** rng.uniform(-6, 0),
            "batch_size": devices * rng.randint(1, 40),
            "rank": rng.choice([1, 2, 8, 64]),
            "alpha": rng.choice([rng.uniform(10, 500), float(rng.randint(1, 64))]),
        }
        for name, value in (("dropout", rng.random()), ("weight_decay", 0.01), ("warmup_ratio", rng.uniform(0, 0.5))):
            if rng.random() < 0.5:
                config[name] = value
        examples = rng.randint(config["batch_size"], 10_000)
        file = parsed(kind, devices=devices)
        again = parsed(kind, file.trial(config, variants.get("lora"), examples, 7, OUTPUT), devices)
        found = again.baseline()
        assert found.learning_rate == config["learning_rate"]
        assert (found.batch_size, found.rank, found.alpha) == (
            config["batch_size"],
            config["rank"],
            whole(config["alpha"]),
        )
        assert again.micro_batch <= file.micro_batch
        assert 0 <= again.examples - examples < config["batch_size"]
        steps = again.examples // config["batch_size"]
        assert {"dropout": found.dropout, "weight_decay": found.weight_decay}.items() >= {
            name: config[name] for name in ("dropout", "weight_decay") if name in config
        }.items()
        if "warmup_ratio" in config:
            assert 0 <= found.warmup_ratio - config["warmup_ratio"] + 1e-9 <= 1 / steps + 1e-6

    def test_warmup_in_steps_keeps_its_share_of_the_run(self, kind):
        file = parsed(kind, FILES[kind] + "warmup_steps: 3\n")
        assert file.baseline().warmup_ratio == 0.25
        assert trial(file)["warmup_steps"] == 3
        assert trial(file, {**BASELINE, "batch_size": 2})["warmup_steps"] == 12
        assert trial(file, {**BASELINE, "warmup_ratio": 0.5})["warmup_steps"] == 6

    def test_a_model_of_the_specification_replaces_the_files(self, kind):
        assert trial(parsed(kind), model="/here")[TOOLS[kind].keys.model] == "/here"

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("- a\n", "holds no settings"),
            ("a: [\n", "not valid YAML"),
            ("learning_rate: ${rate}\nlora_rank: 4\nlora_r: 4\n", r"learning_rate: '\$\{rate\}' is not a number"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_refused_by_name(self, kind, text, says):
        with pytest.raises((ConfigurationError, DocumentError), match=rf"my\.yaml.*{says}"):
            parsed(kind, text).baseline()


class TestAxolotl:
    def test_a_batch_may_be_given_whole(self):
        text = FILES["axolotl"].replace("gradient_accumulation_steps: 2", "batch_size: 12")
        file = parsed("axolotl", text)
        assert file.baseline().batch_size == 12
        assert "batch_size" not in trial(file)  # axolotl takes one of the two

    def test_the_plugin_is_added_to_those_that_are_there(self):
        file = parsed("axolotl", FILES["axolotl"] + "plugins:\n  - mine.Plugin\n")
        assert trial(file)["plugins"] == ["mine.Plugin", "autolora.integrations.axolotl.AxolotlPlugin"]

    def test_without_a_rank_there_is_no_baseline(self):
        assert parsed("axolotl", FILES["axolotl"].replace("lora_r: 4\n", "")).baseline() is None

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (("adapter: lora\n", ""), "adapter: missing"),
            (("adapter: lora", "adapter: llama-adapter"), "adapter: llama-adapter"),
            (("adapter: lora", "adapter: lora\nlora_model_dir: x"), "lora_model_dir"),
            (("adapter: lora", "adapter: lora\nrelora: true"), "relora"),
            (("val_set_size: 0.1\n", ""), "no evaluation rows"),
            (("val_set_size: 0.1", "val_set_size: '0'"), "no evaluation rows"),
            (("lora_r: 4", "lora_r: 4\nlora_rank_pattern: {q_proj: 8}"), "lora_rank_pattern: the layers that it names"),
            (("lora_r: 4", "lora_r: 4\nlora_alpha_pattern: {q_proj: 8}"), "lora_alpha_pattern: the layers"),
        ],
    )
    def test_what_cannot_be_tuned_is_refused(self, change, says):
        with pytest.raises(ConfigurationError, match=says):
            parsed("axolotl", FILES["axolotl"].replace(*change)).check(stops_early=True)

    def test_a_packed_base_has_no_variant_that_alters_it(self):
        file = parsed("axolotl", FILES["axolotl"].replace("adapter: lora", "adapter: qlora\nload_in_4bit: true"))
        with pytest.raises(ConfigurationError, match="PiSSA for a base in 4 bits"):
            trial(file, variant="pissa")
        assert trial(file, variant="dora")["adapter"] == "qlora"


class TestLlamaFactory:
    def test_what_a_file_leaves_out_is_as_released(self):
        file = parsed("llamafactory", "model_name_or_path: x\ndataset: y\neval_dataset: z\nstage: sft\n")
        baseline = file.baseline()
        assert (baseline.learning_rate, baseline.batch_size, baseline.rank, baseline.alpha) == (5e-5, 8, 8, 16)
        assert file.examples is None

    def test_alpha_is_twice_the_rank_unless_it_is_said(self):
        assert parsed("llamafactory", FILES["llamafactory"] + "lora_alpha: 5\n").baseline().alpha == 5
        assert parsed("llamafactory", FILES["llamafactory"] + "lora_alpha: 0\n").baseline().alpha == 8

    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ("finetuning_type: full", "finetuning_type: full"),
            ("stage: ppo", "trainer.early_stop: false"),
            ("adapter_name_or_path: x", "create_new_adapter"),
            ("val_size: 0", "no evaluation rows"),
            ("val_size: '0'", "no evaluation rows"),
        ],
    )
    def test_what_cannot_be_tuned_is_refused(self, keys, says):
        key = keys.partition(":")[0]
        text = "\n".join(line for line in FILES["llamafactory"].splitlines() if not line.startswith(key))
        with pytest.raises(ConfigurationError, match=says):
            parsed("llamafactory", f"{text}\n{keys}\n").check(stops_early=True)

    def test_pissa_is_refused_where_llama_factory_would_leave_its_start_out(self):
        file = parsed("llamafactory", FILES["llamafactory"] + "use_unsloth: true\n")
        with pytest.raises(ConfigurationError, match="use_unsloth"):
            trial(file, variant="pissa")
        assert trial(file, variant="dora")["use_unsloth"]

    def test_a_trial_leaves_the_conversion_of_pissa_to_autolora_and_the_tuned_file_does_not(self):
        file = parsed("llamafactory")
        assert "pissa_convert" not in trial(file, variant="pissa")
        tuned = yaml.safe_load(file.tuned(BASELINE, variants.get("pissa"), 96, ["tuned"]))
        assert (tuned["pissa_init"], tuned["pissa_iter"], tuned["pissa_convert"]) == (True, -1, True)


@pytest.mark.parametrize(
    ("alpha", "expected"), [(8.0, 8), (39.2, 39), (10.5, 10), (9.6, 10), (2.5, None), (0.4, None), (0.97, 1)]
)
def test_alpha_is_rounded_within_a_twentieth(alpha, expected):
    assert whole(alpha) == expected


def test_the_lists_of_keys_hold_what_is_set_and_what_has_a_default():
    for tool, keys in ((TOOLS["axolotl"], known.AXOLOTL), (TOOLS["llamafactory"], known.LLAMA_FACTORY)):
        assert set(vars(tool.keys).values()) <= keys
        assert {*tool.defaults, *tool.forced, *tool.switches, *tool.without_effect} <= keys
        assert len(keys) > 300


def test_a_further_setting_that_no_tool_has_is_refused():
    with pytest.raises(ConfigurationError, match="no setting for beta"):
        trial(parsed("axolotl"), {**BASELINE, "beta": 0.1})


class TestRows:
    """Rows of a specification in place of the file's."""

    @pytest.fixture
    def rows(self, tmp_path):
        train, held_out = tmp_path / "train.jsonl", tmp_path / "eval.jsonl"
        for path in (train, held_out):
            path.write_text('{"prompt": "a", "completion": "b"}\n' * 3)
        return {"train": str(train), "eval": str(held_out)}

    def test_axolotl_is_given_its_data_sets(self, rows, tmp_path):
        settings, beside = TOOLS["axolotl"].data(Data.of(rows), tmp_path)
        written = trial(parsed("axolotl"), data=settings)
        assert not beside
        assert [each["path"] for each in written["datasets"]] == [rows["train"]]
        assert [each["path"] for each in written["test_datasets"]] == [rows["eval"]]
        assert "val_set_size" not in written  # axolotl takes one of the two

    def test_llama_factory_is_given_a_list_of_data_sets(self, rows, tmp_path):
        settings, beside = TOOLS["llamafactory"].data(Data.of(rows), tmp_path)
        written = trial(parsed("llamafactory", FILES["llamafactory"] + "max_samples: 5\n"), data=settings)
        [(path, content)] = beside.items()
        listed = json.loads(content)
        assert (written["dataset_dir"], path) == (str(tmp_path), tmp_path / "dataset_info.json")
        assert listed[written["dataset"]]["file_name"] == rows["train"]
        assert listed[written["eval_dataset"]]["file_name"] == rows["eval"]
        assert not {"val_size", "max_samples"} & written.keys()

    @pytest.mark.parametrize("kind", KINDS)
    def test_rows_that_the_tool_cannot_be_pointed_at_are_refused(self, kind, tmp_path):
        with pytest.raises(ConfigurationError, match=r"data: The study was given its rows in Python\. Name the rows"):
            TOOLS[kind].data(Data.of({"train": "<dataset 12>", "eval": None}), tmp_path)

    @pytest.mark.parametrize(("kind", "keys"), [("llamafactory", "stage: dpo"), ("axolotl", "rl: dpo")])
    def test_pairs_are_named_in_the_file(self, kind, keys):
        file = parsed(kind, FILES[kind] + keys + "\n")
        file.check(stops_early=True)
        with pytest.raises(ConfigurationError, match=f"{keys} needs rows"):
            file.check(stops_early=True, has_data=True)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_without_evaluation_rows_is_taken_with_them(self, kind):
        text = "\n".join(line for line in FILES[kind].splitlines() if not line.startswith("val_s"))
        parsed(kind, text).check(stops_early=True, has_data=True)


NAMES = {"axolotl": "lora_target_modules", "llamafactory": "lora_target"}


@pytest.mark.parametrize("kind", KINDS)
class TestFields:
    def test_they_are_written_where_they_stand_or_added(self, kind):
        text = FILES[kind] + "adam_beta2: 0.99  # as in the paper\n"
        config = {**BASELINE, "fields": {"adam_beta2": 0.95, NAMES[kind]: ["q_proj", "v_proj"], "adam_epsilon": 1e-6}}
        written = TOOLS[kind], parsed(kind, text).trial(config, variants.get("lora"), 96, 7, OUTPUT)
        found = yaml.safe_load(written[1])
        assert (found["adam_beta2"], found["adam_epsilon"]) == (0.95, 1e-6)
        assert found[NAMES[kind]] == (["q_proj", "v_proj"] if kind == "axolotl" else "q_proj,v_proj")
        assert "adam_beta2: 0.95  # as in the paper" in written[1]

    def test_what_the_file_says_is_where_the_search_begins(self, kind):
        file = parsed(kind, FILES[kind] + "adam_beta2: 0.99\n")
        assert file.standards(["adam_beta2", "adam_beta1"]) == {"adam_beta2": 0.99}

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("adam_betta2", "has no such key; did you mean 'adam_beta2'"),
            ("max_steps", "how long a trial trains is space.duration"),
            ("save_total_limit", "autolora sets it itself"),
            ("seed", "autolora sets it itself"),
            ("loraplus_lr_ratio", "for the trial or for its variant"),
        ],
    )
    def test_what_is_none_is_refused(self, kind, name, said):
        with pytest.raises(ConfigurationError, match=f"space.fields.{name}: .*{said}"):
            list(parsed(kind).check_fields([name]))

    def test_what_only_a_plugin_could_know_is_warned_of(self, kind):
        assert list(parsed(kind).check_fields(["adam_beta1", "qqq_zzz"])) == [
            f"space.fields.qqq_zzz: {TOOLS[kind].name} {TOOLS[kind].release} does not know it"
        ]
