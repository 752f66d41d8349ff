"""What is checked on a GPU and, with tiny models, on a CPU."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers.utils import logging

from autolora.bases.device import dtype_name, find_dtype
from autolora.trainers.memory import collected
from studies.gpu import correctness, speed, starts, workers
from studies.gpu.correctness import Checked
from studies.gpu.models import Place
from studies.gpu.report import Case, Report, facts
from studies.gpu.speed import Comparison, Roofline
from studies.gpu.starts import Starts
from studies.gpu.workers import Sharing
from studies.throughput.commit import commit as described

ALL = ("lora", "dora")


@dataclass(frozen=True)
class Scale:
    """What is checked, the most important first.

    Attributes:
        checked: for the table of errors.
        width: of the matrices whose product is the roofline.
        comparisons: models and loops that are timed.
        starts: whose seconds are taken.
        sharing: by two processes.
        later: comparisons that are made last, as far as there is time.
    """

    checked: Checked
    width: int
    comparisons: tuple[Comparison, ...]
    starts: Starts
    sharing: Sharing
    later: tuple[Comparison, ...]


GPU = Scale(
    checked=Checked("0.5B", 4),
    width=8192,
    comparisons=(
        Comparison("0.5B", ALL, (1, 2, 4, 8, 16), 512, 8),
        Comparison("8B", ("lora",), (1, 2, 4, 8, 16), 512, 4),
        Comparison("8B", ("lora",), (1, 4, 16), 512, 4, packed=True),
        Comparison("1B", ALL, (1, 4, 16), 512, 8),
    ),
    starts=Starts("8B", 4),
    sharing=Sharing("0.5B", (1, 4), 512, 40),
    later=(Comparison("0.5B", ("pissa",), (1, 2, 4, 8, 16), 512, 8),),
)
"""The SVDs of PiSSA take longer than all that is timed with it, and its steps are plain LoRA's: it is timed last."""
TINY = Scale(
    checked=Checked("tiny"),
    width=256,
    comparisons=(Comparison("tiny", ALL, (1, 2), 32, 2), Comparison("tiny", ("lora",), (1,), 32, 2, packed=True)),
    starts=Starts("tiny Llama", 2),
    sharing=Sharing("tiny", (2,), 32, 10),
    later=(Comparison("tiny Llama", ("pissa",), (1, 2), 32, 2),),
)


def run(
    folder: Path,
    *,
    groups: Collection[str],
    minutes: float,
    out: Path | None,
    command: str,
    commit: str | None,
) -> Report:
    """Check the first GPU or, where there is none, tiny models on the CPU.

    Args:
        folder: scratch.
        groups: those of :func:`_cases` to run.
        minutes: see :class:`Report`.
        out: the file to write; None: none.
        command, commit: for the report's head; None: as git says.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    place = Place(device, find_dtype("auto", device), folder)
    report = Report(minutes, facts(command, commit or described(), _about(place)), out)
    print("\n".join(report.facts), flush=True)
    for group, cases in _cases(place, GPU if device.type == "cuda" else TINY):
        if group in groups:
            report.take(cases())
            collected()  # so that the next models find the device's memory empty
    return report


def _cases(place: Place, scale: Scale) -> Iterator[tuple[str, Callable[[], Iterator[Case]]]]:
    """Groups and their cases, in order; making the cases makes models, so that each waits until it is asked for."""
    roofline = Roofline()
    yield "correctness", partial(correctness.cases, place, scale.checked)
    yield "speed", partial(roofline.cases, place, scale.width)
    for comparison in scale.comparisons:
        yield "speed", partial(speed.cases, place, comparison, roofline)
    if place.device.type == "cpu":
        yield "speed", speed.processes
    yield "starts", partial(starts.cases, place, scale.starts)
    yield "workers", partial(workers.cases, place, scale.sharing)
    for comparison in scale.later:
        yield "speed", partial(speed.cases, place, comparison, roofline)


def _about(place: Place) -> Mapping[str, str]:
    """The machine, for the report's head."""
    about = {"Python": platform.python_version(), "Bases": f"{dtype_name(place.dtype)} unless another dtype is named"}
    if place.device.type == "cpu":
        return {"Device": f"CPU, {os.cpu_count()} cores of {platform.machine()}; models are tiny", **about}
    properties = torch.cuda.get_device_properties(place.device)
    memory = f"{properties.total_memory / 1e9:.0f} GB"
    capability = f"compute capability {properties.major}.{properties.minor}"
    return {"Device": f"{properties.name}, {memory}, {capability}, CUDA {torch.version.cuda}", **about}
