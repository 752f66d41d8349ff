"""What the model of all scores learns from them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autolora import Search
from autolora.priors import Prior
from autolora.scores import Scores
from autolora.search.features import Features
from autolora.search.surrogate import SPREAD, TOLERATED, UNIT, Surrogate, _observed
from autolora.search.trials import Scored
from tests.support.history import PRIOR, RUNGS, TRAITS, History, at, sampler
from tests.support.simulation import SPACE, loss, play

FEATURES = Features(SPACE, TRAITS, PRIOR.coordinates, RUNGS, PRIOR.sd)


def surrogate(history: History, **settings) -> Surrogate:
    return Surrogate(FEATURES, history.table, **{"seed": 0, **settings})


def best_z(model: Surrogate, variant: str = "lora") -> float:
    return float(model.weights @ model.best_z(variant, [at(0.0, variant)])[:, 0])


def expected(model: Surrogate, *places: float, variant: str = "lora") -> np.ndarray:
    draws = model.draws(variant, [at(z, variant) for z in places], np.random.default_rng(0))
    return draws.weights @ draws.values


def bowl(*places: float, best: float = 0.0, variant: str = "lora", history: History | None = None) -> History:
    history = history or History()
    for z in places:
        score = 2 + 0.5 * (z - best) ** 2
        history.add(variant, at(z, variant), score + 0.4, score + 0.2, score)
    return history


def test_without_scores_its_draws_are_the_beliefs():
    model = surrogate(History(), fades=False)
    offsets = model.parameters[:, 0]
    assert offsets.std() == pytest.approx(PRIOR.sd, rel=0.3)
    assert offsets.mean() == pytest.approx(0.0, abs=3 * PRIOR.sd / math.sqrt(len(offsets)))
    assert model.weights == pytest.approx(np.full(len(offsets), 1 / len(offsets)))


def test_a_quarter_of_the_beliefs_is_wider_where_the_prior_may_be_dropped():
    models = [surrogate(History(), seed=seed) for seed in range(10)]
    assert np.mean([model.trust for model in models]) == pytest.approx(0.75, abs=0.05)
    assert all(np.abs(model.parameters[:, 0]).max() > 3 * PRIOR.sd for model in models)


def test_noiseless_scores_are_interpolated():
    places = np.linspace(-1.0, 0.6, 9)
    model = surrogate(bowl(*places, best=-0.2))
    seen = np.arcsinh((0.5 * (places + 0.2) ** 2) / (UNIT * 2))
    assert expected(model, *places) == pytest.approx(seen, abs=0.25)


def test_draws_are_those_of_a_plain_gaussian_process_beside_the_response():
    history = bowl(-0.8, -0.3, 0.1, 0.5)
    model = surrogate(history)
    rows = [(trial, rung) for trial in history.table.trials for rung in range(3)]
    seen = FEATURES.points(["lora"] * 12, [trial.config for trial, _ in rows], [rung for _, rung in rows])
    scores = np.array([trial.scores[rung] for trial, rung in rows]).reshape(4, 3)
    excess = scores - scores.min(axis=0)
    unit = np.maximum(UNIT * scores.min(axis=0), SPREAD * np.median(excess, axis=0))
    values = np.arcsinh(excess / unit).ravel()
    new = FEATURES.full("lora", [at(-0.5), at(0.3, rank=16)])

    def covariance(a, b):
        """Half of the misfit for all variants and lengths; the other halves for the like."""
        found = np.empty((len(a), len(b)))
        for i, j in np.ndindex(found.shape):
            apart = ((a.settings[i] - b.settings[j]) ** 2).sum()
            lengths = 0.5 + 0.5 * math.exp(-abs(a.depth[i] - b.depth[j]))
            found[i, j] = model.misfit**2 * math.exp(-apart / 2) * lengths  # one variant
        return found

    inverse = np.linalg.inv(covariance(seen, seen) + np.diag(model.noise[seen.rung] ** 2))
    gain = covariance(new, seen) @ inverse
    member = 3
    model.weights = np.zeros_like(model.weights)
    model.weights[member] = 1.0
    response, parameters = model._response, model.parameters[[member]]
    mean = response.values(parameters, new)[0] + gain @ (values - response.values(parameters, seen)[0])
    posterior = covariance(new, new) - gain @ covariance(seen, new)
    configs, rng = [at(-0.5), at(0.3, rank=16)], np.random.default_rng(0)
    drawn = [model.draws("lora", configs, rng) for _ in range(1500)]
    values = np.concatenate([draws.values[draws.weights > 0] for draws in drawn])
    assert values.mean(axis=0) == pytest.approx(mean, abs=4 * math.sqrt(posterior.max() / len(values)))
    assert np.cov(values.T) == pytest.approx(posterior, abs=0.08 * posterior.max())


def test_one_variant_s_offset_moves_another_s_best():
    moved = best_z(surrogate(bowl(-0.5, 0.2, 0.6, 1.0, best=0.6)), "dora")
    assert moved > best_z(surrogate(bowl(-1.0, -0.6, -0.2, 0.5, best=-0.6)), "dora") + 0.4


def test_a_divergence_lowers_what_is_expected_beyond_it():
    history = bowl(-0.5, 0.0)
    before = expected(surrogate(history), 0.4, 0.8)
    history.add("lora", at(0.4), outcome="diverged", at=0.02)
    assert (expected(surrogate(history), 0.4, 0.8) > before + 0.5).all()


def test_a_divergence_late_in_a_full_run_is_not_taken_for_an_early_one():
    late, early = (
        bowl(-0.5, 0.0).add("lora", at(0.4), outcome="diverged", at=share, purpose="baseline", target=2)
        for share in (0.9, 0.02)
    )
    assert [_observed(FEATURES, history.table)[0].points.rung[-1] for history in (late, early)] == [2, 0]


def test_an_infeasible_trial_says_nothing():
    history = bowl(-0.5, 0.0)
    before = surrogate(history)
    history.add("lora", at(0.4), outcome="infeasible", at=0.0)
    assert (surrogate(history).parameters == before.parameters).all()


def test_trust_in_the_centre_falls_where_the_scores_lie_far_off():
    far = 3.5 * PRIOR.sd
    model = surrogate(bowl(*(far + z for z in (-1.2, -0.8, -0.4, 0.0, 0.4, 0.8)), best=far))
    assert model.trust < 0.5
    assert best_z(model) == pytest.approx(far, abs=0.4)


def test_trust_in_the_centre_stays_where_the_scores_agree():
    assert surrogate(bowl(-1.0, -0.6, -0.2, 0.2, 0.6)).trust > 0.7


def test_noise_of_short_runs_is_told_from_that_of_full_ones():
    rng, history = np.random.default_rng(0), History()
    for z in np.linspace(-1, 0.5, 14):
        score = 2 + 0.5 * z * z
        history.add("lora", at(z), score + 0.4 + rng.normal(0, 0.2), score + 0.2, score)
    noise = surrogate(history).noise
    assert noise[0] > 2 * noise[2]


@pytest.mark.parametrize("bias", [-0.4, 0.4])
def test_the_bias_of_short_runs_is_learned(bias):
    """Some full runs tell that the best of the cheapest runs lies 0.4 decades off."""
    history = History()
    for number, z in enumerate(np.linspace(-1.2, 1.2, 20)):
        scores = [2 + 0.5 * (z - bias * shift) ** 2 + 0.2 * (2 - rung) for rung, shift in enumerate((1.0, 0.5, 0.0))]
        history.add("lora", at(z), *scores[: 3 if number % 3 == 0 else 1])
    assert best_z(surrogate(history)) == pytest.approx(0.0, abs=0.15)


def test_a_table_that_is_rebuilt_gives_the_same_draws():
    draws = [surrogate(bowl(-0.5, 0.3)).draws("lora", [at(0.1)], np.random.default_rng(1)) for _ in range(2)]
    assert (draws[0].values == draws[1].values).all()
    assert (draws[0].weights == draws[1].weights).all()


def test_larger_is_better_where_scores_are_maximized():
    up, down = History(direction="maximize"), bowl(-0.8, 0.0, 0.6)
    for trial in down.table.trials:
        up.add("lora", trial.config, *(-score for score in trial.scores.values()))
    assert (surrogate(up).parameters == surrogate(down).parameters).all()


@pytest.mark.parametrize("scores", [(0.0, 0.0, 10.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_scores_of_zero_and_equal_scores_are_finite_responses(scores):
    history = History()
    for z, score in zip((-0.3, 0.0, 0.5), scores, strict=True):
        history.add("lora", at(z), score, score, score)
    assert np.abs(expected(surrogate(history), -0.3, 0.0, 0.5)).max() < 20


def test_many_scores_are_thinned_out():
    history = History()
    for z in np.linspace(-1, 1, 160):
        history.add("lora", at(z), 2 + z * z, 1.5 + z * z)
    assert len(surrogate(history)._points) == 300


@pytest.mark.parametrize("prior", [Prior(-3.0, 0.0, 64), Prior(-3.0, 0.3, 64, shifts={"lora": (0.0, 0.0)})])
def test_a_prior_may_be_sure(prior):
    search = Search(variants=["lora"], space=SPACE, budget=3, confirm=0, prior=prior)
    assert play(search, score=loss)


@pytest.mark.parametrize("huge", [1.7e308, -1.7e308])
def test_any_finite_score_may_be_told(huge):
    search = Search(variants=["lora"], space=SPACE, budget=3, confirm=0)
    search.tell(search.ask(), huge)
    assert play(search, score=loss)


def test_before_any_score_the_centre_has_not_moved():
    assert sampler().surrogate(History().table).offset() == 0.0


def test_candidates_are_not_remembered():
    made, history = sampler(), History().add("lora", at(0.0), 2.0, 2.0, 2.0)
    made.acquisitions(history.table, "lora", made.surrogate(history.table))
    assert len(made._features._known) == 1


ROWS = (25, 25, 100)


def on_fewer_rows(baseline: float, short: float, spread: float | None) -> History:
    """A full run far off or not, and shorter ones of another configuration; ``spread`` is that of the rows."""
    history = History(scored_rows=ROWS)
    history.add("lora", at(1.0), baseline + 2, baseline + 1, baseline)
    if spread is not None:
        rows = Scores.of(baseline + spread * np.tile([-1.0, 1.0], 50))
        history.table.apply(Scored(0, 2, baseline, rows=rows))
    return history.add("lora", at(0.0), short + 0.1, short)


def excess(history: History) -> float:
    """Of the full run, in units."""
    seen = _observed(FEATURES, history.table)[0]
    return float(np.sinh(seen.values[seen.points.rung == 2][0]))


def test_a_short_run_on_fewer_rows_tells_of_a_full_one_what_rows_do_not_explain():
    error = math.sqrt(100 / 99) * math.sqrt(1 / 25 - 1 / 100)
    best = 2.0 + TOLERATED * error
    assert excess(on_fewer_rows(4.0, 2.0, 1.0)) == pytest.approx((4.0 - best) / (SPREAD * (4.0 - best)))
    assert excess(on_fewer_rows(4.0, 2.0, 0.0)) == pytest.approx(2.0 / (SPREAD * 2.0))
    assert excess(on_fewer_rows(2.1, 2.0, 1.0)) == 0.0  # rows explain it


def test_scores_on_other_rows_are_not_compared_where_rows_are_not_known():
    assert excess(on_fewer_rows(4.0, 2.0, None)) == 0.0
    whole = on_fewer_rows(4.0, 2.0, None)
    whole.table.scored_rows = ()
    assert excess(whole) > 1.0


def test_rungs_with_the_same_rows_are_compared_as_ever():
    """The first two have 25 rows each."""
    found = []
    for rows in (ROWS, ()):
        history = History(scored_rows=rows).add("lora", at(0.5), 3.0, 2.9).add("lora", at(0.0), 2.0)
        found.append(_observed(FEATURES, history.table)[0].values.tolist())
    assert found[0] == found[1]


def test_training_on_helps_only_beyond_what_rows_explain():
    """A score that is better on all rows than on the first may be so by the rows alone."""
    history = on_fewer_rows(2.0, 1.0, 3.0)
    assert excess(history) == 0.0
