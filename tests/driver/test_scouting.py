"""What is measured before the first trial, what it costs, and that a resumed study keeps its prior."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch

import autolora
from autolora.driver.opening import resolved_space
from autolora.driver.scouting import CHARGE, scout
from autolora.priors import Prior
from autolora.priors.probe import RangeTest
from autolora.search.search import BudgetError
from autolora.spec import SpecError
from autolora.study.directory import NoStudyError, read_study, read_terms
from autolora.trainers.builtin.curvature import EXAMPLES as EXAMPLES_MEASURED
from tests.support.specs import SMALL_SPEC, small_spec

EXAMPLES = 640
BATCHES = 2
"""Of 8 examples each."""


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOLORA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def look(make_trainer):
    """``look(**overrides)``: scout a small specification of longer runs."""

    def run(**overrides):
        overrides = {"variants": ["lora", "pissa"], "training.examples": EXAMPLES, **overrides}
        spec = small_spec(**overrides)
        return scout(spec, resolved_space(spec), make_trainer(**overrides))

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
    assert scouted.prior.cost == pytest.approx(CHARGE * EXAMPLES_MEASURED / EXAMPLES)
    assert "curvature of pissa on 16 examples" in scouted.notes[0]
    assert "charged as 0.025 of a full run for each variant" in scouted.notes[0]


def test_laws_alone_read_no_data(look, passes):
    scouted = look(prior="laws")
    assert scouted.prior == Prior.from_laws(96, EXAMPLES)
    assert not passes


def test_no_prior(look, passes):
    assert look(prior=None).prior is None
    assert not passes


@pytest.mark.parametrize(
    "overrides",
    [
        {"variants": ["lora"]},
        {"variants": ["lora", "dora", "rslora", "lora_plus"]},  # they all start as LoRA does
        {"space.learning_rate": 2e-4, "prior": {"probe": True}},
    ],
)
def test_what_would_say_nothing_is_not_measured(look, passes, overrides):
    assert look(**overrides).prior.cost == 0
    assert not passes


def test_statistics_are_computed_once_per_model_data_and_variant(look, passes):
    first = look()
    assert len(passes) == BATCHES
    again = look()
    assert len(passes) == BATCHES
    assert "was known already" in again.notes[0]
    assert again.prior == first.prior  # and what it is charged is the same
    look(variants=["lora", "pissa", "olora"])
    assert len(passes) == 2 * BATCHES
    look(seed=1)
    assert len(passes) == 3 * BATCHES


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


@pytest.mark.parametrize("terms", [{"budget": 2}, {"budget": 2, "confirm": 1}])
def test_curvature_leaves_room_for_a_search(look, passes, terms):
    """2 = 1 + 1 leaves nothing over."""
    scouted = look(**terms)
    assert scouted.prior == Prior.from_laws(96, EXAMPLES)
    assert "curvature is left out" in scouted.notes[0]
    assert not passes


def test_the_probe_leaves_room_for_a_search(look):
    scouted = look(budget=2, prior={"probe": True, "curvature": False})
    assert scouted.prior == Prior.from_laws(96, EXAMPLES)
    assert "the probe is left out" in scouted.notes[0]


def test_a_layer_without_gradient_has_no_say(look, base):
    """Blocks added with zero weights, as LLaMA-Pro's are."""
    o_proj = base.model.get_submodule("model.layers.0.self_attn.o_proj").weight
    before = o_proj.data.clone()
    o_proj.data.zero_()
    try:
        curvatures = look().curvatures
    finally:
        o_proj.data.copy_(before)
    assert curvatures["lora"].per_block["model.layers.0.self_attn.v_proj"] == 0
    assert curvatures["pissa"].per_block["model.layers.1.self_attn.v_proj"] > 0


def test_memory_that_runs_out_leaves_the_measurement_out(look, monkeypatch):
    def exhausted(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("autolora.trainers.builtin.curvature.curvature", exhausted)
    monkeypatch.setattr("autolora.trainers.builtin.trainer.range_test", exhausted)
    scouted = look(prior={"probe": True})
    assert scouted.prior == Prior.from_laws(96, EXAMPLES)
    assert all("does not fit into memory" in note for note in scouted.notes)


def test_the_sample_comes_in_the_user_s_micro_batches(look, base):
    sizes = []
    hook = base.model.get_input_embeddings().register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    look(**{"training.micro_batch": 3})
    hook.remove()
    assert max(sizes) == 3
    assert sum(sizes) >= EXAMPLES_MEASURED


@pytest.mark.parametrize("losses", [[float("nan")], [2.0] * 40, [3.0 - 0.05 * step for step in range(40)]])
def test_a_range_test_that_shows_no_fall_and_rise_is_no_evidence(look, monkeypatch, losses):
    def fake(bench, name, config, steps, growth):
        return RangeTest([config.learning_rate * 1.1**step for step in range(len(losses))], losses, config, name)

    monkeypatch.setattr("autolora.trainers.builtin.trainer.range_test", fake)
    scouted = look(prior={"curvature": False, "probe": True})
    assert (scouted.prior.centre, scouted.prior.sd) == (
        Prior.from_laws(96, EXAMPLES).centre,
        Prior.from_laws(96, EXAMPLES).sd,
    )
    assert "says nothing" in scouted.notes[0]
    assert scouted.prior.cost > 0


def test_the_range_test_trains_as_the_trials_do(look, monkeypatch):
    seen = []
    genuine = autolora.variants.get("lora").__class__.optimizer

    def optimizer(self, model, rate, weight_decay=0.0):
        seen.append(weight_decay)
        return genuine(self, model, rate, weight_decay)

    monkeypatch.setattr(autolora.variants.get("lora").__class__, "optimizer", optimizer)
    look(variants=["lora"], prior={"probe": True}, **{"training.weight_decay": 0.5})
    assert seen == [0.5]


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
    monkeypatch.setattr("autolora.driver.opening.scout", None)
    tune(tmp_path / "run", budget=4)
    assert read_terms(tmp_path / "run")["prior"] == recorded


def test_what_was_spent_includes_the_prior_and_stays_within_the_budget(tmp_path):
    result = tune(tmp_path / "run")
    table, plan = read_study(tmp_path / "run")
    assert table.upfront == pytest.approx(CHARGE * EXAMPLES_MEASURED / SMALL_SPEC["training"]["examples"] / 2)
    assert result.spent == {name: pytest.approx(table.spent(name)) for name in result}
    assert all(table.upfront + 1 < spent <= plan.budget + 1e-9 for spent in result.spent.values())


def test_an_earlier_study_is_where_the_next_starts(tmp_path, look):
    tuned = tune(tmp_path / "first")["lora"].config
    scouted = look(prior={"study": str(tmp_path / "first"), "curvature": False}, **{"training.examples": 72})
    assert [piece.about for piece in scouted.prior.evidence] == ["centre", "centre", "pissa"]
    laws = Prior.from_laws(96, 72)
    assert scouted.prior.sd < laws.sd
    traits = autolora.variants.get("lora").traits

    def distance(prior):
        origin = prior.coordinates.learning_rate(traits, 0.0, tuned.batch_size, tuned.rank, tuned.alpha)
        return abs(math.log10(origin / tuned.learning_rate))

    assert distance(scouted.prior) <= distance(laws)
    elsewhere = look(prior={"study": str(tmp_path / "first"), "curvature": False}, seed=3, **{"training.examples": 72})
    assert elsewhere.prior.sd > scouted.prior.sd  # other rows: another task


@pytest.mark.slow
def test_a_study_goes_on_where_the_earlier_one_is_gone(tmp_path):
    tune(tmp_path / "first", budget=1)
    prior = {"study": str(tmp_path / "first")}
    tune(tmp_path / "second", prior=prior, budget=1)
    (tmp_path / "first").rename(tmp_path / "moved")
    assert tune(tmp_path / "second", prior=prior, budget=3).spent["lora"] > 1


@pytest.mark.slow
def test_a_budget_below_what_was_charged_is_said_in_one_line(tmp_path):
    tune(tmp_path / "run")
    with pytest.raises(BudgetError, match=r"budget=1 does not hold .* give at least 1\.2"):
        tune(tmp_path / "run", budget=1)


def test_a_prior_that_cannot_be_had_may_be_corrected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoStudyError):
        tune(tmp_path / "run", prior={"study": str(tmp_path / "empty")})
    assert tune(tmp_path / "run", prior="laws", budget=1).spent["lora"] == 1


def test_a_study_to_start_from_that_is_none_is_refused(tmp_path, look):
    with pytest.raises(NoStudyError, match="not a run directory"):
        look(prior={"study": str(tmp_path / "nowhere")})


def test_a_spread_without_a_rate_is_refused(look):
    with pytest.raises(SpecError, match="learning_rate, which is not given"):
        look(prior={"sd": 0.1})


def test_curvatures_are_kept_as_plain_json(look, tmp_path):
    look()
    files = list((tmp_path / "cache" / "curvature").iterdir())
    assert len(files) == 2
    for path in files:
        kept = json.loads(path.read_text())
        assert kept["of"] == path.stem
        assert all(value > 0 for value in kept["per_block"].values())


def test_curvature_of_something_else_is_measured_again(look, tmp_path, caplog):
    first = look()
    one, other = sorted((tmp_path / "cache" / "curvature").iterdir())
    one.write_bytes(other.read_bytes())
    again = look()
    assert again.curvatures == first.curvatures
    assert "holds the curvature of something else" in caplog.text
    assert json.loads(one.read_text())["of"] == one.stem
