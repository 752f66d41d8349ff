"""What a search leaves in an Optuna storage, read with plain Optuna and back by the package."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import sqlite3
import weakref

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from autolora import Search
from autolora.scores import Scores
from autolora.search.trials import Finished, Lost, Promoted, Purpose, Sampled, Scored, TrialTable, WeightsLost
from autolora.space import Config, Space
from autolora.study import Study, StudyError
from tests.support.postgres import new_storage, postgres  # noqa: F401

RUNGS = (1 / 9, 1 / 3, 1.0)
CONFIG = Config(learning_rate=1e-3, batch_size=16, rank=8, alpha=8.0)
SPACE = Space(learning_rate=(1e-5, 1e-1), batch_size=[16, 64], rank=[8, 32], alpha="rank")


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request, tmp_path) -> str:
    return new_storage(request, tmp_path)


@pytest.fixture
def study(storage) -> Study:
    return open_study(storage)


@pytest.fixture
def opened(storage) -> Study:
    """A study whose space names two options of plain LoRA: what a study records is not checked again."""
    space = SPACE.model_copy(update={"options": {"lora.gamma": [0.5, 4], "lora.k": [1, 2, 4]}})
    return open_study(storage, space=space.model_dump())


def open_study(storage: str, examples: int | None = 900, rungs=RUNGS, **changed) -> Study:
    terms = {"variants": ["lora", "pissa"], "space": SPACE.model_dump(), "rungs": list(rungs), "examples": examples}
    return Study.open(storage, "autolora", "minimize", {**terms, **changed})


def sampled(number: int = 0, config: Config = CONFIG, purpose: Purpose = "baseline") -> Sampled:
    return Sampled(number, "lora", config, 0, purpose, 0 if purpose == "search" else 2, "prior")


def write(study: Study, *events) -> None:
    for one in events:
        study.write(one)


def plain(study: Study) -> list[optuna.trial.FrozenTrial]:
    return study.optuna_study.get_trials()


def play(storage: str | None, until: int | None = None, **terms) -> Search:
    """A search, or its first jobs, in which every fourth trial diverges and the larger trial number is worse."""
    given = {"variants": ["lora", "pissa"], "space": SPACE, "budget": 4, "examples": 900} | terms
    search = Search(storage=storage, **given)
    for _ in itertools.count() if until is None else range(until):
        if (job := search.ask()) is None:
            break
        if job.trial % 4 == 3:
            search.tell(job, diverged=True, at=job.start + 0.01)
        else:
            search.tell(job, 2 + job.trial / 100 - job.stop, seconds=60 * job.stop)
    return search


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def finished(request, tmp_path_factory) -> tuple[Search, optuna.Study]:
    """A search at its end, and its study as plain Optuna loads it."""
    storage = new_storage(request, tmp_path_factory.mktemp("finished"))
    return play(storage), optuna.load_study(storage=storage, study_name="autolora")


def test_events_come_back_as_they_were_written(study, storage):
    events = [
        sampled(purpose="search"),
        Scored(0, 0, 2.5, 10.0),
        Promoted(0, 1, "40% to improve"),
        Scored(0, 1, 2.25, 30.0),
        Finished(0, "pruned", "4% to improve", None, 0.0),
    ]
    write(study, *events)
    tables = [TrialTable(RUNGS, "minimize", past) for past in (events, open_study(storage).events())]
    assert tables[0].trials == tables[1].trials


@pytest.mark.parametrize(
    "rows",
    [Scores.of([0.1, 1 / 3, -2e300, 5e-324], [3, 1, 4, 1]), Scores.of(np.random.default_rng(0).normal(size=5000))],
)
def test_row_scores_come_back_exactly(study, storage, rows):
    write(study, sampled(), Scored(0, 2, rows.value, 10.0, rows))
    [scored] = [event for event in open_study(storage).events() if isinstance(event, Scored)]
    assert scored == Scored(0, 2, rows.value, 10.0, rows)
    assert scored.rows.totals.dtype == np.float64


def test_what_was_reported_comes_back_with_the_score_of_its_rung(study, storage):
    first, last = {"seconds": 3.5, "peak_memory": 1e9}, {"seconds": 9.25}
    write(study, sampled(), Scored(0, 0, 2.5, 10.0, metrics=first), Promoted(0, 2, ""), Scored(0, 2, 1.5, metrics=last))
    scored = [event for event in open_study(storage).events() if isinstance(event, Scored)]
    assert [event.metrics for event in scored] == [first, last]


def test_a_trial_that_did_not_fit_into_memory_is_known_as_one(study, storage):
    write(study, sampled(), Finished(0, "infeasible", "out of memory", 0.1, 2.0, too_large=True))
    assert open_study(storage).events()[-1] == Finished(0, "infeasible", "out of memory", 0.1, 2.0, too_large=True)


def test_a_metric_without_rows_is_told_from_rows_that_are_not_known(study, storage):
    write(study, sampled(), Scored(0, 2, 1.5, 10.0, Scores(1.5)))
    write(study, dataclasses.replace(sampled(), number=1), Scored(1, 2, 1.5, 10.0))
    rows = [event.rows for event in open_study(storage).events() if isinstance(event, Scored)]
    assert rows == [Scores(1.5), None]


def test_rows_are_there_once_the_score_is(study, monkeypatch):
    """A crash between the two leaves the score to be reported again, with its rows."""

    def crash(*args):
        raise KeyboardInterrupt

    write(study, sampled())
    with monkeypatch.context() as patched:
        patched.setattr(study._storage, "set_trial_intermediate_value", crash)
        with pytest.raises(KeyboardInterrupt):
            study.write(Scored(0, 2, 1.5, 10.0, Scores.of([1.0, 2.0])))
    assert not any(isinstance(event, Scored) for event in study.events())
    study.write(Scored(0, 2, 1.5, 10.0, Scores.of([1.0, 2.0])))
    assert study.events()[1].rows == Scores.of([1.0, 2.0])


def test_lost_workers_are_counted(study):
    write(study, sampled(), Lost(0), Lost(0))
    assert study.events().count(Lost(0)) == 2


def test_a_live_trial_is_running(study):
    write(study, sampled())
    assert plain(study)[0].state == TrialState.RUNNING


def test_scores_are_intermediate_values_at_their_number_of_examples(study):
    write(study, sampled(), Scored(0, 0, 2.5), Scored(0, 1, 2.25), Scored(0, 2, 2.0))
    assert plain(study)[0].intermediate_values == {100: 2.5, 300: 2.25, 900: 2.0}


def test_without_examples_steps_count_thousandths(storage):
    study = open_study(storage, examples=None)
    write(study, sampled(), Scored(0, 0, 2.5))
    assert plain(study)[0].intermediate_values == {111: 2.5}


def test_rungs_of_few_examples_keep_steps_of_their_own(storage):
    study = open_study(storage, examples=3)
    scores = [Scored(0, rung, float(rung)) for rung in range(3)]
    write(study, sampled(), *scores)
    assert plain(study)[0].intermediate_values == {1: 0.0, 2: 1.0, 3: 2.0}
    assert study.events()[1:] == scores


def test_a_complete_trial_has_its_full_length_score_as_value(study):
    write(study, sampled(), Scored(0, 2, 2.0), Finished(0, "complete", "trained to full length"))
    trial = plain(study)[0]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 2.0)


def test_a_pruned_trial_states_its_reason_and_violates_nothing(study):
    write(study, sampled(), Scored(0, 0, 2.0), Finished(0, "pruned", "4% to improve"))
    trial = plain(study)[0]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["ending"]["reason"] == "4% to improve"
    assert trial.constraints == {}


@pytest.mark.parametrize("outcome", ["diverged", "infeasible"])
def test_a_diverged_trial_is_pruned_with_its_constraint_violated(study, outcome):
    write(study, sampled(), Finished(0, outcome, "loss rose threefold", 0.02))
    trial = plain(study)[0]
    assert trial.state == TrialState.PRUNED
    assert trial.constraints == {outcome: 1.0}
    assert trial.user_attrs["ending"]["at"] == 0.02


@pytest.mark.parametrize("outcome", ["complete", "pruned", "diverged"])
def test_an_ending_cut_off_half_way_is_completed_on_opening(study, storage, outcome):
    """A crash after the reason was written and before the state was."""
    write(study, sampled(), Scored(0, 2, 2.0))
    ending = {"outcome": outcome, "reason": "why", "at": None, "seconds": 0.0}
    study._storage.set_trial_user_attr(study._ids[0], "ending", ending)
    again = open_study(storage)
    assert again.events(repair=True)[-1] == Finished(0, outcome, "why")
    assert plain(again)[0].state.is_finished()
    assert plain(again)[0].constraints == ({"diverged": 1.0} if outcome == "diverged" else {})


def test_looking_at_a_study_repairs_nothing(study, storage):
    write(study, sampled())
    ending = {"outcome": "pruned", "reason": "why", "at": None, "seconds": 0.0}
    study._storage.set_trial_user_attr(study._ids[0], "ending", ending)
    Study.read(storage, "autolora").events()
    assert plain(study)[0].state == TrialState.RUNNING


def test_a_baseline_outside_the_space_is_recorded_as_it_is(study):
    own = Config(learning_rate=0.5, batch_size=3, rank=5, alpha=7.0)
    write(study, sampled(config=own))
    assert study.events()[0].config == own


def test_options_are_parameters_that_name_their_variant(opened):
    write(opened, sampled(config=dataclasses.replace(CONFIG, options={"k": 4, "gamma": 0.5})))
    params = plain(opened)[0].params
    assert {"lora.k": 4, "lora.gamma": 0.5}.items() <= params.items()
    assert "options" not in params


def test_options_come_back_as_they_were_written(opened):
    config = dataclasses.replace(CONFIG, options={"k": 4, "gamma": 0.5})
    write(opened, sampled(config=config))
    read = opened.events()[0].config
    assert read == config
    assert [type(value) for _, value in read.options] == [float, int]


def test_an_option_outside_its_choices_is_recorded_as_it_is(opened):
    configs = [dataclasses.replace(CONFIG, options={"k": 4, "gamma": gamma}) for gamma in (0.5, 16)]
    write(opened, *(sampled(number, config) for number, config in enumerate(configs)))
    assert [past.config for past in opened.events()] == configs


def test_a_trial_of_a_study_without_options_has_none(study):
    write(study, sampled())
    assert study.events()[0].config.options == ()


OPENED = {
    "variants": ["lora", "lora_ga"],
    "space": SPACE.model_copy(update={"options": {"lora_ga.gamma": [0.5, 4, 16, 64]}}),
}


@pytest.mark.parametrize("until", [1, 5, 12])
def test_a_study_with_options_resumes_to_the_same_end(storage, until):
    play(storage, until, **OPENED)
    resumed, undisturbed = play(storage, **OPENED), play(None, **OPENED)
    assert resumed.table.trials == undisturbed.table.trials
    assert repr(resumed.best()) == repr(undisturbed.best())


def test_only_the_trials_of_its_variant_have_an_option(storage):
    search = play(storage, **OPENED)
    named = {trial.variant: {name for name, _ in trial.config.options} for trial in search.table.trials}
    assert named == {"lora": set(), "lora_ga": {"gamma"}}
    assert [
        ("lora_ga.gamma" in trial.params) for trial in optuna.load_study(storage=storage, study_name="autolora").trials
    ] == [trial.variant == "lora_ga" for trial in search.table.trials]


def test_other_choices_of_an_option_are_other_terms(storage):
    play(storage, 1, **OPENED)
    fewer = {**OPENED, "space": SPACE.model_copy(update={"options": {"lora_ga.gamma": [4, 16]}})}
    with pytest.raises(StudyError, match=r"space.options.lora_ga.gamma: \[0.5, 4, 16, 64\] -> \[4, 16\]"):
        play(storage, 1, **fewer)


def test_an_alpha_outside_its_range_is_recorded_as_it_is(storage):
    study = open_study(storage, space=Space(alpha=(4.0, 64.0)).model_dump())
    write(study, sampled(0), sampled(1, dataclasses.replace(CONFIG, alpha=300.0)))
    assert [past.config.alpha for past in study.events()] == [8.0, 300.0]


def test_another_writer_is_noticed_by_the_number_of_its_trial(study):
    """Where there is no lock."""
    study._storage.create_new_trial(study.optuna_study._study_id)
    with pytest.raises(StudyError, match="another process writes to it"):
        study.write(sampled())


def test_a_study_that_was_opened_to_be_looked_at_is_not_written(study, storage):
    with pytest.raises(StudyError, match="opened to be looked at"):
        Study.read(storage, "autolora").write(sampled())


def test_a_study_of_somebody_else_is_not_taken_over(storage):
    optuna.create_study(storage=storage, study_name="autolora").add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyError, match=r"'autolora' .* was not made by autolora: choose another name"):
        open_study(storage)


def test_reading_a_study_of_somebody_else_is_refused(storage):
    optuna.create_study(storage=storage, study_name="autolora").ask()
    with pytest.raises(StudyError, match="was not made by autolora"):
        Study.read(storage, "autolora")


def test_reading_a_study_that_is_not_there_is_refused(storage):
    with pytest.raises(StudyError, match=r"no study 'autolora' in (sqlite|postgres)"):
        Study.read(storage, "autolora")


def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(StudyError, match="cannot be made: there is no folder") as error:
        open_study(f"sqlite:///{tmp_path}/missing/study.db")
    assert "\n" not in str(error.value)


def test_a_storage_that_fails_is_one_line(tmp_path):
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}")
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON trials BEGIN SELECT RAISE(FAIL, 'disk full'); END")
    with pytest.raises(StudyError, match="does not work: disk full") as error:
        study.write(sampled())
    assert "\n" not in str(error.value)


def test_every_ending_of_a_search_has_its_optuna_state(finished):
    search, study = finished
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED}
    states[None] = TrialState.RUNNING  # paused at the end of the budget
    assert [trial.state for trial in study.trials] == [states[trial.outcome] for trial in search.table.trials]
    assert {trial.outcome for trial in search.table.trials} >= {"complete", "pruned", "diverged"}


def test_exactly_the_diverged_trials_violate_a_constraint(finished):
    search, study = finished
    violated = {trial.number for trial in study.trials if any(value > 0 for value in trial.constraints.values())}
    assert violated == {trial.number for trial in search.table.trials if trial.outcome == "diverged"}


def test_plain_optuna_finds_the_best_trial(finished):
    search, study = finished
    complete = [trial for trial in search.table.trials if trial.outcome == "complete"]
    assert study.best_trial.number == min(complete, key=lambda trial: trial.scores[2]).number
    assert study.best_params["learning_rate"] == search.table.trials[study.best_trial.number].config.learning_rate


def test_plain_optuna_knows_the_direction(storage):
    play(storage, direction="maximize")
    study = optuna.load_study(storage=storage, study_name="autolora")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value == max(trial.value for trial in study.get_trials(states=[TrialState.COMPLETE]))


def test_the_data_frame_has_a_row_a_trial_and_says_why(finished):
    pytest.importorskip("pandas")
    search, study = finished
    frame = study.trials_dataframe()
    assert len(frame) == len(search.table.trials)
    assert {"params_variant", "params_learning_rate", "params_batch_size", "params_rank", "params_alpha"} <= {*frame}
    assert list(frame["user_attrs_origin"]) == [trial.origin for trial in search.table.trials]
    assert list(frame["user_attrs_purpose"]) == [trial.purpose for trial in search.table.trials]


def test_plain_optuna_weighs_importances(finished):
    _, study = finished
    assert optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())


def test_a_table_is_rebuilt_from_the_study(finished):
    search, study = finished
    again = TrialTable(RUNGS, "minimize", Study(study).events())
    assert again.trials == search.table.trials
    assert again.trials[0].seconds == 60


def test_nothing_keeps_a_study_that_is_no_longer_used(tmp_path):
    """With it go its connections to the database."""
    study = open_study(f"sqlite:///{tmp_path}/study.db")
    write(study, sampled())
    table = TrialTable(RUNGS, "minimize", study.events())
    kept = [weakref.ref(study), weakref.ref(table)]
    del study, table
    gc.collect()
    assert [each() for each in kept] == [None, None]


def test_lost_weights_and_the_training_that_follows_are_read_back(study, storage):
    events = [
        sampled(purpose="confirm"),
        Scored(0, 2, 0.5, 1.0),
        Finished(0, "complete", "trained to full length"),
        sampled(1, CONFIG.replaced(rank=32), "search"),
        WeightsLost(0, "no intact checkpoint"),
        Sampled(2, "lora", CONFIG, 0, "repeat", 2, "trial 0 again"),
        Scored(2, 2, 0.5, 1.0),
        Finished(2, "complete", "trained to full length"),
    ]
    write(study, *events)
    study.close()
    again = TrialTable(RUNGS, "minimize", open_study(storage).events())
    assert again.trials == TrialTable(RUNGS, "minimize", events).trials
    assert [trial.weights_lost for trial in again.weights_lost("lora")] == ["no intact checkpoint"]
