"""What is measured before the first trial, what it costs, and that a resumed study keeps its prior."""

from __future__ import annotations

import json
import logging

import pytest
import torch

import autolora
from autolora import scouting
from autolora.assembly import NoStudyError, read_study, read_terms, resolved_space
from autolora.priors import Prior
from autolora.scouting import CHARGED_EXAMPLES, scout
from autolora.spec import SpecError
from tests.conftest import SMALL_SPEC, small_spec

EXAMPLES = 640


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOLORA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def look(make_bench):
    """``look(**overrides)``: scout a small specification of longer runs."""

    def run(**overrides):
        overrides = {"variants": ["lora", "pissa"], "training.examples": EXAMPLES, **overrides}
        spec = small_spec(**overrides)
        return scout(spec, resolved_space(spec), make_bench(**overrides))

    return run


@pytest.fixture
def passes(base):
    """One entry a forward pass of the base."""
    seen = []
    hook = base.model.register_forward_hook(lambda *_: seen.append(1))
    yield seen
    hook.remove()


def test_curvature_is_the_default_and_is_charged(look):
    scouted = look()
    assert set(scouted.curvatures) == {"lora", "pissa"}
    assert [piece.source for piece in scouted.prior.evidence] == ["laws", "curvature"]
    assert scouted.prior.cost == pytest.approx(CHARGED_EXAMPLES / EXAMPLES)
    assert "charged as 0.025 full runs a variant" in scouted.notes[0]


def test_laws_alone_read_no_data(look, passes):
    scouted = look(prior="laws")
    assert scouted.prior == Prior.from_laws(96, EXAMPLES)
    assert not passes


def test_no_prior(look, passes):
    assert look(prior=None).prior is None
    assert not passes


@pytest.mark.parametrize("names", [["lora"], ["lora", "lora_plus"]])
def test_curvature_that_says_nothing_is_not_measured(look, passes, names):
    """LoRA+ starts as LoRA does: what sets it apart is its optimiser."""
    assert look(variants=names).prior.cost == 0
    assert not passes


def test_statistics_are_computed_once_per_model_data_and_variant(look, passes):
    first = look()
    assert len(passes) == scouting.BATCHES
    again = look()
    assert len(passes) == scouting.BATCHES
    assert again.prior == first.prior  # and what it is charged is the same
    look(variants=["lora", "pissa", "olora"])
    assert len(passes) == 2 * scouting.BATCHES
    look(seed=1)
    assert len(passes) == 3 * scouting.BATCHES


def test_a_cache_that_cannot_be_written_is_a_warning(look, tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("AUTOLORA_CACHE", str(blocked))
    with caplog.at_level(logging.WARNING):
        assert look().curvatures
    assert "not kept for the next study" in caplog.text


def test_the_probe_narrows_the_centre_and_is_charged_for_what_it_trained(look):
    laws, probed = look(prior="laws"), look(prior={"curvature": False, "probe": True})
    assert probed.prior.sd < laws.prior.sd
    assert probed.prior.cost == pytest.approx(probed.range_test.examples / EXAMPLES)
    assert probed.range_test.variant == "lora"
    assert probed.range_test.edge > probed.range_test.steepest
    assert "range test of lora" in probed.notes[0]


def test_the_probe_leaves_the_model_and_the_randomness_alone(look, base):
    before = {key: value.clone() for key, value in base.model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    look(prior={"probe": True})
    assert torch.equal(torch.rand(3), expected)
    after = base.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_what_the_budget_cannot_hold_beside_the_baseline_is_left_out(look):
    scouted = look(budget=1, prior={"probe": True})
    assert scouted.prior == Prior.from_laws(96, EXAMPLES)
    assert [note for note in scouted.notes if "the probe is left out" in note]
    assert [note for note in scouted.notes if "the curvature is left out" in note]


def test_the_user_s_own_expectation_moves_the_mode(look):
    spec = small_spec(variants=["lora"])
    surer = look(variants=["lora"], prior={"learning_rate": 1e-3, "sd": 0.01}).prior
    mode = surer.mode(resolved_space(spec), autolora.variants.get("lora").traits)
    assert mode.learning_rate == pytest.approx(1e-3, rel=0.02)


def tune(folder, **overrides):
    settings = {**SMALL_SPEC, "data": dict(SMALL_SPEC["data"]), "variants": ["lora", "pissa"], **overrides}
    return autolora.tune(settings.pop("model"), settings.pop("data"), dir=folder, **settings)


def test_a_resumed_study_keeps_its_prior_and_measures_nothing(tmp_path, monkeypatch):
    tune(tmp_path / "run")
    recorded = read_terms(tmp_path / "run")["prior"]
    assert [piece["source"] for piece in recorded["evidence"]] == ["laws", "curvature"]
    monkeypatch.setattr("autolora.driver.scout", None)
    tune(tmp_path / "run", budget=4)
    assert read_terms(tmp_path / "run")["prior"] == recorded


def test_what_was_spent_includes_the_prior_and_stays_within_the_budget(tmp_path):
    result = tune(tmp_path / "run")
    table, plan = read_study(tmp_path / "run")
    assert table.upfront == pytest.approx(CHARGED_EXAMPLES / SMALL_SPEC["training"]["examples"] / 2)
    assert result.spent == {name: pytest.approx(table.spent(name)) for name in result}
    assert all(table.upfront + 1 < spent <= plan.budget + 1e-9 for spent in result.spent.values())


def test_an_earlier_study_is_where_the_next_starts(tmp_path, look):
    tuned = tune(tmp_path / "first")["lora"].config
    scouted = look(prior={"study": str(tmp_path / "first"), "curvature": False}, **{"training.examples": 72})
    assert {piece.about for piece in scouted.prior.evidence} == {"centre", "pissa"}
    assert scouted.prior.sd < Prior.from_laws(96, 72).sd
    origin = scouted.prior.coordinates.learning_rate(
        autolora.variants.get("lora").traits, 0.0, tuned.batch_size, tuned.rank, tuned.alpha
    )
    laws = Prior.from_laws(96, 72).coordinates.learning_rate(
        autolora.variants.get("lora").traits, 0.0, tuned.batch_size, tuned.rank, tuned.alpha
    )
    assert abs(origin - tuned.learning_rate) <= abs(laws - tuned.learning_rate)


def test_a_prior_that_cannot_be_had_may_be_corrected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoStudyError):
        tune(tmp_path / "run", prior={"study": str(tmp_path / "empty")})
    assert tune(tmp_path / "run", prior="laws", budget=1).spent["lora"] == 1


def test_a_study_to_start_from_that_is_none_is_refused(tmp_path, look):
    with pytest.raises(SpecError, match="no such run directory"):
        look(prior={"study": str(tmp_path / "nowhere")})
    with pytest.raises(NoStudyError, match="not a run directory"):
        look(prior={"study": str(tmp_path)})


def test_curvatures_are_kept_as_plain_json(look, tmp_path):
    look()
    files = list((tmp_path / "cache" / "curvature").iterdir())
    assert len(files) == 2
    assert all(value > 0 for path in files for value in json.loads(path.read_text()).values())


def test_a_workbench_s_folder_gets_nothing_from_it(look, tmp_path):
    look()
    assert not (tmp_path / "trials").exists()
