"""The sections of a specification that name a configuration file."""

from __future__ import annotations

import pytest

from autolora import spec as specs
from autolora.spec import SpecError
from autolora.trainers import warn_of_unused
from tests.support.configured import FILES, configured, study


@pytest.mark.parametrize("kind", FILES)
class TestSections:
    def test_a_file_that_is_not_there_is_named(self, kind, tmp_path):
        with pytest.raises(SpecError, match=rf"no such file: .*{kind}\.yml"):
            specs.validate({"trainer": {kind: str(tmp_path / f"{kind}.yml")}, "variants": ["lora"]})

    def test_the_record_is_read_again(self, kind, tmp_path):
        spec = study(kind, tmp_path)
        assert specs.validate(specs.dump(spec)) == spec
        assert spec.trainer.file == str(tmp_path / f"{kind}.yaml")

    def test_what_starts_the_tool_may_change_between_two_starts(self, kind, tmp_path):
        first, other = study(kind, tmp_path), study(kind, tmp_path, trainer={"launcher": "other -m"})
        assert not specs.differences(specs.dump(first), specs.dump(other))
        third = study(kind, tmp_path, trainer={"devices": 2})
        assert specs.differences(specs.dump(first), specs.dump(third))

    def test_keys_that_only_the_file_can_say_are_warned_of(self, kind, tmp_path):
        spec = study(
            kind, tmp_path, training={"dropout": 0.1, "max_length": 64}, adapter={"target_modules": ["q_proj"]}
        )
        with pytest.warns(UserWarning, match=r"adapter, training\.max_length, training\.dropout have no effect"):
            warn_of_unused(spec)

    def test_model_and_data_are_not_ignored(self, kind, tmp_path, recwarn):
        rows = tmp_path / "rows.jsonl"
        rows.write_text('{"prompt": "a", "completion": "b"}\n')
        warn_of_unused(study(kind, tmp_path, model="owner/other", data={"train": str(rows)}))
        assert not recwarn


def test_processes_are_counted_from_one(tmp_path):
    with pytest.raises(SpecError, match="devices"):
        specs.validate({"trainer": configured("axolotl", tmp_path, devices=0), "variants": ["lora"]})
