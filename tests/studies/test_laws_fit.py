"""The fit of the scaling laws: it finds what made the data, takes bounds for bounds, and leaves out whole models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from studies.laws import tables
from studies.laws.fit import LAWS, judged, stated
from studies.laws.model import BELIEFS, fit, predicted, spread
from studies.laws.tables import Best, vertex

TRUTH = {"centre": -3.0, "width": -0.4, "length": -0.3, "batch": 0.45, "rank": -0.6, "scale": 0.8, "pissa": -0.3}


def best(model: str, offset: float = 0.0, **setting) -> Best:
    values = {
        "width": 2048,
        "examples": 50_000,
        "variant": "lora",
        "batch_size": 64,
        "rank": 8,
        "alpha": 8.0,
        **setting,
    }
    made = Best("curves", model, **values, log_rate=0.0, kind="exact", regret=lambda log_rate: 0.0)
    away = {
        "width": math.log10(made.width / 4096),
        "length": math.log10(made.examples / 100_000),
        "batch": math.log10(made.batch_size / 128),
        "rank": math.log10(made.rank / 16),
        "scale": -math.log10(made.scale),
    }
    if made.variant == "pissa":
        away["scale"] *= 0.5 / TRUTH["scale"]
    log_rate = TRUTH["centre"] + sum(TRUTH[name] * value for name, value in away.items()) + offset
    return replace(made, log_rate=log_rate + (TRUTH["pissa"] if made.variant == "pissa" else 0.0))


def made(models: int = 12) -> list[Best]:
    """Settings of models that differ in everything, each with an offset."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(models):
        offset, width = float(0.2 * rng.standard_normal()), int(rng.choice([512, 2048, 8192]))
        examples = int(rng.choice([1_000, 10_000, 100_000]))
        for _ in range(8):
            rank = int(rng.choice([4, 16, 64]))
            setting = {
                "batch_size": int(rng.choice([8, 32, 128])),
                "rank": rank,
                "alpha": float(rank * rng.choice([1, 8])),
            }
            variant = str(rng.choice(["lora", "pissa"]))
            noise = offset + float(0.03 * rng.standard_normal())
            found.append(best(str(number), noise, width=width, examples=examples, variant=variant, **setting))
    return found


def test_the_fit_finds_the_terms_that_made_the_data():
    fitted = fit(made())
    for name, value in TRUTH.items():
        assert fitted.means[name] == pytest.approx(value, abs=max(0.05, 3 * fitted.sds[name])), name
        assert fitted.sds[name] < BELIEFS[name][1]
    assert fitted.means["within"] == pytest.approx(0.03, abs=0.015)
    assert fitted.means["between models"] == pytest.approx(0.2, abs=0.1)


def test_a_bound_moves_the_fit_to_its_side_alone():
    data = made()
    above = [replace(each, kind="at least", log_rate=each.log_rate - 0.5) for each in data if each.rank == 64]
    rest = [each for each in data if each.rank != 64]
    kept = fit([*rest, *above]).means["rank"]
    wrong = fit([*rest, *(replace(each, kind="exact") for each in above)]).means["rank"]
    assert abs(kept - TRUTH["rank"]) < abs(wrong - TRUTH["rank"])


def test_a_rate_at_which_training_came_apart_bounds_it_from_above():
    data = made()
    open_ended = [replace(each, kind="at least", log_rate=each.log_rate - 0.5) for each in data if each.model < "2"]
    closed = [replace(each, below=each.log_rate + 0.6) for each in open_ended]
    rest = [each for each in data if each.model >= "2"]
    truth = fit(data).means["centre"]
    errors = [abs(fit([*rest, *bounded]).means["centre"] - truth) for bounded in (open_ended, closed)]
    assert errors[1] <= errors[0] + 1e-3


def test_terms_that_go_together_leave_a_setting_surer_than_either():
    """Width and length differ together in the data, so that their sum is known better than each."""
    fitted = fit([each for each in made() if (each.width > 1000) == (each.examples > 5_000)])
    setting = best("new", width=512, examples=1_000)
    alone = sum((fitted.sds[name] * math.log10(ratio)) ** 2 for name, ratio in (("width", 8), ("length", 100)))
    assert spread(fitted, setting) ** 2 - fitted.between_models**2 < alone


def test_a_best_at_the_end_of_the_rates_is_a_bound():
    x = np.array([-5.0, -4.5, -4.0])
    assert vertex(x, np.array([3.0, 2.0, 1.0])) == (-4.25, "at least")
    assert vertex(x, np.array([1.0, 2.0, 3.0])) == (-4.75, "at most")
    place, kind = vertex(x, (x + 4.4) ** 2)
    assert (place, kind) == (pytest.approx(-4.4), "exact")


def test_a_model_is_judged_by_the_others():
    data = made(4)
    moved = [replace(each, log_rate=each.log_rate + 1.0) if each.model == "0" else each for each in data]
    errors = [verdict.error for verdict in judged(moved, ["0"])]
    assert len(errors) == sum(each.model == "0" for each in data)
    assert np.mean(errors) == pytest.approx(1.0, abs=0.3)


def test_the_laws_state_what_the_fit_has():
    """To two digits of the recorded fit, by more than which no constant was rounded."""
    from autolora import laws
    from studies.search.left_out import _fits

    fitted = _fits()["all"]
    for term, (constant, _) in LAWS.items():
        assert getattr(laws, constant) == pytest.approx(fitted[term], abs=0.03), term


def test_the_product_s_formula_is_the_fit_s(monkeypatch):
    data = best("x", variant="lora", rank=4, alpha=32.0, batch_size=16)
    fitted = fit(made(4))
    for term, (constant, _) in LAWS.items():
        monkeypatch.setattr(f"autolora.laws.{constant}", fitted.means[term])
    traits = replace(data.traits, exponent=fitted.means["scale"])
    monkeypatch.setattr(tables.Best, "traits", property(lambda self: traits))
    assert stated(data) == pytest.approx(predicted(fitted, data))


def test_own_curves_are_read_without_the_public_tables():
    found = list(tables.own(["quickstart"]))
    assert {each.variant for each in found} >= {"lora", "dora", "pissa"}
    assert all(each.examples >= tables.FEWEST_STEPS * each.batch_size for each in found)
    lowest = next(each for each in found if each.kind == "exact")
    assert lowest.regret(lowest.log_rate) < lowest.regret(lowest.log_rate - 1.0)


def test_a_table_that_is_missing_is_named(monkeypatch):
    monkeypatch.delenv(tables.SWEEP_VARIABLE, raising=False)
    with pytest.raises(SystemExit, match=tables.SWEEP_VARIABLE):
        tables.load()
