"""Tables for a terminal, built on rich."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autolora import files, variants
from autolora.adapters.export import CONFIG, NATIVE, OWN, is_own
from autolora.adapters.memory import size
from autolora.driver.plan import saving_keys
from autolora.driver.result import TuneResult
from autolora.priors.evidence import REFERENCE, log_ratio
from autolora.priors.prior import nearest_rate
from autolora.report.durations import durations_view
from autolora.report.front import front_lines
from autolora.report.memory import memory_view
from autolora.report.recommended import alternatives, differences_table
from autolora.report.summary import VariantSummary, cells, columns, duration, setting, stops
from autolora.space import Space
from autolora.space.dimensions.learning_rate import LEARNING_RATE

if TYPE_CHECKING:
    from autolora.driver.plan import DryRun
    from autolora.driver.scouting import Scouted
    from autolora.spec import Spec

EXPORTED = {NATIVE: "PEFT's own format", OWN: "a format of its own, which autolora.load_adapter reads"}
INTERVAL = 0.9
"""Share of the prior's informed part within the interval shown."""


def status_table(summaries: Iterable[VariantSummary], rungs: tuple[float, ...]) -> Table:
    """Where each variant stands."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (("variant", "left"), ("spent", "right"), ("incumbent", "left"), ("score", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("at", justify="right", no_wrap=True)
    table.add_column("trials", justify="right")
    table.add_column("stopped")
    for each in summaries:
        best = each.incumbent
        row = [
            each.variant,
            f"{each.spent:.2f}/{each.budget:g}",
            setting(best.config) if best else "-",
            _score(best.scores[best.reached] if best else None),
            f"{rungs[best.reached]:.2g}" if best else "-",
            str(sum(each.counts.values())),
            stops(each.counts),
        ]
        table.add_row(*row)
    return table


def result_table(result: TuneResult) -> RenderableType:
    """The outcome per variant, with the baseline if there is one, what else does as well, the verdict, and adapters."""
    compared = any(tuned.baseline is not None for tuned in result.values())
    tested = any(tuned.test is not None for tuned in result.values())
    shown = columns(tuned.config for tuned in result.values())
    table = Table(
        title=f"{result.metric}, {result.direction}d; spent in full runs", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("variant", no_wrap=True)
    labels = [dimension.label for dimension in shown]
    scores = [*(["baseline"] if compared else []), "tuned", "seeds", *(["test"] if tested else [])]
    for column in (*scores, *labels, "spent", "wall time"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, tuned in result.items():
        row = [
            name,
            *([_score(tuned.baseline)] if compared else []),
            _score(tuned.value)
            + (f" ± {tuned.spread:.4f}" if tuned.spread is not None else "")
            + (f" at {tuned.fraction:.2g} of a run" if tuned.fraction < 1 else ""),
            str(len(tuned.seeds)),
            *([_score(tuned.test)] if tested else []),
            *cells(tuned.config, shown),
            f"{result.spent[name]:.2f}",
            duration(tuned.seconds),
        ]
        table.add_row(*row)
    notes = [Text(f"{name}: {note}.") for name, tuned in result.items() for note in tuned.notes]
    fronts = front_lines(result)
    parts = [
        *notes,
        *([Text()] if notes else []),
        *_recommended(result),
        *durations_view(result.durations),
        *([Text("\n".join(fronts)), Text()] if fronts else []),
    ]
    return Group(table, *parts, Text("\n".join(_adapters(result))))


def _adapters(result: TuneResult) -> list[str]:
    """Where they are, and what loads them."""
    found: dict[str, list[str]] = {}
    for name, tuned in result.items():
        if tuned.adapter_dir:
            found.setdefault(_kind_of(Path(tuned.adapter_dir)), []).append(f"  {name}: {tuned.adapter_dir}")
    return [
        line for kind in (PLAIN_ADAPTERS, OWN_ADAPTERS, OTHER_FOLDERS) if kind in found for line in (kind, *found[kind])
    ]


PLAIN_ADAPTERS = "Adapters, which plain peft loads on the base that they were trained on, unmodified:"
OWN_ADAPTERS = "Adapters in a format of their own, which autolora.load_adapter loads:"
OTHER_FOLDERS = "Copies of the winners' folders:"
"""What is said of exported folders, by what is in them."""


def _kind_of(folder: Path) -> str:
    if is_own(folder):
        return OWN_ADAPTERS
    return PLAIN_ADAPTERS if (folder / CONFIG).is_file() or not folder.is_dir() else OTHER_FOLDERS


def _recommended(result: TuneResult) -> list[RenderableType]:
    """What else does as well, and the verdict over variants, each with an empty line after it."""
    parts = [*alternatives(result), Text()]
    verdict = result.verdict
    if verdict is None or len(result) < 2:
        return parts
    parts.append(Text(f"Verdict: {verdict.text}"))
    differences = differences_table(verdict)
    return [*parts, *([differences] if differences else []), Text()]


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def clock(seconds: Mapping[str, float]) -> str:
    """Wall time of a call, and the driver's own share of it."""
    total, own = seconds["total"], seconds["driver"]
    share = 100 * own / total if total else 0.0
    return (
        f"Wall time {duration(total)}, of it training and evaluation {duration(seconds['training'])}; "
        f"deciding and recording {own:.1f} s ({share:.1f}%)."
    )


def plan_view(plan: DryRun, spec: Spec, folder: Path) -> RenderableType:
    """What `autolora tune --dry-run` shows."""
    shown = columns(trial.config for trial in plan.first)
    first = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("variant", "trained as", *(dimension.label for dimension in shown)):
        first.add_column(column, no_wrap=True)
    first.add_column("because")
    for trial in plan.first:
        first.add_row(trial.variant, trial.purpose, *cells(trial.config, shown), trial.origin)
    lines = [
        *plan.notes,
        f"variants: {', '.join(spec.names)}; each gets {plan.spending}",
        f"run directory: {files.shown(folder)}",
        "",
        "The first trials:",
    ]
    planned = [] if plan.memory is None else [Text(), memory_view(plan.memory)]
    if plan.memory is not None and plan.memory.fits is False:
        planned.append(Text(saving_keys(plan.memory)))
    time = [Text(plan.time)] if plan.time else []
    return Group(Text("\n".join(lines)), first, Text(f"\n{_estimate(plan)}"), *time, *planned)


def _estimate(plan: DryRun) -> str:
    """What the study takes, as far as that was measured."""
    if plan.seconds_per_run is None or plan.seconds is None or plan.disk_bytes is None:
        return "Time, memory and disk are not estimated, since this trainer cannot train a few steps alone."
    memory = "" if plan.memory_bytes is None else f"{size(plan.memory_bytes)} of memory{_included(plan)}; "
    return (
        f"Estimated from a few real steps of the largest batch and rank: {duration(plan.seconds_per_run)} a full "
        f"run, {plan.evaluation_share:.0%} of it evaluation, {duration(plan.seconds)} in all; {memory}"
        f"at most {size(plan.disk_bytes)} of disk."
    )


def _included(plan: DryRun) -> str:
    """What is measured and not planned: on a CPU all of the process, on a GPU nothing."""
    on_machine = plan.memory is not None and plan.memory.device is not None and plan.memory.device.name == "cpu"
    return ", Python and its libraries included" if on_machine else ""


def variants_table() -> RenderableType:
    """What `autolora variants` shows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("variant", "paper", "changes", "needs", "export"):
        table.add_column(column, no_wrap=True)
    for column in ("step", "rate"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in variants.names():
        variant = variants.get(name)
        row = [
            name,
            variant.paper.split()[-1],
            "-" if variant.kind == "reference" else variant.kind,
            "both" if len(variant.needs) > 1 else "".join(variant.needs) or "-",
            variant.export_form,
            "-" if variant.cost is None else f"{variant.cost:.2f}",
            f"{float(f'{10**variant.traits.shift:.1g}'):g}",
        ]
        table.add_row(*row)
    adapting = ", ".join(name for name in variants.names() if variants.get(name).adapts_experts)
    note = (
        "paper: on arXiv; with letters, on OpenReview.\n"
        "needs: what of a few training batches gives the start; the run's horizon.\n"
        "export: an exact plain LoRA of that rank (kr: a multiple of r; r+: more than r),\n"
        "  PEFT's own format (native), or one that autolora.load_adapter alone reads,\n"
        "  as no matrix added to the weights does the same (own).\n"
        "step: time of a step over plain LoRA's (studies/variants, width 1024).\n"
        "rate: best learning rate over plain LoRA's, as expected before any measurement.\n"
        f"Experts in one parameter, as of Mixtral, are adapted by\n  {adapting}.\n"
        "`autolora variants NAME` tells more of one."
    )
    return Group(table, Text(note))


def variant_view(name: str) -> RenderableType:
    """What `autolora variants NAME` shows."""
    variant = variants.resolve(name)
    traits = variant.traits
    options = ", ".join(
        f"{option} {'by the rank' if value is None else f'= {value}'}" for option, value in variant.options.items()
    )
    relation = "plain LoRA's" if traits.shift == 0 else f"{10**traits.shift:.2g} of plain LoRA's"
    law = f"s = {traits.alpha_law:g}" if isinstance(traits.alpha_law, float) else "the square-root law"
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for fact, value in (
        ("name", variant.title),
        ("paper", variant.paper),
        ("changes", variant.kind),
        ("needs", " and ".join(variant.needs) or "nothing"),
        ("constraints", variant.constraints),
        ("own hyperparameters", options or "none"),
        ("experts", "each with factors of its own" if variant.adapts_experts else "none in one parameter"),
        ("quantized bases", " and ".join(f"{bits} bits" for bits in variant.bits) or "none"),
        ("optimizer", variant.optimizer_name),
        ("alpha", "always r" if traits.unit_scale else f"by the law: {law}"),
        ("best learning rate", f"{relation}, give or take {traits.shift_sd:g} decades"),
        ("goes with s as", f"s^-{traits.exponent:g}"),
        ("exported as", EXPORTED.get(variant.export_form, f"{variant.export_form} LoRA")),
        *([("loading", variant.loading)] if variant.loading else []),
        ("step", "not measured" if variant.cost is None else f"{variant.cost:.2f} of plain LoRA's time"),
    ):
        table.add_row(fact, value)
    return table


def prior_table(scouted: Scouted, space: Space, names: Sequence[str]) -> RenderableType:
    """What `autolora prior` shows: the expected learning rate of each variant with its central 90%."""
    prior = scouted.prior
    assert prior is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    traits = {name: prior.traits(name, variants.get(name).traits) for name in names}
    modes = {name: prior.mode(space, traits[name]) for name in names}
    others = [dimension for dimension in columns(modes.values()) if dimension is not LEARNING_RATE]
    labels = [dimension.label for dimension in others]
    for column in ("variant", "curvature", LEARNING_RATE.label, "central 90%", *labels, "cost"):
        table.add_column(column, justify="left" if column == "variant" else "right", no_wrap=True)
    for name, mode in modes.items():
        low, high = (nearest_rate(space, rate) for rate in prior.interval(traits[name], mode, INTERVAL))
        row = [
            name,
            _relative_curvature(scouted, name),
            LEARNING_RATE.text(mode),
            f"{low:.1e} to {high:.1e}",
            *cells(mode, others),
            f"{prior.share(len(names)):.3f}",
        ]
        table.add_row(*row)
    note = (
        "curvature: largest Hessian eigenvalue relative to plain LoRA's, over matrix types; cost: full runs a variant"
    )
    return Group(table, Text(note))


def _relative_curvature(scouted: Scouted, name: str) -> str:
    if not scouted.curvatures:
        return "-"
    variant = variants.get(name)
    if not variant.has_own_curvature:
        return "1" if variant.starts_as_lora else "-"
    ratio = log_ratio(scouted.curvatures[name].per_type, scouted.curvatures[REFERENCE].per_type)
    return "-" if ratio is None else f"{10**ratio:.2f}"
