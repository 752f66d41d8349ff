"""A hundred trials while workers are killed: complete, within budget, and every score what it would have been."""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest

from autolora import spec as specs
from autolora.search import Job
from autolora.study.directory import read_study
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.workbench import Workbench
from tests.support.cluster_runs import TERMS, tune, workers

pytest.importorskip("ray")

TRIALS, EVERY_SECONDS, CHECKED = 100, 20.0, 4


class Killer(threading.Thread):
    """Kills a random worker every so often."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._over = threading.Event()

    def run(self) -> None:
        rng = random.Random(0)
        while not self._over.wait(EVERY_SECONDS):
            running = workers()
            if running:
                os.kill(rng.choice(running).pid, signal.SIGKILL)
                self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.faults
def test_a_hundred_trials_with_a_worker_killed_every_twenty_seconds(cluster, second_node, tmp_path):
    training = {**TERMS["training"], "examples": 320}  # long enough for the kills
    baseline = {"learning_rate": 2e-4, "rank": 4, "alpha": 8}
    terms = {"variants": ["lora"], "budget": 32, "confirm": 2, "training": training, "baseline": baseline}
    killer = Killer()
    killer.start()
    result = tune(tmp_path / "run", **terms)
    killer.stop()
    table, plan = read_study(tmp_path / "run")
    lost = sum(trial.lost for trial in table.trials)
    print(f"{len(table.trials)} trials, {killer.kills} kills, {lost} segments handed out again")
    assert len(table.trials) >= TRIALS
    assert killer.kills >= 3
    assert lost <= killer.kills
    assert not any(trial.pending for trial in table.trials)
    assert 31 < table.spent("lora") <= 32 + 1e-9
    assert not any(trial.outcome == "infeasible" for trial in table.trials)

    bench = Workbench.open(specs.load({**TERMS, **terms}), tmp_path / "again")
    disturbed = [trial for trial in table.complete("lora") if trial.lost] + table.complete("lora")
    for trial in disturbed[:CHECKED]:
        again = segment.run(
            bench, Job(trial.number, trial.variant, trial.config, trial.seed, start=0.0, stop=1.0, rung=plan.last)
        )
        assert again.value == trial.scores[plan.last]
    assert result["lora"].value <= result["lora"].baseline
