"""The sampler in plain Optuna: Optuna's own contract, and what ours promises beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial

from autolora import variants
from autolora.integrations.optuna import DivergencePruner, LoraSampler
from autolora.priors import Prior
from autolora.space import Config, Space

WIDTH, LENGTH = 2048, 5000
PRIOR = Prior.from_laws(WIDTH, LENGTH)
VARIANTS = CategoricalDistribution(["lora", "dora", "pissa"])
SPACE = {
    "learning_rate": FloatDistribution(1e-6, 1e-1, log=True),
    "batch_size": CategoricalDistribution([16, 64]),
    "r": CategoricalDistribution([8, 32]),
    "lora_alpha": FloatDistribution(4, 1024, log=True),
}


class TestContract(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Parameters that are not ours."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return LoraSampler


@pytest.mark.filterwarnings("ignore:LoraSampler cannot search")
class TestContractOfOurs(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """The tests' parameters taken for ours, whatever they hold."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LoraSampler(names={"learning_rate": "x", "rank": "y"})


class TestContractOfAlphaAndBatchSize(TestContractOfOurs):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LoraSampler(names={"learning_rate": "x", "alpha": "y", "batch_size": "z"}, prior=None)


def study_of(sampler: BaseSampler | None = None, **settings: Any) -> optuna.Study:
    return optuna.create_study(sampler=sampler or lora_sampler(), **settings)


def lora_sampler(**settings: Any) -> LoraSampler:
    return LoraSampler(**{"hidden_size": WIDTH, "examples": LENGTH, "search_space": SPACE, **settings})


def z_of(params: Mapping[str, Any], variant: str = "lora") -> float:
    """Where a trial's learning rate lies in scaling-law coordinates: 0 is where the laws expect the best."""
    config = Config(params["learning_rate"], params["batch_size"], params["r"], params["lora_alpha"])
    return PRIOR.coordinates.z(variants.get(variant).traits, config)


def at(z: float, rank: int = 8, batch: int = 16, alpha: float = 64.0, variant: str = "lora") -> dict[str, Any]:
    rate = PRIOR.coordinates.learning_rate(variants.get(variant).traits, z, batch, rank, alpha)
    return {"learning_rate": rate, "batch_size": batch, "r": rank, "lora_alpha": alpha}


def record(study: optuna.Study, params: Mapping[str, Any], value: float | None = None, **settings: Any) -> None:
    """Add a finished trial."""
    space = {name: VARIANTS if name == "variant" else SPACE[name] for name in params}
    study.add_trial(create_trial(params=dict(params), distributions=space, value=value, **settings))


def drawn(study: optuna.Study, count: int = 40) -> list[float]:
    """z of further proposals, each made as if it were the only one."""
    return [
        z_of(study.sampler.sample_relative(study, trial(number), dict(SPACE))) for number in range(100, 100 + count)
    ]


def trial(number: int, **settings: Any) -> FrozenTrial:
    """A trial that has just been asked for."""
    made = create_trial(state=TrialState.RUNNING, **settings)
    made.number = number
    return made


def loss(params: Mapping[str, Any]) -> float:
    """A bowl that falls towards a cliff half a decade above where the laws expect the best."""
    z = z_of(params)
    return math.inf if z > 0.5 else (z - 0.5) ** 2 + 0.02 * (params["r"] == 8)


def optimized(sampler: BaseSampler, trials: int, storage: str | None = None) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, storage=storage, study_name="s", load_if_exists=True)
    study.optimize(lambda trial: loss({name: trial._suggest(name, SPACE[name]) for name in SPACE}), trials)
    return study


def params_of(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def test_the_first_trial_is_the_prior_s_mode():
    space = Space(learning_rate=(1e-6, 1e-1), batch_size=[16, 64], rank=[8, 32], alpha=(4, 1024), hidden_size=WIDTH)
    mode = PRIOR.mode(space, variants.get("lora").traits)
    params = study_of().ask(SPACE).params
    assert list(params.values()) == [mode.learning_rate, mode.batch_size, mode.rank, mode.alpha]


def test_the_first_trial_is_the_mode_where_the_learning_rate_is_suggested_last():
    order = ["r", "lora_alpha", "batch_size", "learning_rate"]
    params = study_of(lora_sampler(search_space=None)).ask({name: SPACE[name] for name in order}).params
    assert params == study_of().ask(SPACE).params


def test_it_finds_the_edge_with_fewer_trials_than_random_sampling():
    ours = [optimized(lora_sampler(seed=seed), 12).best_value for seed in range(8)]
    random = [optimized(RandomSampler(seed=seed), 24).best_value for seed in range(8)]
    assert sum(ours) < sum(random)


def test_a_continued_study_proposes_what_an_uninterrupted_one_does(tmp_path):
    for trials in (1, 3, 5):
        cut = optimized(lora_sampler(), trials, f"sqlite:///{tmp_path / 's.db'}")
    assert params_of(cut) == params_of(optimized(lora_sampler(), 9))


def test_the_seed_makes_the_difference():
    assert params_of(optimized(lora_sampler(seed=0), 3))[1:] != params_of(optimized(lora_sampler(seed=1), 3))[1:]


def test_trials_that_run_are_not_repeated():
    space = {
        **SPACE,
        "learning_rate": CategoricalDistribution([1e-4, 1e-3]),
        "lora_alpha": CategoricalDistribution([16]),
    }
    study = study_of(lora_sampler(search_space=space))
    asked = [study.ask(space).params for _ in range(8)]
    assert len({tuple(params.values()) for params in asked}) == 8


def test_workers_that_start_at_once_do_not_draw_the_same():
    study = study_of()
    first, second, third = (study.ask() for _ in range(3))  # nothing is suggested yet
    suggested = [[one._suggest(name, SPACE[name]) for name in SPACE] for one in (third, second, first)]
    assert suggested[0] != suggested[1] != suggested[2] != suggested[0]
    assert suggested[2] == list(study_of().ask(SPACE).params.values())


def test_a_finite_space_is_tried_whole_and_then_repeated():
    space = {"learning_rate": CategoricalDistribution([1e-4, 1e-3]), "r": CategoricalDistribution([8, 16])}
    study = study_of(lora_sampler(search_space=space))
    seen = []
    for _ in range(6):
        asked = study.ask(space)
        seen.append(tuple(asked.params.values()))
        study.tell(asked, 1.0)
    assert len(set(seen[:4])) == 4


def test_nothing_is_drawn_where_a_value_was_infinite():
    study = study_of()
    record(study, at(0.0), math.inf)
    assert max(drawn(study)) < 0.0


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
@pytest.mark.parametrize("values", [[2.0, math.nan], [2.0, 1.9, 9.0, 12.0, 15.0]], ids=["NaN", "rising"])
def test_nothing_is_drawn_where_reported_losses_blew_up(state, values):
    study = study_of()
    record(study, at(0.0), state=state, intermediate_values=dict(enumerate(values)))
    assert max(drawn(study)) < 0.0


def test_nothing_is_drawn_where_a_trial_is_marked_as_diverged():
    study = study_of()
    study.enqueue_trial(at(0.0))
    asked = study.ask(SPACE)
    asked.set_constraint("diverged", 1.0)
    study.tell(asked, state=TrialState.PRUNED)
    assert max(drawn(study)) < 0.0


def test_a_failure_that_does_not_show_why_tells_nothing():
    study = study_of()
    record(study, at(-0.3), state=TrialState.FAIL)
    assert max(drawn(study)) > -0.3


def test_failures_count_as_divergence_where_that_is_asked_for():
    study = study_of(lora_sampler(failed="diverged"))
    record(study, at(-0.3), state=TrialState.FAIL)
    assert max(drawn(study)) < -0.3


def test_a_pruned_trial_that_went_well_does_not_count_as_diverged():
    study = study_of()
    record(study, at(-1.0), state=TrialState.PRUNED, intermediate_values={0: 2.0, 1: 1.9})
    assert max(drawn(study)) > -1.0


def test_the_study_s_own_divergence_pruner_sets_the_rule():
    reported = {0: 2.0, 1: 1.9, 2: 6.0, 3: 6.0}
    study = study_of(pruner=DivergencePruner(examples_per_report=1))
    record(study, at(-1.0), state=TrialState.PRUNED, intermediate_values=reported)
    assert max(drawn(study)) > -1.0


def test_scores_of_pruned_trials_count_where_the_length_of_a_full_run_is_known():
    medians = []
    for full in (None, 100, lambda params: 6.25 * params["batch_size"]):
        study = study_of(lora_sampler(max_resource=full))
        for z in (-1.0, 0.0, 1.0, 1.2):
            record(study, at(z), state=TrialState.PRUNED, intermediate_values={10: 5.0, 40: 3 - z})
        medians.append(median(drawn(study)))
    assert medians[1] == medians[2] > medians[0] + 0.3


def test_a_trial_that_waits_is_not_repeated_nor_asked_for_its_length():
    space = {"learning_rate": CategoricalDistribution([1e-4, 1e-3]), "batch_size": SPACE["batch_size"]}
    study = study_of(lora_sampler(search_space=space, max_resource=lambda params: 100 / params["batch_size"]))
    asked = [study.ask(space).params]
    study.enqueue_trial({"learning_rate": 1e-4, "batch_size": 64})
    made = trial(9)
    asked.append(study.sampler.sample_relative(study, made, space))
    assert {"learning_rate": 1e-4, "batch_size": 64} not in asked
    assert asked[0] != asked[1]


def test_an_infeasible_trial_is_not_the_incumbent():
    medians = []
    for constraint in (0.0, 1.0):
        study = study_of()
        for z, score in ((-1.5, 0.1), (-0.5, 0.5), (0.0, 0.6)):
            study.enqueue_trial(at(z))
            asked = study.ask(SPACE)
            asked.set_constraint("memory", constraint if z == -1.5 else 0.0)
            study.tell(asked, score)
        medians.append(median(drawn(study)))
    assert medians[0] < medians[1] - 0.3


def test_every_variant_gets_its_share_of_the_trials_and_begins_at_its_mode():
    space = {"variant": VARIANTS, **SPACE}
    study = study_of(lora_sampler(search_space=space))
    for _ in range(6):
        study.tell(study.ask(space), 1.0)
    names = [params["variant"] for params in params_of(study)]
    assert [names.count(name) for name in VARIANTS.choices] == [2, 2, 2]
    assert [z_of(params, params["variant"]) for params in params_of(study)[:3]] == pytest.approx([0, 0, 0], abs=1e-6)


def test_what_one_variant_shows_moves_the_draws_of_another():
    medians = []
    for z in (-1.0, 1.0):
        study = study_of(lora_sampler(search_space={"variant": VARIANTS, **SPACE}))
        for step in range(3):
            record(study, {"variant": "lora", **at(z + 0.1 * step)}, 1.0)
        record(study, {"variant": "dora", **at(0.0)}, 1.0)
        space = {name: SPACE[name] for name in SPACE}
        asked = [trial(n, params={"variant": "dora"}, distributions={"variant": VARIANTS}) for n in range(100, 140)]
        medians.append(median(z_of(study.sampler.sample_relative(study, one, space)) for one in asked))
    assert medians[1] > medians[0] + 0.5


@pytest.mark.parametrize("alpha", ["rank", "law", 16])
def test_an_alpha_that_is_not_searched_moves_the_learning_rate_by_the_laws(alpha):
    space = {name: SPACE[name] for name in ("learning_rate", "batch_size", "r")}
    sampler = lora_sampler(search_space=space, alpha=alpha)
    params = study_of(sampler).ask(space).params
    rank = params["r"]
    used = {"rank": rank, "law": math.sqrt(3 * WIDTH * rank), 16: 16}[alpha]
    assert sampler.alpha(rank) == pytest.approx(used)
    assert z_of({**params, "lora_alpha": used}) == pytest.approx(0.0)


def test_a_rank_and_batch_size_that_are_not_searched_move_the_learning_rate():
    space = {name: SPACE[name] for name in ("learning_rate", "lora_alpha")}
    params = study_of(lora_sampler(search_space=space, rank=64, batch_size=128)).ask(space).params
    assert z_of({**params, "r": 64, "batch_size": 128}) == pytest.approx(0.0)


def test_the_batch_size_of_one_device_counts_as_often_as_there_are_devices():
    space = {"per_device_train_batch_size": CategoricalDistribution([2, 4]), "learning_rate": SPACE["learning_rate"]}
    params = study_of(lora_sampler(search_space=space, batch_multiplier=8)).ask(space).params
    assert params["per_device_train_batch_size"] == 2
    assert z_of({**params, "batch_size": 16, "r": 8, "lora_alpha": 8}) == pytest.approx(0.0)


@pytest.mark.parametrize("given", [{"r": 32}, {"batch_size": 64}, {"lora_alpha": 8.0}, {"r": 32, "lora_alpha": 32.0}])
def test_the_rest_of_an_enqueued_trial_follows_what_is_given(given):
    study = study_of()
    study.enqueue_trial(given)
    params = study.ask(SPACE).params
    assert given.items() <= params.items()
    assert z_of(params) == pytest.approx(0.0)


def test_whole_numbers_are_drawn_from_ranges_of_them():
    space = {
        "lr": FloatDistribution(1e-5, 1e-2, step=1e-5),
        "batch_size": IntDistribution(8, 64, step=8),
        "lora_r": IntDistribution(4, 100, log=True),
        "alpha": IntDistribution(8, 200),
    }
    study = study_of(lora_sampler(search_space=space))
    for _ in range(12):
        asked = study.ask(space)
        study.tell(asked, asked.params["lr"])
    assert {params["lora_r"] for params in params_of(study)} <= {4, 8, 16, 32, 64, 100}
    assert all(isinstance(params["alpha"], int) for params in params_of(study))


def test_a_redundant_alpha_that_cannot_be_r_moves_the_learning_rate():
    space = {**SPACE, "lora_alpha": IntDistribution(64, 128)}
    params = study_of(lora_sampler(search_space=space, variant="pissa")).ask(space).params
    assert z_of(params, "pissa") == pytest.approx(0.0)


def test_trials_that_another_sampler_drew_are_learned_from():
    space = {**SPACE, "r": IntDistribution(3, 100, log=True)}
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    study.optimize(lambda trial: loss({name: trial._suggest(name, space[name]) for name in space}), 12)
    study.sampler = lora_sampler(search_space=space)
    study.optimize(lambda trial: loss({name: trial._suggest(name, space[name]) for name in space}), 6)
    assert len(study.trials) == 18


def test_other_parameters_are_left_to_the_independent_sampler():
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        other = optuna.samplers.PartialFixedSampler({"label_smoothing": 0.125}, RandomSampler())
    study = study_of(lora_sampler(independent_sampler=other))
    asked = study.ask({**SPACE, "label_smoothing": FloatDistribution(0, 1)})
    assert asked.params["label_smoothing"] == 0.125
    assert z_of(asked.params) == pytest.approx(0.0)


def test_other_parameters_are_the_same_in_a_continued_study(tmp_path):
    space = {
        **SPACE,
        "label_smoothing": FloatDistribution(0, 1),
        "schedule": CategoricalDistribution(["linear", "cosine"]),
    }
    studies = [study_of() for _ in range(2)]
    for _ in range(12):
        studies[1].sampler = lora_sampler()
        for study in studies:
            study.tell(asked := study.ask(space), asked.params["label_smoothing"])
    assert params_of(studies[0]) == params_of(studies[1])


def test_a_study_without_a_learning_rate_is_left_to_the_independent_sampler():
    study = study_of(lora_sampler(search_space=None, independent_sampler=RandomSampler(seed=0)))
    study.optimize(lambda trial: trial.suggest_int("r", 1, 100), 5)
    assert len({params["r"] for params in params_of(study)[1:]}) > 1
    assert study.sampler.infer_relative_search_space(study, study.trials[0]) == {}


def test_a_study_of_several_objectives_is_left_to_the_independent_sampler():
    study = study_of(directions=["minimize", "minimize"])
    for _ in range(3):
        study.tell(study.ask(SPACE), [1.0, 2.0])
    assert study.sampler.infer_relative_search_space(study, study.trials[0]) == {}
    assert z_of(study.trials[0].params) != pytest.approx(0.0)


@pytest.mark.parametrize(
    "distribution",
    [FloatDistribution(0.0, 1.0), CategoricalDistribution(["low", "high"]), FloatDistribution(-1.0, 1.0)],
)
def test_a_learning_rate_that_cannot_be_one_is_left_to_the_independent_sampler_with_a_warning(distribution):
    study = study_of(lora_sampler(search_space=None))
    with pytest.warns(UserWarning, match="cannot search 'learning_rate'"):
        study.ask({"learning_rate": distribution})


@pytest.mark.parametrize("other", [CategoricalDistribution(["large", "small"]), IntDistribution(1, 9)])
def test_the_variant_of_something_else_is_left_to_the_independent_sampler(other):
    space = {"variant": other, **SPACE}
    with pytest.warns(UserWarning, match="cannot search 'variant'"):
        params = study_of(lora_sampler(search_space=space)).ask(space).params
    assert z_of(params) == pytest.approx(0.0)


@pytest.mark.parametrize("pruner", [optuna.pruners.HyperbandPruner(1, 9), optuna.pruners.MedianPruner()])
def test_it_works_with_a_pruner_that_compares_trials(pruner):
    def objective(trial: optuna.Trial) -> float:
        params = {name: trial._suggest(name, SPACE[name]) for name in SPACE}
        for step in range(1, 10):
            trial.report(min(loss(params), 100.0) + 1 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return min(loss(params), 100.0)

    study = study_of(lora_sampler(max_resource=9), pruner=pruner)
    study.optimize(objective, n_trials=20)
    assert study.best_value < 0.5


def test_threads_may_share_it():
    study = study_of(lora_sampler(search_space=None))
    study.optimize(lambda trial: loss({name: trial._suggest(name, SPACE[name]) for name in SPACE}), 12, n_jobs=2)
    assert len({params["learning_rate"] for params in params_of(study)}) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "lorra"}, "did you mean 'lora'"),
        ({"rank": 0}, "rank must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"batch_multiplier": 0.5}, "batch_multiplier must be"),
        ({"alpha": -1}, "alpha must be"),
        ({"alpha": "laws"}, "alpha must be"),
        ({"prior": "law"}, "prior must be"),
        ({"failed": "lost"}, "failed must be"),
        ({"max_resource": 0}, "max_resource must be"),
        ({"names": {"lr": "x"}}, "names must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_a_wrong_argument_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LoraSampler(**settings)


def test_a_variant_that_is_no_longer_searched_is_still_learned_from():
    study = study_of(lora_sampler(search_space={"variant": VARIANTS, **SPACE}))
    for z in (0.8, 1.0, 1.2):
        record(study, {"variant": "dora", **at(z, variant="dora")}, 1 + abs(z - 1))
    record(study, at(0.0), 2.0)
    study.sampler = lora_sampler()
    assert median(drawn(study, 1)) > 0.2
