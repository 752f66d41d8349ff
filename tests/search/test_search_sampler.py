"""Where configurations are sampled, given what is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from simulation import SPACE, play, searched

from autolora import variants
from autolora.priors import Prior
from autolora.search import Search
from autolora.search.sampler import KEEP_CHOICE, Sampler
from autolora.search.trials import Bracket, Finished, Sampled, Scored, TrialTable
from autolora.space import Config, Space

RUNGS = (1 / 9, 1 / 3, 1.0)
NAMES = ("lora", "dora", "pissa")
TRAITS = {name: variants.get(name).traits for name in NAMES}
PRIOR = Prior.from_laws(64, 800)
FIRST = Bracket(0, 9)


def sampler(space: Space = SPACE, prior: Prior | None = PRIOR, seed: int = 0) -> Sampler:
    return Sampler(space, TRAITS, prior, factor=3, seed=seed)


class History:
    """A trial table written by hand."""

    def __init__(self) -> None:
        self.table = TrialTable(RUNGS, "minimize")

    def add(self, variant: str, config: Config, *scores: float, diverged: bool = False, bracket=FIRST) -> None:
        number = len(self.table.trials)
        target = max(0, len(scores) - 1)
        self.table.apply(Sampled(number, variant, config, 0, "search", target, "", bracket))
        for rung, score in enumerate(scores):
            self.table.apply(Scored(number, rung, score))
        if diverged:
            self.table.apply(Finished(number, "diverged", "", at=0.02))


def at(z: float, variant: str = "lora", rank: int = 8, batch: int = 8) -> Config:
    """The configuration at z with the law's alpha."""
    alpha = SPACE.alphas(TRAITS[variant], rank)[0]
    return Config(PRIOR.coordinates.learning_rate(TRAITS[variant], z, batch, rank, alpha), batch, rank, alpha)


def z_of(variant: str, config: Config) -> float:
    return PRIOR.coordinates.z(TRAITS[variant], config)


def proposals(history: History, variant: str, count: int = 60, **settings) -> list[tuple[Config, str]]:
    made = sampler(**settings)
    # A bracket each: within one, they would share out the density.
    return [made.propose(history.table, variant, 100 + number, Bracket(1 + number, 9)) for number in range(count)]


def test_a_bracket_covers_the_prior_s_density():
    """Each of its nine draws lies in a ninth of its own, but for the uniform share."""
    history, made = History(), sampler()
    for number in range(9):
        config, origin = made.propose(history.table, "pissa", number, FIRST)
        history.add("pissa", config)
        history.table.trials[-1].origin = origin
    informed = [trial for trial in history.table.trials if trial.origin == "prior"]
    spread = PRIOR.spread(TRAITS["pissa"], informed[0].config)
    strata = {int(9 * 0.5 * math.erfc(-z_of("pissa", trial.config) / spread / math.sqrt(2))) for trial in informed}
    assert len(strata) >= len(informed) - 1


def test_a_proposal_depends_on_the_table_and_the_number_alone():
    history = History()
    history.add("lora", at(0.3), 2.0, 1.9)
    first, second = (sampler().propose(history.table, "lora", 7, Bracket(1, 9)) for _ in range(2))
    assert first == second
    assert sampler().propose(history.table, "lora", 8, Bracket(1, 9)) != first
    assert sampler(seed=1).propose(history.table, "lora", 7, Bracket(1, 9)) != first


def test_nothing_is_drawn_where_the_variant_diverged():
    history = History()
    history.add("lora", at(0.2), diverged=True)
    assert all(z_of("lora", config) < 0.2 for config, _ in proposals(history, "lora"))


def test_a_divergence_below_a_healthy_trial_does_not_count():
    history = History()
    history.add("lora", at(-1.0), diverged=True)
    history.add("lora", at(0.5), 2.0)
    assert any(z_of("lora", config) > -1.0 for config, _ in proposals(history, "lora"))


def test_divergence_is_a_variant_s_own():
    history = History()
    history.add("lora", at(-0.5), diverged=True)
    assert any(z_of("dora", config) > -0.5 for config, _ in proposals(history, "dora"))


def test_where_the_whole_space_is_known_to_diverge_the_lowest_draw_is_taken():
    history = History()
    history.add("lora", at(-9.0), diverged=True)
    config, _ = sampler().propose(history.table, "lora", 1, FIRST)
    others = [PRIOR.sample(np.random.default_rng(seed), SPACE, TRAITS["lora"]) for seed in range(5)]
    assert all(z_of("lora", config) < z_of("lora", other) for other in others)


def test_an_infeasible_trial_says_nothing_about_the_learning_rate():
    history = History()
    history.add("lora", at(-1.5))
    history.table.apply(Finished(0, "infeasible", "out of memory", at=0.0))
    assert any(z_of("lora", config) > -1.5 for config, _ in proposals(history, "lora"))


def test_neighbours_lie_around_the_incumbent():
    history = History()
    for z, score in ((1.0, 1.0), (0.2, 2.0), (-0.8, 3.0)):
        history.add("lora", at(z), score, score, score)
    near = [config for config, origin in proposals(history, "lora") if origin.startswith("near trial 0")]
    assert len(near) > 10
    assert np.mean([z_of("lora", config) for config in near]) == pytest.approx(0.9, abs=0.2)


def test_the_incumbent_is_named_with_its_score():
    history = History()
    for z, score in ((1.0, 1.25), (0.2, 2.0)):
        history.add("lora", at(z), score, score)
    assert "near trial 0 (1.25 at 0.333 of a run)" in {origin for _, origin in proposals(history, "lora")}


def test_a_diverged_trial_is_not_the_incumbent():
    history = History()
    history.add("lora", at(0.9), 0.1, 0.1, diverged=True)
    for z, score in ((0.0, 2.0), (-0.5, 3.0)):
        history.add("lora", at(z), score, score)
    assert not any(origin.startswith("near trial 0") for _, origin in proposals(history, "lora"))


def test_scores_at_the_cheapest_rung_make_no_incumbent():
    history = History()
    for z in (0.0, 0.4, 0.8):
        history.add("lora", at(z), 1.0)
    assert not any(origin.startswith("near") for _, origin in proposals(history, "lora"))


def test_one_variant_moves_the_centre_of_another():
    history = History()
    for z in (0.9, 1.0):
        history.add("lora", at(z), 1.0, 1.0)
    drawn = proposals(history, "dora", 100)
    origins = {origin for _, origin in drawn}
    assert any(origin.startswith("prior, centre moved by +0.") for origin in origins)
    before = [z_of("dora", config) for config, _ in proposals(History(), "dora", 100)]
    assert np.median([z_of("dora", config) for config, _ in drawn]) > np.median(before) + 0.3


def test_without_a_prior_nothing_is_moved():
    history = History()
    for z in (0.9, 1.0):
        history.add("lora", at(z), 1.0, 1.0)
    assert {origin for _, origin in proposals(history, "dora", prior=None)} == {"uniform"}


@pytest.mark.parametrize("alpha", ["law", "rank", 16.0, [4, 16, 64], (2, 128)])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prior", [PRIOR, None], ids=["laws", "none"])
def test_every_draw_keeps_to_the_space(alpha, name, prior):
    space = Space(learning_rate=(1e-4, 1e-2), batch_size=[8, 32], rank=[4, 16], alpha=alpha, hidden_size=64)
    outside = Config(0.5, 3, 7, 1000.0)  # a user's baseline, and the incumbent
    history = History()
    history.add(name, outside, 1.0, 1.0, 1.0, bracket=None)
    history.add(name, Config(1e-3, 8, 4, 4.0), 2.0, 2.0, 2.0)
    for config, _ in proposals(history, name, 30, space=space, prior=prior):
        assert space.learning_rates.contains(config.learning_rate)
        assert config.batch_size in space.batch_size
        assert config.rank in space.rank
        alphas = space.alphas(TRAITS[name], config.rank)
        assert config.alpha in alphas if isinstance(alphas, list) else alphas.contains(config.alpha)


def test_a_finite_space_is_proposed_whole_and_then_ends():
    space = Space(learning_rate=[1e-4, 1e-3, 1e-2], batch_size=[8], rank=[4, 8], alpha="rank")
    history, made = History(), sampler(space)
    for number in range(6):
        config, _ = made.propose(history.table, "lora", number, FIRST)
        history.add("lora", config, 1.0)
    assert {trial.config for trial in history.table.trials} == set(space.enumerate(TRAITS["lora"]))
    assert made.propose(history.table, "lora", 6, FIRST) is None


def test_another_variant_s_trials_use_up_nothing():
    space = Space(learning_rate=[1e-4, 1e-3, 1e-2], batch_size=[8], rank=[4], alpha="rank")
    history = History()
    for config in space.enumerate(TRAITS["lora"]):
        history.add("dora", config, 1.0)
    assert sampler(space).propose(history.table, "lora", 3, FIRST) is not None


def test_the_last_of_a_finite_space_are_proposed_even_beyond_a_divergence():
    space = Space(learning_rate=[1e-4, 1e-3, 1e-2], batch_size=[8], rank=[4], alpha="rank")
    history = History()
    history.add("lora", Config(1e-4, 8, 4, 4.0), diverged=True)
    config, origin = sampler(space).propose(history.table, "lora", 1, FIRST)
    assert config == Config(1e-3, 8, 4, 4.0)
    assert origin == "untried"


def test_sampling_finds_the_good_region_of_a_prior_that_is_off():
    """The best learning rate lies a decade above the prior's centre; the searched ones move there."""
    search = Search(variants=["lora"], space=SPACE, budget=16, prior=Prior(PRIOR.centre, PRIOR.sd, 64))

    def score(job):
        return (z_of("lora", job.config) - 1.0) ** 2 + 0.1 * (1 - job.stop)

    play(search, score=score, diverge=False)
    assert abs(z_of("lora", search.best()["lora"].config) - 1.0) < 0.3
    last = [trial for trial in searched(search, "lora") if trial.bracket.index >= 2]
    assert np.median([z_of("lora", trial.config) for trial in last]) > 0.4


OPENED = SPACE.model_copy(update={"options": {"lora.gamma": [4, 16, 64]}})


def gammas(drawn: list[tuple[Config, str]]) -> list[float]:
    return [dict(config.options)["gamma"] for config, _ in drawn]


@pytest.mark.parametrize("prior", [PRIOR, None], ids=["laws", "none"])
def test_an_option_is_drawn_uniformly_from_its_choices(prior):
    drawn = gammas(proposals(History(), "lora", 300, space=OPENED, prior=prior))
    assert [drawn.count(gamma) / 300 for gamma in (4, 16, 64)] == pytest.approx([1 / 3] * 3, abs=0.1)


def incumbent_with(gamma: float) -> History:
    history = History()
    for z, score in ((0.3, 1.0), (0.1, 2.0)):
        history.add("lora", replace(at(z), options={"gamma": gamma}), score, score, score)
    return history


def test_a_neighbour_keeps_the_incumbent_s_option_with_the_chance_of_any_choice():
    drawn = proposals(incumbent_with(64), "lora", 300, space=OPENED)
    near = gammas([draw for draw in drawn if draw[1].startswith("near")])
    assert near.count(64) / len(near) == pytest.approx(KEEP_CHOICE + (1 - KEEP_CHOICE) / 3, abs=0.1)


def test_a_neighbour_of_an_option_outside_the_choices_takes_any():
    drawn = proposals(incumbent_with(5), "lora", 100, space=OPENED)
    assert set(gammas(drawn)) == {4, 16, 64}


@pytest.mark.parametrize("prior", [PRIOR, None], ids=["laws", "none"])
def test_an_option_changes_nothing_else_that_is_drawn(prior):
    history, without = incumbent_with(16), History()
    for trial in history.table.trials:
        without.add("lora", replace(trial.config, options=()), *trial.scores.values())
    plain = proposals(without, "lora", prior=prior)
    opened = proposals(history, "lora", prior=prior, space=OPENED)
    assert [(replace(config, options=()), origin) for config, origin in opened] == plain
    assert any(origin.startswith("near") for _, origin in plain)


def test_another_variant_s_option_changes_nothing():
    assert proposals(History(), "dora", space=OPENED) == proposals(History(), "dora")


def test_a_finite_space_with_options_is_proposed_whole_and_then_ends():
    space = Space(learning_rate=[1e-4, 1e-3, 1e-2], batch_size=[8], rank=[4], alpha="rank", options={"lora.k": [1, 2]})
    history, made = History(), sampler(space)
    for number in range(6):
        config, _ = made.propose(history.table, "lora", number, FIRST)
        history.add("lora", config, 1.0)
    assert {trial.config for trial in history.table.trials} == set(space.enumerate(TRAITS["lora"], "lora"))
    assert made.propose(history.table, "lora", 6, FIRST) is None


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


def test_a_search_refuses_an_option_that_its_variants_lack():
    with pytest.raises(ValueError, match=r"space.options.lora.gamma: .* lora has no option 'gamma'; its options: none"):
        Search(variants=["lora"], space=OPENED)
