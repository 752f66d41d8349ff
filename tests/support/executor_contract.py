"""What every executor must do. An executor of another kind inherits the classes and gives its own fixtures.

``executor`` of :class:`ExecutorContract` is started, ``unstarted`` of :class:`ClosingContract` is not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from autolora.execution import Executor
from autolora.search import Job
from autolora.space import Config
from autolora.spec import Spec
from autolora.trainers import Interrupted, Outcome, Trainer, checkpoint, open_trainer
from autolora.trainers.builtin.trainer import BuiltinTrainer
from tests.support.specs import small_spec

SETTINGS = {"evaluation.subset": 9}
"""Of the specification that workers open in :class:`BuiltinExecutorContract`."""


def piece(trial: int, stop: float = 1 / 9, rung: int = 0) -> Job:
    return Job(trial, "lora", Config(2e-3, 8, 4, 4.0), seed=0, start=0.0, stop=stop, rung=rung)


def outcomes(executor: Executor, count: int, on_step=lambda _: None) -> list[Outcome]:
    found: list[Outcome] = []
    while len(found) < count:
        found.extend(outcome for outcome in executor.wait(on_step) if isinstance(outcome, Outcome))
    return found


class ExecutorContract:
    """Of one executor for all tests, whose trials have numbers of their own: on a cluster it takes seconds to start.

    The fixture ``trainer`` is of the class :attr:`spec`, in :attr:`folder`.
    """

    @pytest.fixture(scope="class")
    def spec(self, tmp_path_factory) -> Spec:
        """What is tuned."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory) -> Path:
        """The run directory."""
        return tmp_path_factory.mktemp("contract")

    @pytest.fixture(scope="class")
    def trainer(self, spec, folder) -> Trainer:
        return open_trainer(spec, folder)

    @pytest.fixture(scope="class")
    def executor(self, spec, folder, trainer) -> Executor:
        raise NotImplementedError

    def test_it_says_in_lines_where_jobs_run(self, executor):
        assert all(line and "\n" not in line for line in executor.about())

    def test_a_pack_comes_back_scored(self, executor):
        executor.submit((piece(0),))
        (outcome,) = outcomes(executor, 1)
        assert (outcome.trial, outcome.kind) == (0, "scored")

    def test_workers_score_as_this_process_does(self, executor, spec, tmp_path):
        executor.submit((piece(4),))
        (outcome,) = outcomes(executor, 1)
        assert outcome.value == pytest.approx(open_trainer(spec, tmp_path).run(piece(4)).value, rel=1e-5)

    def test_a_pack_of_several_segments_comes_back_whole(self, executor):
        executor.submit((piece(1), piece(2)))
        assert {outcome.trial for outcome in outcomes(executor, 2)} == {1, 2}

    def test_a_promotion_goes_on_from_the_checkpoint(self, executor, folder):
        executor.submit((piece(3),))
        outcomes(executor, 1)
        executor.submit((piece(3, stop=1 / 3, rung=1),))
        outcomes(executor, 1)
        manifest = checkpoint.read_manifest(checkpoint.trial_folder(folder, 3))
        assert manifest is not None
        assert set(manifest.scores) == {0, 1}


class BuiltinExecutorContract(ExecutorContract):
    """Of an executor on which the builtin trainer trains."""

    @pytest.fixture(scope="class")
    def spec(self) -> Spec:
        return small_spec(**SETTINGS)

    @pytest.fixture(scope="class")
    def bench(self, open_bench, folder):
        return open_bench(folder, **SETTINGS)

    @pytest.fixture(scope="class")
    def trainer(self, bench) -> Trainer:
        return BuiltinTrainer(bench)

    def test_workers_score_on_the_rows_of_this_process(self, executor, open_bench, tmp_path):
        executor.submit((piece(5),))
        (outcome,) = outcomes(executor, 1)
        everywhere = BuiltinTrainer(open_bench(tmp_path))
        assert outcome.value != pytest.approx(everywhere.run(piece(5)).value, rel=1e-5)


class ClosingContract:
    """Of an executor that is closed."""

    @pytest.fixture
    def bench(self, make_bench):
        return make_bench()

    @pytest.fixture
    def unstarted(self, bench) -> Executor:
        raise NotImplementedError

    @pytest.fixture
    def executor(self, unstarted, bench) -> Executor:
        unstarted.start(BuiltinTrainer(bench))
        yield unstarted
        unstarted.close()

    def test_interrupting_leaves_a_checkpoint(self, executor, bench):
        def stop(_):
            raise Interrupted

        executor.submit((piece(0, stop=1.0, rung=2),))
        with pytest.raises(Interrupted):
            outcomes(executor, 1, stop)
        executor.close()
        assert checkpoint.newest(bench.trial_folder(0)) is not None
        executor.close()  # once more does nothing

    def test_it_can_be_closed_before_it_is_started(self, unstarted):
        """As when the model cannot be loaded."""
        unstarted.close()
        unstarted.close()
