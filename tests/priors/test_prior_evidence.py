"""Evidence: what it says, and how beliefs narrow."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from autolora import laws, variants
from autolora.priors import Curvature, Prior, evidence, probe
from autolora.priors.prior import CENTRE, UNIFORM_SHARE, Evidence
from autolora.priors.probe import RangeTest
from autolora.space import Config, Space, Traits

SPACE = Space(batch_size=[8, 16], rank=[4, 8, 16], hidden_size=64)
PRIOR = Prior.from_laws(64, 800)
TRAITS = {name: variants.get(name).traits for name in variants.names()}
CONFIG = Config(1e-4, 8, 8, 8.0)
TUNED = {"lora": Config(2e-3, 8, 8, 8.0), "pissa": Config(5e-4, 16, 16, 16.0)}


def curvature(scale: float) -> Curvature:
    """Types of very different curvature, all ``scale`` times the same."""
    return Curvature({f"layers.{i}.{kind}": scale * size for i in (0, 1) for kind, size in (("q", 1e-3), ("down", 50))})


class TestCombining:
    def test_a_belief_narrows_by_precision(self):
        told = Evidence("user", CENTRE, PRIOR.centre + 0.6, PRIOR.sd)
        informed = PRIOR.informed([told], TRAITS)
        assert informed.centre == pytest.approx(PRIOR.centre + 0.3)
        assert informed.sd == pytest.approx(PRIOR.sd / math.sqrt(2))

    def test_the_order_of_evidence_does_not_matter(self):
        pieces = [Evidence("a", CENTRE, -3.0, 0.3), Evidence("b", CENTRE, -2.0, 0.5), Evidence("c", "pissa", 0.1, 0.2)]
        forwards, backwards = PRIOR.informed(pieces, TRAITS), PRIOR.informed(pieces[::-1], TRAITS)
        assert forwards.centre == pytest.approx(backwards.centre)
        assert forwards.shifts["pissa"] == pytest.approx(backwards.shifts["pissa"])

    def test_evidence_of_a_variant_meets_its_registered_shift_and_moves_no_other(self):
        informed = PRIOR.informed([Evidence("curvature", "pissa", 0.0, TRAITS["pissa"].shift_sd)], TRAITS)
        pissa = informed.traits("pissa", TRAITS["pissa"])
        assert pissa.shift == pytest.approx(TRAITS["pissa"].shift / 2)
        assert pissa.shift_sd < TRAITS["pissa"].shift_sd
        assert informed.traits("olora", TRAITS["olora"]) is TRAITS["olora"]
        assert informed.centre == PRIOR.centre

    def test_survives_as_json(self):
        informed = PRIOR.informed([Evidence("curvature", "pissa", -0.2, 0.2)], TRAITS, cost=0.04)
        assert Prior.from_dict(json.loads(json.dumps(informed.as_dict()))) == informed

    def test_costs_add_up(self):
        assert PRIOR.informed([], TRAITS, 0.1).informed([], TRAITS, 0.2).cost == pytest.approx(0.3)

    def test_the_interval_holds_its_share_of_the_samples(self):
        config = PRIOR.mode(SPACE, TRAITS["lora"])
        wide = Space(learning_rate=(1e-9, 1e3), batch_size=[config.batch_size], rank=[config.rank], hidden_size=64)
        low, high = PRIOR.interval(TRAITS["lora"], config, 0.9)
        rng = np.random.default_rng(0)
        drawn = [PRIOR.sample(rng, wide, TRAITS["lora"]).learning_rate for _ in range(4000)]
        inside = np.mean([low <= rate <= high for rate in drawn])
        uniform = math.log10(high / low) / 12
        assert inside == pytest.approx(0.9 * (1 - UNIFORM_SHARE) + uniform * UNIFORM_SHARE, abs=0.015)


class TestCurvature:
    def test_more_curvature_than_lora_s_is_a_lower_rate_by_the_exponent(self):
        found = evidence.from_curvature({"lora": curvature(1), "pissa": curvature(100), "milora": curvature(1)})
        by_name = {piece.about: piece for piece in found}
        assert by_name["pissa"].mean == pytest.approx(-2 * evidence.CURVATURE_EXPONENT)
        assert by_name["milora"].mean == pytest.approx(0)
        assert by_name["pissa"].sd == evidence.CURVATURE_SD
        assert "lora" not in by_name

    def test_types_without_curvature_have_no_say(self):
        flat = Curvature({"layers.0.q": 0.0, "layers.0.down": 5.0})
        assert evidence.log_ratio(flat.per_type, curvature(1).per_type) == pytest.approx(-1.0)
        assert evidence.from_curvature({"lora": curvature(1), "pissa": Curvature({"l.q": 0.0, "l.down": 0.0})}) == []

    def test_types_are_compared_with_themselves(self):
        """A rise in the flattest type counts as much as one in the steepest."""
        flat = Curvature({**curvature(1).per_block, "layers.0.q": 0.1, "layers.1.q": 0.1})
        assert evidence.log_ratio(flat.per_type, curvature(1).per_type) == pytest.approx(1.0)


class TestUser:
    def test_the_mode_goes_where_a_sure_user_says(self):
        config = PRIOR.mode(SPACE, TRAITS["lora"])
        informed = PRIOR.informed([evidence.from_user(3e-3, 1e-3, TRAITS["lora"], config)], TRAITS)
        assert informed.mode(SPACE, TRAITS["lora"]).learning_rate == pytest.approx(3e-3, rel=1e-2)


class TestStudy:
    def test_the_modes_are_near_the_tuned_rates_again(self):
        found = evidence.from_study(TUNED, TRAITS, (64, 800), (64, 800), same_task=True)
        informed = PRIOR.informed(found, TRAITS)
        for name, config in TUNED.items():
            traits = informed.traits(name, TRAITS[name])
            origin = informed.coordinates.learning_rate(traits, 0.0, config.batch_size, config.rank, config.alpha)
            assert abs(math.log10(origin / config.learning_rate)) < 0.3

    @pytest.mark.parametrize(
        ("now", "shift", "spread"),
        [
            ((64, 800), 0.0, 0.0),
            ((64, 80_000), 2 * laws.LENGTH_EXPONENT, 2 * laws.LENGTH_SD),
            ((6400, 800), 2 * laws.WIDTH_EXPONENT, 2 * laws.WIDTH_SD),
            ((None, None), 0.0, 0.0),
        ],
    )
    def test_the_laws_carry_the_centre_and_their_spread(self, now, shift, spread):
        here = evidence.from_study(TUNED, TRAITS, (64, 800), (64, 800), same_task=True)[0]
        there = evidence.from_study(TUNED, TRAITS, (64, 800), now, same_task=True)[0]
        assert there.mean - here.mean == pytest.approx(shift)
        assert there.sd == pytest.approx(math.hypot(here.sd, spread))

    def test_another_model_or_task_is_less_sure(self):
        same, other = (evidence.from_study(TUNED, TRAITS, (64, 8), (64, 8), same_task=x)[0].sd for x in (True, False))
        assert other == pytest.approx(math.hypot(same, laws.MODEL_AND_TASK_SD))

    def test_without_plain_lora_it_tells_the_centre_and_no_shift(self):
        found = evidence.from_study({"pissa": TUNED["pissa"]}, TRAITS, (64, 800), (64, 800), same_task=True)
        assert [piece.about for piece in found] == [CENTRE]
        assert found[0].sd == pytest.approx(math.hypot(evidence.STUDY_SD, TRAITS["pissa"].shift_sd))


def range_test(best: float, variant: str = "lora") -> RangeTest:
    """A fall from 6 to 2 nats around a rate, and a blow-up a decade above."""
    rates = [CONFIG.learning_rate * 10 ** (probe.DECADES_A_STEP * step) for step in range(probe.STEPS)]
    losses = []
    for rate in rates:
        x = math.log10(rate / best)
        losses.append(math.nan if x > 1.2 else 6 - 4 / (1 + 10 ** (-3 * x)) + 10 * max(0.0, x - 0.8))
    return RangeTest(rates, losses, CONFIG, variant)


class TestProbe:
    def test_readings_are_in_order(self):
        test = range_test(3e-3)
        assert test.steepest < test.lowest < test.edge
        assert test.steepest == pytest.approx(3e-3, rel=0.3)
        assert test.edge == pytest.approx(3e-3 * 10**0.9, rel=0.4)

    def test_a_non_finite_loss_is_beyond_the_edge(self):
        test = range_test(3e-3)
        assert not all(map(math.isfinite, test.losses))
        assert math.isfinite(test.smoothed[int(np.argmin(test.smoothed))])

    def test_where_nothing_blew_up_the_edge_is_the_last_rate_and_says_nothing(self):
        test = range_test(3e-3)
        cut = replace(test, rates=test.rates[:20], losses=test.losses[:20])
        assert cut.edge == cut.rates[-1]
        assert test.conclusive
        assert not cut.conclusive

    @pytest.mark.parametrize("noise", [0.02, 0.3])
    def test_noise_alone_says_nothing(self, noise):
        rng = np.random.default_rng(0)
        rates = range_test(1e-3).rates
        tests = [RangeTest(rates, list(2 + noise * rng.normal(size=len(rates))), CONFIG, "lora") for _ in range(200)]
        assert np.mean([test.conclusive for test in tests]) < 0.05

    def test_a_fall_through_noise_is_still_read(self):
        rng = np.random.default_rng(0)
        test = range_test(3e-3)
        noisy = [replace(test, losses=list(np.array(test.losses) + 0.3 * rng.normal(size=40))) for _ in range(50)]
        assert np.mean([one.conclusive for one in noisy]) > 0.95

    def test_a_loss_that_never_falls_has_readings_all_the_same(self):
        test = RangeTest([1e-3, 1e-2, 1e-1], [2.0, 3.0, math.inf], CONFIG, "lora")
        assert test.steepest == 1e-3
        assert test.lowest == 1e-3

    @pytest.mark.parametrize("variant", ["lora", "pissa"])
    def test_the_centre_follows_the_test_and_allows_for_the_variant(self, variant):
        traits = TRAITS[variant]
        low, high = (evidence.from_range_test(range_test(rate, variant), traits, 100) for rate in (1e-3, 1e-2))
        assert high.mean - low.mean == pytest.approx(1.0, abs=0.06)
        assert low.sd == pytest.approx(math.hypot(evidence.PROBE_SD, traits.shift_sd))
        assert evidence.implied_centre(traits, CONFIG, 1e-3) == pytest.approx(
            evidence.implied_centre(Traits(exponent=traits.exponent), CONFIG, 1e-3) - traits.shift
        )

    def test_a_longer_run_than_those_it_was_fitted_on_wants_less_and_is_less_sure(self):
        short, long = (evidence.from_range_test(range_test(3e-3), TRAITS["lora"], steps) for steps in (100, 10_000))
        assert long.mean - short.mean == pytest.approx(2 * laws.LENGTH_EXPONENT)
        assert long.sd > short.sd
