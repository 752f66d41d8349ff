"""The most that a trial may take in memory: planned, then measured."""

from __future__ import annotations

import pytest
import torch

import autolora
from autolora.bases.capacity import capacity
from autolora.search import Search
from autolora.search.sampler import at_least_as_large
from autolora.space import Config
from autolora.trainers import memory
from autolora.trainers.memory import MemoryLimitError, Peak
from tests.support.commands import CONFIG, SCORES, command_trainer, job
from tests.support.simulation import SPACE
from tests.support.trainer_contract import piece

CPU = torch.device("cpu")
GB = 10**9


@pytest.fixture
def takes(monkeypatch):
    """``takes(bytes, ...)``: what is seen at each look; the last one from then on."""

    def script(*looks: int) -> list[int]:
        left = list(looks)
        monkeypatch.setattr(memory, "_counted", lambda device: left.pop(0) if len(left) > 1 else left[0])
        return left

    return script


def test_a_peak_has_what_was_taken_since_it_began_and_before(takes):
    takes(5 * GB, 1 * GB)
    assert Peak(CPU, highest=2 * GB).bytes() == 2 * GB
    assert memory.peak(CPU) >= 5 * GB, "of all that the process did"


def test_more_than_may_be_taken_is_an_error_that_counts_as_running_out(takes):
    takes(3 * GB)
    with pytest.raises(MemoryLimitError, match=r"the process took 3 GB, and max_memory is 2 GB") as caught:
        Peak(CPU, most=2 * GB).check()
    assert memory.out_of_memory(caught.value)


def test_real_memory_is_counted_for_each_trial_alone():
    if not memory.CLEAR.exists():
        pytest.skip("Linux alone begins to count again")
    block = torch.ones(60_000_000)
    peak = Peak(CPU)
    with_block = peak.bytes()
    del block
    memory.collected()
    assert Peak(CPU).bytes() < with_block - 100_000_000


def test_passes_are_cut_smaller_before_a_trial_is_given_up(make_trainer, takes):
    trainer = make_trainer(rungs=[1 / 3, 1.0], max_memory="2GB", metrics="peak_memory")
    looks = [1 * GB, 3 * GB, 3 * GB, 1 * GB]  # of the beginning, and of two first attempts
    takes(*looks)
    outcome = trainer.run(piece(0, rung=0))
    assert outcome.kind == "scored"
    assert outcome.metrics["peak_memory"] == 1 * GB


def test_a_trial_that_takes_too_much_at_one_example_is_infeasible_with_the_reason(make_trainer, takes):
    trainer = make_trainer(rungs=[1 / 3, 1.0], max_memory="2GB")
    takes(3 * GB)
    outcome = trainer.run(piece(0, rung=0))
    assert (outcome.kind, outcome.too_large) == ("infeasible", True)
    assert "one example at a time: the process took 3 GB, and max_memory is 2 GB" in outcome.reason


def test_what_is_planned_to_be_too_large_is_known_beforehand(make_trainer, monkeypatch):
    trainer = make_trainer(max_memory="2GB")
    monkeypatch.setattr(type(trainer), "_besides", lambda self: 2 * GB - 6_000_000)
    space = SPACE.model_copy(update={"rank": [4, 64]})
    floors = trainer.too_large(["lora"], space)
    assert [config.rank for config in floors["lora"]] == [64]
    assert [config.batch_size for config in floors["lora"]] == [8]
    monkeypatch.setattr(type(trainer), "_besides", lambda self: 2 * GB - 1_000)
    with pytest.raises(autolora.errors.AutoloraError, match=r"max_memory: lora does not fit, even at .* rank .*, 4"):
        trainer.too_large(["lora"], space)
    monkeypatch.setattr(type(trainer), "_besides", lambda self: 3 * GB)
    with pytest.raises(autolora.errors.AutoloraError, match="max_memory: 2 GB is less than the 3 GB"):
        trainer.too_large(["lora"], space)


def test_it_is_the_capacity_of_the_device():
    whole = capacity(CPU)
    assert capacity(CPU, most=10 * whole.bytes) == whole
    bounded = capacity(CPU, most=1 * GB, besides=GB // 4)
    assert (bounded.bytes, bounded.owner, bounded.verb) == (3 * GB // 4, "max_memory", "leaves")


def test_configurations_as_large_as_one_that_did_not_fit_are_not_sampled():
    search = Search({"lora": autolora.variants.get("lora")}, SPACE, budget=12.0, prior=None)
    limit = Config(1e-3, 8, 8, 8.0)
    seen = []
    while (asked := search.ask()) is not None:
        seen.append(asked.config)
        if at_least_as_large(asked.config, limit):
            search.tell(asked, infeasible=True, too_large=True, at=0.0)
        else:
            search.tell(asked, asked.config.learning_rate)
    failed = [config for config in seen if at_least_as_large(config, limit)]
    assert len(failed) <= 3, "no two of which one is as large as the other"
    for place, config in enumerate(failed):
        assert not any(at_least_as_large(config, earlier) for earlier in failed[:place])


def test_what_is_known_beforehand_is_never_sampled():
    floors = {"lora": [Config(1e-3, 8, 8, 8.0)]}
    terms = {"budget": 4.0, "prior": "laws", "too_large": floors}
    search = Search({"lora": autolora.variants.get("lora")}, SPACE, **terms)
    ranks = set()
    while (asked := search.ask()) is not None:
        ranks.add(asked.config.rank)
        search.tell(asked, asked.config.learning_rate)
    assert ranks == {4}


def test_where_nothing_is_left_to_sample_the_search_ends():
    floors = {"lora": [Config(1e-3, 8, 4, 8.0)]}
    search = Search({"lora": autolora.variants.get("lora")}, SPACE, budget=4.0, too_large=floors)
    assert search.ask() is None


def test_a_command_is_measured_with_all_that_it_starts_and_ended(tmp_path):
    program = "import time; block = b'x' * 300_000_000; time.sleep(60)"
    outcome = command_trainer(tmp_path, f'python -c "{program}"; true', max_memory="200MB").run(job())
    assert (outcome.kind, outcome.too_large) == ("infeasible", True)
    assert "its processes took" in outcome.reason
    assert "max_memory is 200 MB" in outcome.reason


def test_a_command_may_say_itself_what_it_took(tmp_path):
    said = """echo '{{"peak_memory": 5000000000}}' >> "$AUTOLORA_REPORT"; sleep 0.3; """
    outcome = command_trainer(tmp_path, said + SCORES, max_memory="4GB").run(job(config=CONFIG))
    assert "its processes took 5 GB, and max_memory is 4 GB" in outcome.reason
