"""The benchmark of studies/search: its problems are what they say, and no method spends more than it has."""

from __future__ import annotations

import csv
import itertools
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from autolora.space import Config, Space
from studies.curves import design
from studies.curves.collect import read
from studies.search import prior_methods, problems
from studies.search.curve_table import CURVES as TABLES
from studies.search.dimensions import uniform
from studies.search.edge import PLATEAU, STEEP, Edge
from studies.search.hartmann import OPTIMA, MFHartmann, hartmann
from studies.search.ledger import Ledger, OutOfBudget, Step
from studies.search.measures import GRID, Outcome, outcome
from studies.search.methods import METHODS, traced
from studies.search.paper_tables import load
from studies.search.problem import regret
from studies.search.rows import Row, append, repair
from studies.search.run import seed_of
from studies.search.summary import interquartile_mean, mean_ranks

SMALL_BUDGET = 4.0
INSTALLED = [name for name, method in METHODS.items() if method.missing is None and method.takes("edge/test")]
CURVES = [
    *(f"curves/{table}" for table in design.TABLES),
    "curves/quickstart-variants",
    "curves/stories260k-variants",
]


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A made-up table in the paper's form: two methods, two batches, four rates."""
    path = tmp_path / "tables.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "task", "rank", "method", "batch", "lr", "score", "std"])
        rates = (2e-5, 6.3246e-5, 2e-4, 6.3246e-4)
        for method, batch, (place, rate) in itertools.product(("LoRA", "PiSSA"), (16, 64), enumerate(rates)):
            score = 40 - 3 * (place - 2) ** 2 - batch / 64 - (method == "PiSSA") * 2 * (place == 3)
            writer.writerow(["Tiny-1B", "math", 8, method, batch, rate, score, 0.5 + 10 * (place == 3)])
    return path


def test_paper_surface_hits_its_cells_and_is_linear_between(paper: Path) -> None:
    problem = load(paper)[0]
    with paper.open() as file:
        for row in csv.DictReader(file):
            variant = {"LoRA": "lora", "PiSSA": "pissa"}[row["method"]]
            config = Config(float(row["lr"]), int(row["batch"]), 8, 8.0)
            assert problem.surfaces[variant].at(config) == pytest.approx((float(row["score"]), float(row["std"])))
    ends = [problem.truth("lora", Config(2e-4, batch, 8, 8.0)) or 0.0 for batch in (16, 64)]
    assert problem.truth("lora", Config(2e-4, 32, 8, 8.0)) == pytest.approx(np.mean(ends))
    between = Config(math.sqrt(2e-5 * 6.3246e-5), 16, 8, 8.0)
    ends = [problem.truth("lora", Config(rate, 16, 8, 8.0)) or 0.0 for rate in (2e-5, 6.3246e-5)]
    assert problem.truth("lora", between) == pytest.approx(np.mean(ends))


def test_paper_best_is_the_best_cell_and_its_noise_that_of_the_plateau(paper: Path) -> None:
    problem = load(paper)[0]
    assert problem.best("lora") == 39.75
    assert problem.noise("lora") == pytest.approx(0.5)
    assert problem.space.batch_size == [16, 32, 64]


def test_paper_noise_belongs_to_configuration_and_seed(paper: Path) -> None:
    problem = load(paper)[0]
    config = Config(2e-4, 16, 8, 8.0)
    first = problem.evaluate("lora", config, 1.0, 7)
    assert first == problem.evaluate("lora", config, 1.0, 7)
    assert first != problem.evaluate("lora", config, 1.0, 8)


def test_papers_wide_range_holds_the_same_best_and_nothing_beyond_the_tables_window(paper: Path) -> None:
    narrow, wide = load(paper)
    assert wide.best("lora") == narrow.best("lora")
    assert wide.truth("lora", Config(1e-1, 16, 8, 8.0)) == 0
    assert wide.truth("lora", Config(1e-6, 16, 8, 8.0)) == wide.truth("lora", Config(2e-5, 16, 8, 8.0))


def test_without_the_papers_table_its_problems_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(problems.PAPER_VARIABLE, raising=False)
    assert problems.paper_path() is None
    assert not [name for name in problems.names(None) if name.startswith("paper")]


@pytest.mark.parametrize("model", ["quickstart", "stories260k"])
def test_the_truth_of_a_curve_problem_is_a_cells_mean_over_seeds(model: str) -> None:
    problem = problems.get(f"curves/{model}-variants", None)
    low, high = problem.space.learning_rates.low, problem.space.learning_rates.high  # type: ignore[union-attr]
    cells = defaultdict(list)
    for row in read(TABLES / f"{model}.csv"):
        at = (row["batch_size"], row["rank"], row["alpha"])
        if row["variant"] in problem.variants and at == (8, 8, 8) and low <= row["learning_rate"] <= high:
            cells[row["variant"], row["learning_rate"]].append(row)
    assert len(cells) >= 8 * len(problem.variants)
    for (variant, rate), seeds in cells.items():
        config = Config(rate, 8, 8, 8.0)
        if any(row["score@1"] is None for row in seeds):
            assert problem.truth(variant, config) is None
            assert problem.diverges_at(variant, config) == pytest.approx(min(row["stopped_at"] or 1.0 for row in seeds))
        else:  # the surface takes the rates as evenly spaced, the table rounds them to five digits
            truth = fmean(row["score@1"] for row in seeds)
            assert problem.truth(variant, config) == pytest.approx(truth, rel=1e-3)
            assert problem.best(variant) <= truth + 1e-9


@pytest.mark.parametrize("name", CURVES)
def test_curve_problems_best_is_never_beaten(name: str) -> None:
    problem = problems.get(name, None)
    rng = np.random.default_rng(0)
    for variant in problem.variants:
        drawn = [problem.truth(variant, uniform(problem.space, variant, rng)) for _ in range(100)]
        assert problem.best(variant) <= min(score for score in drawn if score is not None)
        assert 0 < problem.noise(variant) < 0.1 * problem.best(variant)


def test_curve_noise_grows_beyond_the_best_rate() -> None:
    problem = problems.get("curves/stories260k", None)

    def spread(rate: float) -> float:
        scores = [problem.evaluate("pissa", Config(rate, 8, 8, 8.0), 1.0, seed) for seed in range(50)]
        return float(np.std([score for score in scores if score is not None])) / np.mean(scores)  # type: ignore[arg-type]

    assert spread(3e-2) > 3 * spread(5e-3)


@pytest.mark.parametrize(("dimensions", "value"), [(3, -3.86278), (6, -3.32237)])
def test_hartmann_has_its_known_optimum_and_the_levels_come_close(dimensions: int, value: float) -> None:
    assert hartmann(np.array(OPTIMA[dimensions])) == pytest.approx(value, abs=1e-4)
    problem = MFHartmann(dimensions, "good")
    assert value <= problem.best(problem.variants[0]) <= 0.995 * value


def test_hartmanns_bias_and_noise_vanish_at_full_length() -> None:
    problem = MFHartmann(3, "terrible")
    config = Config(1e-3, 16, 12, 40.0)
    assert problem.evaluate("lora", config, 1.0, 1) == problem.truth("lora", config)
    short = [problem.evaluate("lora", config, 1 / 9, seed) or 0.0 for seed in range(50)]
    assert np.std(short) > 1
    assert min(short) > (problem.truth("lora", config) or 0.0)


def test_edge_has_a_plateau_a_slow_decline_and_a_cliff() -> None:
    problem = Edge("test")
    config = Config(1e-3, 16, 8, 8.0)
    cliff = problem.cliff("lora", config)

    def loss(place: float) -> float:
        return problem.loss("lora", Config(10 ** (cliff + place), 16, 8, 8.0))

    assert loss(-PLATEAU) < 1.01 * loss(-PLATEAU / 2)
    assert loss(-PLATEAU / 2) < loss(-PLATEAU - 0.5) < loss(-PLATEAU - 1.5)
    assert loss(STEEP * 0.9) > 2 * loss(-PLATEAU / 2)
    assert math.isinf(loss(STEEP * 1.1))
    beyond = Config(10 ** (cliff + STEEP * 1.1), 16, 8, 8.0)
    assert problem.evaluate("lora", beyond, 1.0, 0) is None
    assert problem.diverges_at("lora", beyond) < 1


@pytest.mark.parametrize(
    ("change", "sign"), [({"rank": 32, "alpha": 32.0}, -1), ({"alpha": 32.0}, -1), ({"batch_size": 64}, 1)]
)
def test_edges_cliff_moves_with_the_setting(change: dict[str, float], sign: int) -> None:
    problem = Edge("test")
    base = Config(1e-3, 16, 8, 8.0)
    moved = Config(**{**base.as_dict(), **change})  # type: ignore[arg-type]
    assert sign * (problem.cliff("lora", moved) - problem.cliff("lora", base)) > 0.1
    assert problem.cliff("pissa", base) < problem.cliff("lora", base) - 0.3


@pytest.mark.parametrize("bias", [-0.3, 0.3])
def test_edges_bias_moves_the_cliff_of_short_runs_to_either_side(bias: float) -> None:
    problem = Edge("test", bias=bias)
    config = Config(1e-3, 16, 8, 8.0)
    assert problem.cliff("lora", config, 0.1) - problem.cliff("lora", config) == pytest.approx(bias)


def test_ledger_charges_divergence_to_where_it_stopped_and_refuses_what_does_not_fit() -> None:
    problem = Edge("test")
    ledger = Ledger(problem, 1.5, 0)
    assert ledger.train("lora", Config(0.1, 16, 8, 8.0)) is None
    assert ledger.left("lora") == pytest.approx(1.48)
    ledger.train("lora", Config(1e-5, 16, 8, 8.0), 1 / 3)
    ledger.train("lora", Config(1e-5, 16, 8, 8.0), 1.0, 1 / 3)
    with pytest.raises(OutOfBudget):
        ledger.train("lora", Config(2e-5, 16, 8, 8.0))
    assert ledger.left("pissa") == 1.5


@pytest.mark.parametrize("method", INSTALLED)
@pytest.mark.parametrize("full_runs_only", [False, True])
def test_no_method_exceeds_its_budget_and_its_regret_never_rises(
    method: str, full_runs_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior_methods, "DRAWS", 400)
    space = Space(learning_rate=(1e-5, 1e-1), batch_size=[16, 64], rank=[8], alpha="rank", hidden_size=2048)
    rungs = (1.0,) if full_runs_only else (1 / 9, 1 / 3, 1.0)
    problem = Edge("test", variants=("lora", "pissa"), space=space, rungs=rungs)
    trace = traced(method, problem, SMALL_BUDGET, seed=3)
    for variant in problem.variants:
        spent = [step.spent for step in trace if step.variant == variant]
        assert spent == sorted(spent)
        assert SMALL_BUDGET / 2 < spent[-1] <= SMALL_BUDGET + 1e-6
        found = outcome(problem, variant, trace)
        assert list(found.regrets) == sorted(found.regrets, reverse=True)
        assert found.regrets[-1] < regret(problem, variant, None)
        assert found.chosen >= found.regrets[-1]
        assert all(step.fraction in rungs for step in trace)


def test_the_same_seed_gives_the_same_search() -> None:
    problem = problems.get("curves/stories260k", None)
    for method in ("autolora", "Optuna TPE + Hyperband"):
        assert traced(method, problem, SMALL_BUDGET, 5) == traced(method, problem, SMALL_BUDGET, 5)


def test_what_is_chosen_has_the_best_mean_of_those_with_several_seeds() -> None:
    problem = Edge("test")
    once, twice, worse, unstable = (Config(rate, 16, 8, 8.0) for rate in (1e-5, 2e-5, 3e-5, 4e-5))
    scored = [(once, 0, 1.0), (twice, 0, 2.0), (twice, 1, 2.2), (worse, 0, 1.9), (worse, 1, 2.5), (unstable, 0, 1.5)]
    trace = [Step(1.0 + place, "lora", config, 1.0, score, seed) for place, (config, seed, score) in enumerate(scored)]
    trace.append(Step(9.0, "lora", unstable, 1.0, None, 1))
    assert outcome(problem, "lora", trace).chosen == regret(problem, "lora", twice)
    assert outcome(problem, "lora", trace[:1]).chosen == regret(problem, "lora", once)
    assert outcome(problem, "lora", trace[-1:]).chosen == regret(problem, "lora", None)


def test_interrupted_rows_are_dropped_and_run_again(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    problem = Edge("test")
    trace = traced("random", problem, SMALL_BUDGET, 0)
    rows = [Row(problem.name, "random", 0, 0, name, outcome(problem, name, trace), 0.1) for name in problem.variants]
    append(file, rows)
    append(file, [row._replace(repeat=1) for row in rows[:2]])
    file.write_text(file.read_text() + "edge/te")
    assert repair(file, {problem.name: len(rows)}) == {(problem.name, "random", 0)}
    assert len(file.read_text().splitlines()) == 1 + len(rows)
    assert len(rows[0].outcome.regrets) == len(GRID)


def test_ranks_share_ties_and_leave_out_methods_with_fewer_repeats() -> None:
    def row(method: str, repeat: int, value: float) -> Row:
        return Row("edge/test", method, repeat, 0, "lora", Outcome((value,), 0.0, 1.0, 1.0, 1.0), 0.0)

    rows = [row("a", 0, 1.0), row("b", 0, 1.0), row("c", 0, 2.0), row("a", 1, 3.0), row("b", 1, 1.0), row("c", 1, 2.0)]
    rows.append(row("late", 0, 0.0))
    assert mean_ranks(rows, lambda row: row.outcome.regrets[0]) == {"a": 2.25, "b": 1.25, "c": 2.5}


def test_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean(np.array([100.0, 1, 2, 3, 4, 5, 6, -50])) == 3.5


def test_a_seed_belongs_to_one_problem_and_repeat() -> None:
    seeds = [seed_of(name, repeat) for name in problems.OWN for repeat in range(50)]
    assert len(set(seeds)) == len(seeds)
