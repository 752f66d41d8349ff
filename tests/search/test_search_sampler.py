"""Where configurations are sampled, given what is known."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from autolora import Search
from autolora.priors import Prior
from autolora.search.acquisition import Acquisitions
from autolora.search.policy import FUTILE
from autolora.space import Config, Space
from tests.support.history import NAMES, PRIOR, TRAITS, History, at, sampler, z_of
from tests.support.simulation import SPACE, play, searched

LISTED = Space(learning_rate=[1e-4, 1e-3, 1e-2], batch_size=[8], rank=[4, 8], alpha="rank")
OPENED = SPACE.model_copy(update={"options": {"lora.gamma": [4, 16, 64]}})


def acquisitions(history: History, variant: str = "lora", **settings) -> Acquisitions:
    made = sampler(**settings)
    return made.acquisitions(history.table, variant, made.surrogate(history.table))


def fresh(history: History, variant: str = "lora", **settings) -> Config | None:
    proposal = acquisitions(history, variant, **settings).proposal
    return proposal and proposal.config


def drawn(history: History, variant: str = "lora", seeds: int = 8, **settings) -> list[Config]:
    return [fresh(history, variant, seed=seed, **settings) for seed in range(seeds)]


def zs(configs: list[Config], variant: str = "lora") -> list[float]:
    return [z_of(variant, config) for config in configs]


def bowl(*places: float, best: float = 0.0, variant: str = "lora") -> History:
    """Full runs of a parabola over z."""
    history = History()
    for z in places:
        score = 1 + (z - best) ** 2
        history.add(variant, at(z, variant), score + 0.4, score + 0.2, score)
    return history


def test_an_outlook_depends_on_table_and_seed_alone():
    history = bowl(0.3, -0.4).add("lora", at(0.1), 1.5)
    assert acquisitions(history) == acquisitions(history)
    assert fresh(history, seed=1) != fresh(history)


def test_a_tried_configuration_is_not_proposed_again():
    history = History()
    for _ in range(6):
        config = fresh(history, space=LISTED)
        assert config not in {trial.config for trial in history.table.trials}
        history.add("lora", config, 1.0)


def test_a_finite_space_is_proposed_whole_and_then_ends():
    history = History()
    while (config := fresh(history, space=LISTED)) is not None:
        history.add("lora", config, 1.0)
    assert {trial.config for trial in history.table.trials} == set(LISTED.enumerate(TRAITS["lora"]))


def test_a_used_up_space_still_tells_what_paused_trials_promise():
    history = History()
    for config in LISTED.enumerate(TRAITS["lora"]):
        history.add("lora", config, 1.0)
    assert set(acquisitions(history, space=LISTED).paused) == set(range(6))


def test_another_variant_s_trials_use_up_nothing():
    history = History()
    for config in LISTED.enumerate(TRAITS["lora"]):
        history.add("dora", config, 1.0)
    assert fresh(history, space=LISTED) is not None


def test_the_last_of_a_finite_space_are_proposed_even_beyond_a_divergence():
    space = LISTED.model_copy(update={"rank": [4]})
    history = History().add("lora", Config(1e-4, 8, 4, 4.0), outcome="diverged", at=0.02)
    assert fresh(history, space=space) == Config(1e-3, 8, 4, 4.0)


def test_nothing_is_proposed_at_or_beyond_a_divergence():
    history = bowl(-0.5).add("lora", at(-0.2), outcome="diverged", at=0.02)
    assert max(zs(drawn(history))) < -0.2


def test_a_divergence_below_a_healthy_trial_does_not_count():
    history = bowl(0.5, 0.3, best=0.5).add("lora", at(-1.0), outcome="diverged", at=0.02)
    assert max(zs(drawn(history))) > -1.0


def test_a_divergence_forbids_nothing_to_another_variant():
    history = bowl(0.6, 0.3, best=0.6, variant="dora").add("lora", at(-1.5), outcome="diverged", at=0.02)
    assert max(zs(drawn(history, "dora"), "dora")) > -1.5


def test_an_infeasible_trial_says_nothing_about_the_learning_rate():
    history = bowl(0.3).add("lora", at(-1.5), outcome="infeasible", at=0.0)
    assert max(zs(drawn(history))) > -1.5


def test_proposals_lie_where_the_scores_were_best():
    assert np.median(zs(drawn(bowl(-0.6, 0.0, 0.4, 0.8, 1.2, best=0.6)))) == pytest.approx(0.6, abs=0.3)


@pytest.mark.parametrize("under_way", [True, False], ids=["trained", "paused"])
def test_proposals_spread_over_what_is_open(under_way):
    """Each is chosen for what it adds to those before it."""
    history = bowl(0.8)
    for _ in range(5):
        history.add("lora", fresh(history), *([] if under_way else [2.0]))
    places = sorted(zs([trial.config for trial in history.table.trials[1:]]))
    assert len(set(places)) == 5
    assert places[-1] - places[0] > 0.2


def test_a_trial_that_is_being_trained_takes_gain_but_no_chance():
    history = bowl(0.8).add("lora", at(0.0), 1.45)
    before = acquisitions(history).paused[1]
    for _ in range(6):
        history.add("lora", at(0.01), target=0)
        history.add("lora", at(-0.01), target=0)
    after = acquisitions(history).paused[1]
    assert after.expected_improvement < 0.8 * before.expected_improvement
    assert after.probability_of_improvement == pytest.approx(before.probability_of_improvement, abs=0.1)


def test_what_paused_trials_promise_is_told_without_a_proposal():
    history = bowl(0.8).add("lora", at(0.0), 1.45).add("lora", at(2.0), 9.0)
    made = sampler()
    promises = made.paused_acquisitions(history.table, "lora", made.surrogate(history.table))
    assert set(promises) == {1, 2}
    assert promises[1].probability_of_improvement > 0.1 > FUTILE > promises[2].probability_of_improvement


def test_a_variant_without_a_full_run_welcomes_one():
    assert acquisitions(History()).proposal.acquisition.expected_improvement > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prior", [PRIOR, None], ids=["laws", "none"])
@pytest.mark.parametrize("alpha", ["law", "rank", 16.0, [4, 16, 64], (2, 128)])
def test_every_proposal_keeps_to_the_space(alpha, name, prior):
    space = Space(learning_rate=(1e-4, 1e-2), batch_size=[8, 32], rank=[4, 16], alpha=alpha, hidden_size=64)
    history = History().add(name, Config(0.5, 3, 7, 1000.0), 1.0, 1.0, 1.0, purpose="baseline")  # a user's
    history.add(name, Config(1e-3, 8, 4, 4.0), 2.0, 2.0, 2.0)
    for config in drawn(history, name, 3, space=space, prior=prior):
        assert space.learning_rates.contains(config.learning_rate)
        assert config.batch_size in space.batch_size
        assert config.rank in space.rank
        alphas = space.alphas(TRAITS[name], config.rank)
        assert config.alpha in alphas if isinstance(alphas, list) else alphas.contains(config.alpha)


def test_a_proposal_says_its_chance_and_how_far_the_centre_has_moved():
    origin = acquisitions(bowl(0.8, 1.0, 1.2, best=1.0)).proposal.origin
    assert origin.startswith("model: ")
    assert "% to improve, centre moved by +0." in origin


def test_without_a_prior_no_centre_is_told_of():
    assert "centre" not in acquisitions(bowl(0.8, 1.0, 1.2, best=1.0), prior=None).proposal.origin


def test_a_prior_that_the_scores_contradict_is_said_to_be_doubted():
    sure = Prior(PRIOR.centre, 0.1, 64)
    history = bowl(-0.5, 0.5, 1.0, 1.5, 2.0, 2.5, best=1.5)
    assert acquisitions(history, prior=sure).proposal.origin.endswith("the prior's centre is doubted")
    assert "doubted" not in acquisitions(bowl(-0.5, 0.0, 0.5), prior=sure).proposal.origin


def test_a_search_finds_the_good_region_of_a_prior_that_is_off_by_a_decade():
    search = Search(variants=["lora"], space=SPACE, budget=8, confirm=0, prior=Prior(PRIOR.centre, PRIOR.sd, 64))

    def score(job):
        return 1 + (z_of("lora", job.config) - 1.0) ** 2 + 0.1 * (1 - job.stop)

    play(search, score=score, diverge=False)
    assert len(searched(search, "lora")) <= 20
    assert abs(z_of("lora", search.best()["lora"].config) - 1.0) < 0.3


@pytest.mark.parametrize("prior", [PRIOR, None], ids=["laws", "none"])
def test_options_are_drawn_from_their_choices(prior):
    history = History()
    for z, score in ((0.3, 1.0), (0.1, 2.0), (0.2, 1.5)):
        history.add("lora", replace(at(z), options={"gamma": 5}), score, score, score)  # as a baseline may have it
    gammas = {dict(config.options)["gamma"] for config in drawn(history, space=OPENED, prior=prior, seeds=12)}
    assert gammas <= {4, 16, 64}
    assert len(gammas) > 1


def test_the_better_option_is_expected_to_be_better():
    history = History()
    for z in (-0.2, 0.0, 0.2):
        for gamma, score in ((4, 1.2), (16, 1.4), (64, 1.0)):
            history.add("lora", replace(at(z), options={"gamma": gamma}), *[score + z**2] * 3)
    configs = [replace(at(0.1, rank=4), options={"gamma": gamma}) for gamma in (4, 16, 64)]
    draws = sampler(OPENED).surrogate(history.table).draws("lora", configs, np.random.default_rng(0))
    expected = draws.weights @ draws.values
    assert expected[2] < expected[0] - 1 < expected[1] - 1


def test_another_variant_s_option_is_not_part_of_a_configuration():
    assert fresh(bowl(0.3, variant="dora"), "dora", space=OPENED).options == ()


def test_a_finite_space_with_options_is_proposed_whole_and_then_ends():
    space = LISTED.model_copy(update={"rank": [4], "options": {"lora.k": [1, 2]}})
    history = History()
    while (config := fresh(history, space=space)) is not None:
        history.add("lora", config, 1.0)
    assert {trial.config for trial in history.table.trials} == set(space.enumerate(TRAITS["lora"], "lora"))


def first(baseline: Config | None = None, **options) -> Config:
    """The first configuration of a search for LoRA-GA."""
    space = SPACE.model_copy(update={"options": {f"lora_ga.{name}": choices for name, choices in options.items()}})
    given = {"lora_ga": baseline} if baseline else None
    return Search(variants=["lora_ga"], space=space, baseline=given).ask().config


@pytest.mark.parametrize(("choices", "start"), [([4, 16, 64], 16), ([4, 64], 4), ([8], 8)])
def test_the_default_configuration_has_the_variant_s_own_option_or_the_first_choice(choices, start):
    assert first(gamma=choices).options == (("gamma", start),)


@pytest.mark.parametrize(("choices", "start"), [([4, 16, 64], 16), ([4, 64], 16), ([8], 8)])
def test_the_user_s_baseline_has_the_variant_s_own_option_or_the_pinned_one(choices, start):
    baseline = Config(2e-4, 8, 8, 16.0)
    assert first(baseline, gamma=choices) == replace(baseline, options={"gamma": start})


@pytest.mark.parametrize(("choices", "options"), [([1, 2, 4], ()), ([4], (("k", 4),))])
def test_a_baseline_leaves_open_what_its_variant_chooses_by_itself(choices, options):
    """GraLoRA's number of blocks goes by the rank where it is not given."""
    baseline = {"gralora": Config(2e-4, 8, 8, 16.0)}
    space = Space(options={"gralora.k": choices})
    assert Search(variants=["gralora"], space=space, baseline=baseline).ask().config.options == options


def test_a_baseline_s_own_option_is_kept():
    baseline = Config(2e-4, 8, 8, 16.0, {"gamma": 32})
    assert first(baseline, gamma=[4, 16]) == baseline


def test_a_baseline_with_an_option_that_the_space_does_not_name_is_refused():
    with pytest.raises(
        ValueError, match=r"the baseline of lora_ga sets lora_ga.gamma, which space.options does not name"
    ):
        first(Config(2e-4, 8, 8, 16.0, {"gamma": 32}))


def test_a_baseline_has_what_is_pinned():
    space = Space(dropout=0.1, weight_decay=[0.05], warmup_ratio=[0.0, 0.1])
    search = Search(variants=["lora"], space=space, baseline={"lora": Config(2e-4, 8, 8, 16.0)})
    config = search.ask().config
    assert (config.dropout, config.weight_decay, config.warmup_ratio) == (0.1, 0.05, 0.03)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"drpout": 0.1}, "sets 'drpout', which is not a hyperparameter; did you mean 'dropout'?"),
        ({"dropout": 3.0}, "has dropout = 3.0, which is not allowed"),
        ({"rank": 0}, "has rank = 0, which is not allowed"),
    ],
)
def test_a_baseline_of_what_is_no_value_is_refused(values, message):
    baseline = {"lora": Config(2e-4, 8, 8, 16.0).replaced(**values)}
    with pytest.raises(ValueError, match=re.escape(f"the baseline of lora {message}")):
        Search(variants=["lora"], baseline=baseline)


def test_a_search_refuses_an_option_that_its_variants_lack():
    with pytest.raises(ValueError, match=r"space.options.lora.gamma: .* lora has no option 'gamma'; its options: none"):
        Search(variants=["lora"], space=OPENED)


def shortfall(history: History, config: Config) -> float:
    return sampler().shortfalls(history.table, {"lora": config})["lora"]


def known(scale: float = 1.0, *, to: float = 0.9) -> History:
    history = History()
    for z in np.arange(-0.9, to + 0.1, 0.3):
        score = scale * (1.0 + 0.2 * float(z) ** 2)
        history.add("lora", at(float(z)), score * 1.1, score * 1.05, score)
    return history


def test_a_configuration_is_as_far_from_the_best_as_the_scores_say():
    assert shortfall(known(), at(0.0)) < 0.05
    assert shortfall(known(), at(0.9)) == pytest.approx(0.2 * 0.9**2, rel=0.35)


def test_a_configuration_may_be_further_from_the_best_where_less_is_known():
    assert shortfall(known(to=-0.6), at(-0.6)) > 2 * shortfall(known(), at(0.0))


def test_how_far_from_the_best_is_in_the_units_of_the_metric():
    assert shortfall(known(scale=1e-4), at(0.6)) == pytest.approx(1e-4 * shortfall(known(), at(0.6)), rel=1e-6)
