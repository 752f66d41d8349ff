"""Many workers on a simulated clock: does the search keep them busy, and does it use what they find?

    python -m studies.workers.simulate --workers 1 8 64 512 --seeds 3
    python -m studies.workers.simulate --decisions

The surface is that of ``studies/search/edge.py``. A segment takes its share of a full run times a factor that goes by
rank, batch size and chance, so that results come in any order; some trainings diverge and end early; one job in fifty
is lost on the way and handed out again. Nothing is trained and nobody waits.

Writes runs.csv, one row a search, and decisions.csv, the processor time of decisions by the size of the table.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from autolora import Search
from autolora.search import Job
from studies.search.edge import Edge
from studies.search.problem import regret

HERE = Path(__file__).parent
VARIANTS = ("lora", "dora", "pissa")
RUNGS = (1 / 9, 1 / 3, 1.0)
SPREAD = 0.5
"""Standard deviation of the logarithm of a segment's time."""
RANK_EXPONENT, BATCH_EXPONENT = 0.1, -0.2
"""How that time goes with rank and batch size."""
LOST = 0.02
TARGET = 0.02
"""Distance from a variant's best, relative to it, within which it counts as found."""
LEAST_BUDGET, RUNS_OF_A_WORKER = 12.0, 4.0
SIZES = (500, 2000, 10_000)
"""Trials in the table at which decisions are timed, under a budget that does not end."""
TIMED = 400
"""Latest asks and tells whose mean that is."""


@dataclass(frozen=True)
class Run:
    """What was measured of one search; times in full runs at the mean pace.

    Attributes:
        workers, seed, budget: the budget in full runs a variant.
        trials: started.
        makespan: until the last job ended.
        utilisation: busy share of the workers' time, until the budget first held no further job.
        overall: the same until the last job ended.
        time_to_target, runs_to_target: until a full run within TARGET of its variant's best has ended: time, and full
            runs charged to the variant by then. Means over variants, all there was for those that never came there.
        reached: variants that did.
        regret: distance from its variant's best of what is chosen at the end, relative to it; mean over variants.
        complete: full runs that ended.
        duplicates: jobs whose configuration another worker had at the time.
        nearest, near: median and 5th percentile of how far in log10 of the learning rate a new trial was from the
            nearest in flight of its variant, rank and batch size.
        milliseconds: processor time of an ask and the tell that follows.
    """

    workers: int
    seed: int
    budget: float
    trials: int
    makespan: float
    utilisation: float
    overall: float
    time_to_target: float
    runs_to_target: float
    reached: int
    regret: float
    complete: int
    duplicates: int
    nearest: float
    near: float
    milliseconds: float


@dataclass(frozen=True)
class Flight:
    """A job with a worker; ``score`` is None where it diverges."""

    job: Job
    began: float
    ends: float
    lost: bool
    score: float | None


class Cluster:
    """Workers that train on a surface, on a clock of their own.

    Attributes:
        now: the time.
        flights: all that were ever begun.
        asks, tells: processor time of each.
        full: when the budget first held no further job.
    """

    def __init__(self, problem: Edge, search: Search, workers: int, seed: int) -> None:
        self.search = search
        self.now = 0.0
        self.flights: list[Flight] = []
        self.asks: list[float] = []
        self.tells: list[float] = []
        self.full = math.inf
        self._problem, self._workers, self._seed = problem, workers, seed
        self._rng = np.random.default_rng([seed, workers])
        self._queue: list[tuple[float, int, Flight]] = []

    def play(self) -> Iterator[Flight]:
        """Run to the end of the budget; yields what a worker comes back with."""
        while True:
            self._occupy()
            if not self._queue:
                return
            self.now, _, flight = heapq.heappop(self._queue)
            began = time.process_time()
            if flight.lost:
                self.search.tell(flight.job, lost=True)
            elif flight.score is None:
                self.search.tell(flight.job, diverged=True, at=self._end(flight.job))
            else:
                self.search.tell(flight.job, flight.score)
            self.tells.append(time.process_time() - began)
            yield flight

    def milliseconds(self, latest: int = 0) -> float:
        """Of an ask and a tell, the means of the latest or of all."""
        return 1000 * (fmean(self.asks[-latest:]) + fmean(self.tells[-latest:]))

    def _occupy(self) -> None:
        """Hand out jobs while there are both workers and jobs."""
        while len(self._queue) < self._workers:
            began = time.process_time()
            job = self.search.ask()
            self.asks.append(time.process_time() - began)
            if not isinstance(job, Job):
                self.full = min(self.full, self.now)
                return
            self._begin(job)

    def _begin(self, job: Job) -> None:
        config, lost = job.config, bool(self._rng.uniform() < LOST)
        pace = (config.rank / 16) ** RANK_EXPONENT * (config.batch_size / 32) ** BATCH_EXPONENT
        pace *= math.exp(SPREAD * float(self._rng.standard_normal()) - SPREAD**2 / 2)
        takes = pace * (self._end(job) - job.start) * (float(self._rng.uniform()) if lost else 1.0)
        score = self._problem.evaluate(job.variant, config, job.stop, 1000 * self._seed + job.seed)
        flight = Flight(job, self.now, self.now + takes, lost, score)
        heapq.heappush(self._queue, (flight.ends, len(self.flights), flight))
        self.flights.append(flight)

    def _end(self, job: Job) -> float:
        """Where its training stops, as a fraction of a full run."""
        return max(job.start, min(job.stop, self._problem.diverges_at(job.variant, job.config)))


def surface(seed: int) -> Edge:
    """The laws are off by a decade, up or down."""
    return Edge("workers", offset=float((-1) ** seed), bias=0.1, variants=VARIANTS, rungs=RUNGS)


def searching(problem: Edge, budget: float, seed: int) -> Search:
    return Search(VARIANTS, problem.space, budget, RUNGS, seed=seed, confirm=0, examples=problem.examples)


def simulated(workers: int, seed: int, least: float = LEAST_BUDGET) -> Run:
    """One search to the end of its budget, which is at least so many full runs a variant."""
    problem, budget = surface(seed), max(least, RUNS_OF_A_WORKER * workers / len(VARIANTS))
    search = searching(problem, budget, seed)
    cluster = Cluster(problem, search, workers, seed)
    found: dict[str, tuple[float, float]] = {}
    for flight in cluster.play():
        job = flight.job
        scored = not flight.lost and flight.score is not None and job.stop == 1.0
        if scored and job.variant not in found and regret(problem, job.variant, job.config) <= TARGET:
            found[job.variant] = cluster.now, search.spent[job.variant]
    ends = max(flight.ends for flight in cluster.flights)
    for variant in VARIANTS:
        found.setdefault(variant, (ends, budget))
    duplicates, distances = _crowding(cluster.flights)
    return Run(
        workers=workers,
        seed=seed,
        budget=budget,
        trials=len(search.table.trials),
        makespan=ends,
        utilisation=_busy(cluster.flights, cluster.full) / (workers * cluster.full),
        overall=_busy(cluster.flights, ends) / (workers * ends),
        time_to_target=fmean(when for when, _ in found.values()),
        runs_to_target=fmean(spent for _, spent in found.values()),
        reached=sum(when < ends for when, _ in found.values()),
        regret=fmean(regret(problem, variant, best.config) for variant, best in search.best().items()),
        complete=sum(len(search.table.complete(variant)) for variant in VARIANTS),
        duplicates=duplicates,
        nearest=float(np.median(distances)) if distances else math.nan,
        near=float(np.percentile(distances, 5)) if distances else math.nan,
        milliseconds=cluster.milliseconds(),
    )


def timed(workers: int, sizes: Sequence[int] = SIZES) -> list[tuple[int, float]]:
    """Milliseconds of a decision at each size of the table, under a budget that does not end."""
    problem = surface(0)
    cluster = Cluster(problem, searching(problem, 1e6, 0), workers, 0)
    found: list[tuple[int, float]] = []
    for _ in cluster.play():
        if len(cluster.search.table.trials) >= sizes[len(found)]:
            found.append((sizes[len(found)], cluster.milliseconds(TIMED)))
            print(f"{workers} workers, {found[-1][0]} trials: {found[-1][1]:.1f} ms", flush=True)
            if len(found) == len(sizes):
                break
    return found


def _busy(flights: Sequence[Flight], until: float) -> float:
    """Workers' time that was spent training before a moment."""
    return sum(max(0.0, min(flight.ends, until) - flight.began) for flight in flights)


def _crowding(flights: Sequence[Flight]) -> tuple[int, list[float]]:
    """Jobs that two workers had at once, and how far each new trial was from its nearest neighbor in flight."""
    duplicates, distances, started = 0, [], set()
    flying: list[Flight] = []
    for flight in flights:
        job = flight.job
        flying = [other for other in flying if other.ends > flight.began]
        beside = [other.job.config for other in flying if other.job.variant == job.variant]
        duplicates += job.config in beside
        alike = [c for c in beside if (c.rank, c.batch_size) == (job.config.rank, job.config.batch_size)]
        if alike and job.trial not in started:
            distances.append(min(abs(math.log10(c.learning_rate / job.config.learning_rate)) for c in alike))
        started.add(job.trial)
        flying.append(flight)
    return duplicates, distances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=LEAST_BUDGET, help="full runs a variant, at least")
    parser.add_argument("--decisions", action="store_true", help="time decisions instead")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="trials at which decisions are timed")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the two files")
    arguments = parser.parse_args()
    if arguments.decisions:
        rows = [
            {"workers": workers, "trials": size, "milliseconds": round(spent, 2)}
            for workers in arguments.workers
            for size, spent in timed(workers, arguments.sizes)
        ]
        _write(arguments.out / "decisions.csv", rows)
        return
    runs = []
    for workers, seed in itertools.product(arguments.workers, range(arguments.seeds)):
        runs.append(simulated(workers, seed, arguments.budget))
        print(runs[-1], flush=True)
        _write(arguments.out / "runs.csv", [asdict(run) for run in runs])


def _write(path: Path, rows: Sequence[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
