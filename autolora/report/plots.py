"""Pictures of the prior, for `autolora prior --plots`. matplotlib is optional and imported here alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autolora import variants
from autolora.errors import AutoloraError
from autolora.priors import Curvature, Prior
from autolora.space import Range, Space, searchable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DENSITY_FILE, CURVATURE_FILE = "prior.png", "curvature.png"
POINTS = 400


class PlotError(AutoloraError, ImportError):
    """matplotlib is not installed."""


def prior_plots(
    folder: Path, prior: Prior, space: Space, names: Sequence[str], curvatures: Mapping[str, Curvature]
) -> list[Path]:
    """Write the predicted densities and, where it was measured, the curvature; returns the files.

    Raises:
        PlotError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [_densities(folder / DENSITY_FILE, prior, space, names)]
    if curvatures:
        written.append(curvature_boxes(folder / CURVATURE_FILE, curvatures))
    return written


def _densities(path: Path, prior: Prior, space: Space, names: Sequence[str]) -> Path:
    """Density over log10 learning rate of each variant, at the mode's batch size, rank and alpha."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    rates = space.learning_rates
    choices = not isinstance(rates, Range)
    grid = np.geomspace(rates.low, rates.high, POINTS) if isinstance(rates, Range) else np.array(rates)
    for name in names:
        traits = prior.traits(name, variants.get(name).traits)
        scope = searchable.scope(space, variants.get(name), traits)
        mode = prior.mode(*scope)
        logs = [prior.log_pdf(space, traits, mode.replaced(learning_rate=float(rate)), name) for rate in grid]
        density = np.exp(logs)
        density /= density.sum() * (1.0 if choices else math.log10(grid[1] / grid[0]))
        (line,) = axes.plot(
            grid, density, "o" if choices else "-", label=f"{name} (rank {mode.rank}, alpha {mode.alpha:.4g})"
        )
        axes.axvline(mode.learning_rate, color=line.get_color(), linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("probability" if choices else "density per decade")
    axes.set_title("Where the best learning rate is expected; dotted: the prior's mode")
    axes.legend()
    return _saved(figure, path)


def curvature_boxes(path: Path, curvatures: Mapping[str, Curvature]) -> Path:
    """lambda_max per block: a box for each matrix type and variant, over the layers."""
    plt = pyplot()
    kinds = list(next(iter(curvatures.values())).per_type)
    figure, axes = plt.subplots(figsize=(max(8.0, 1.5 * len(kinds)), 4.5), constrained_layout=True)
    width = 0.8 / len(curvatures)
    colors = plt.get_cmap("tab10")
    for place, (name, curvature) in enumerate(curvatures.items()):
        values = [curvature.of_type(kind) for kind in kinds]
        positions = [index + (place - (len(curvatures) - 1) / 2) * width for index in range(len(kinds))]
        boxes = axes.boxplot(values, positions=positions, widths=0.9 * width, patch_artist=True, manage_ticks=False)
        for box in boxes["boxes"]:
            box.set_facecolor(colors(place % 10))
        for median in boxes["medians"]:
            median.set_color("black")
        axes.plot([], [], color=colors(place % 10), linewidth=6, label=name)
    axes.set_yscale("log")
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_ylabel("largest Hessian eigenvalue of {A, B}")
    axes.set_title("Curvature at initialization, over layers")
    axes.legend(ncols=2)
    return _saved(figure, path)


def pyplot() -> Any:
    """matplotlib's, drawing to files; raises :class:`PlotError` where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise PlotError("plots need matplotlib: pip install 'autolora-tune[report]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    pyplot().close(figure)
    return path
