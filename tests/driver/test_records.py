import pytest
import yaml

from autolora import files
from autolora import spec as specs
from autolora.driver.directory import RunDirectoryError, adopted, run_directory
from autolora.driver.records import FORMER, RecordError, completed, continued
from autolora.files import Document
from autolora.spec import Spec
from autolora.study.directory import SPEC_FILE, STUDY_FILE


def load(**changed) -> Spec:
    return specs.load({"model": "m", "data": "d", **changed})


def recorded(**changed) -> Document:
    return specs.dump(load(**changed))


@pytest.fixture
def begun(tmp_path):
    """A directory in which a study of an earlier version began."""

    def begin(record: Document):
        files.write(tmp_path / SPEC_FILE, yaml.safe_dump(record))
        (tmp_path / STUDY_FILE).touch()
        return tmp_path

    return begin


def test_a_record_of_today_is_complete():
    record = recorded(baseline={"learning_rate": 1e-4, "rank": 8, "alpha": 16}, prior=None)
    assert completed(record) == record


@pytest.mark.parametrize("key", ["keep", "prior", "resources", "base"])
def test_a_key_that_came_later_has_its_default(key):
    record = recorded()
    del record[key]
    assert completed(record) == recorded()


def test_a_key_of_a_section_that_came_later_has_its_default():
    record = recorded()
    del record["training"]["dropout"]
    assert completed(record) == recorded()


def test_a_section_that_was_left_out_on_purpose_stays_so():
    assert completed(recorded(prior=None))["prior"] is None


@pytest.mark.parametrize("key", FORMER)
def test_what_the_user_leaves_to_the_default_goes_on_as_it_was(key):
    section, name = key.split(".")
    record = recorded()
    record[section][name] = FORMER[key]
    assert specs.dump(continued(load(), record))[section][name] == FORMER[key]


@pytest.mark.parametrize("key", FORMER)
def test_a_key_that_was_not_there_means_what_was_done_then(key):
    section, name = key.split(".")
    record = recorded()
    del record[section][name]
    assert specs.dump(continued(load(), record))[section][name] == FORMER[key]


def test_what_is_continued_is_recorded_without_a_warning(recwarn):
    specs.dump(continued(load(), {}))
    assert not recwarn.list


def test_a_value_of_the_user_is_kept():
    assert continued(load(training={"max_length": 64}), recorded()).training.max_length == 64


def test_a_study_of_an_earlier_version_is_continued_with_its_defaults(begun):
    record = recorded()
    del record["keep"]
    record["training"]["max_length"] = 512
    with run_directory(begun(record), load()) as spec:
        assert spec.training.max_length == 512


def test_a_value_other_than_the_record_is_refused(begun):
    record = recorded()
    record["training"]["max_length"] = 512
    refused = pytest.raises(RunDirectoryError, match=r"training\.max_length: 512 -> 64")
    with refused, run_directory(begun(record), load(training={"max_length": 64})):
        pass


def test_a_directory_without_a_study_changes_nothing(tmp_path):
    specs.save(load(training={"max_length": 64}), tmp_path / SPEC_FILE)
    assert adopted(tmp_path, load()) == load()


@pytest.mark.parametrize("settled", [False, [64, 85]])
@pytest.mark.parametrize("asked", [{}, {"evaluation": {"subset": "auto"}}])
def test_rows_of_short_runs_go_on_as_they_were_settled(begun, settled, asked):
    with run_directory(begun(recorded(evaluation={"subset": settled})), load(**asked)) as spec:
        assert specs.dump(spec)["evaluation"] == {"subset": settled}


@pytest.mark.parametrize("asked", [False, 64, [64, 86]])
def test_other_rows_of_short_runs_are_refused(begun, asked):
    refused = pytest.raises(RunDirectoryError, match=r"evaluation\.subset: \[64, 85\] -> ")
    with refused, run_directory(begun(recorded(evaluation={"subset": [64, 85]})), load(evaluation={"subset": asked})):
        pass


def test_a_study_before_there_were_rows_of_short_runs_goes_on_with_all(begun):
    record = recorded()
    del record["evaluation"]
    with run_directory(begun(record), load(evaluation={"subset": "auto"})) as spec:
        assert spec.evaluation.subset is False


def command(**trainer) -> Spec:
    return specs.load({"trainer": {"command": "train {learning_rate}", "examples": 72, **trainer}})


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders, the first of which is the working directory."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    return tmp_path / "first", tmp_path / "second"


def test_a_command_stays_in_the_folder_of_the_first_start(begun, folders, monkeypatch, recwarn):
    first, second = folders
    folder = begun(specs.dump(command()))
    monkeypatch.chdir(second)
    with run_directory(folder, command()) as spec:
        assert spec.trainer.cwd == str(first)
    assert not recwarn.list


def test_another_folder_that_is_named_is_taken_and_said(begun, folders):
    first, second = folders
    folder = begun(specs.dump(command()))
    with (
        pytest.warns(UserWarning, match=f"trainer.cwd: {first} -> {second}"),
        run_directory(folder, command(cwd=str(second))) as spec,
    ):
        assert spec.trainer.cwd == str(second)


def test_a_folder_of_the_first_start_that_is_gone_is_asked_for(begun, folders, monkeypatch):
    first, second = folders
    folder = begun(specs.dump(command()))
    monkeypatch.chdir(second)
    first.rmdir()
    with pytest.raises(RecordError, match=r"which is gone; set trainer\.cwd"):
        adopted(folder, command())
