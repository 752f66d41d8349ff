"""The `autolora` command. Heavy imports are inside the commands, so that `--help` is instant."""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autolora import __version__, files
from autolora.execution import EXECUTORS

if TYPE_CHECKING:
    from rich.console import Console

    from autolora.adapters.memory import Memory
    from autolora.driver.result import TuneResult
    from autolora.spec import Spec

EXIT_USER, EXIT_NOTHING_TUNED, EXIT_INTERRUPTED, EXIT_CLOSED_PIPE = 2, 3, 130, 141
LINE_WIDTH = 160
FILE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
}
"""Errors of files that the user can fix, and that need no traceback."""


class UserPath(click.Path):
    """A path in which ``~`` is the home, for the shell leaves it in ``--dir=~/runs``."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        try:
            return super().convert(files.expanded(value), param, ctx)
        except OSError as error:  # such as a name that is too long
            self.fail(f"{error.strerror}: {os.fspath(value)!r}", param, ctx)


RUN_DIRECTORY = click.argument("folder", metavar="DIR", type=UserPath(path_type=Path, exists=True, file_okay=False))


def main() -> None:
    """Entry point of the console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Idle OpenMP threads then sleep instead of spinning: beside another busy process a small model's steps, each of
    # many short parallel regions, otherwise take up to a hundred times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_standard_streams()
    # It asks for a package with kernels for its own way of evaluating on some CPUs, which autolora switches off.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # Like Ctrl-C from here on, so that one line ends the command also while it loads.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the locale lacks must not end a study
            stream.reconfigure(errors="replace")
    _check_arguments()
    warnings.formatwarning = partial(_plain_warning, warnings.formatwarning)
    cli()


def _plain_warning(usual: Callable[..., str], message: Warning | str, category: type[Warning], *place: Any) -> str:
    """A warning of ours without its place in the code; those of libraries as usual."""
    if str(place[0]).startswith(str(Path(__file__).parent)):
        return f"warning: {message}\n"
    return usual(message, category, *place)


def _open_standard_streams() -> None:
    """Open those that were closed by whoever started this process.

    The next file opened, such as the study, would otherwise get their numbers, and what libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for as long as the process lives


def _check_arguments() -> None:
    """Refuse bytes that are not text here: they would fail wherever the argument is written or shown."""
    for argument in sys.argv[1:]:
        if not argument.isascii() and argument.encode(errors="replace") != argument.encode(errors="surrogatepass"):
            click.echo(
                f"error: {argument!a} is not text in {sys.getfilesystemencoding()}, as this locale has it: set "
                "PYTHONUTF8=1, or rename the file",
                err=True,
            )
            sys.exit(EXIT_USER)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="autolora")
def cli() -> None:
    """Tune LoRA fine-tuning: learning rate, batch size, rank and alpha of each variant, in a few trainings."""


@cli.command()
@click.argument("spec", metavar="[SPEC.yaml]", required=False, type=UserPath(path_type=Path))
@click.option("--model", help="Path or hub id of a causal language model.")
@click.option("--data", multiple=True, help="Training file or pattern (give several one by one), folder, or hub id.")
@click.option(
    "--trainer",
    help="builtin, or a function of yours as my_training:make_trainer. In SPEC.yaml also {trl: ...}, {command: ...}, "
    "{axolotl: ...}, {llamafactory: ...}.",
)
@click.option("--variants", help="Comma-separated; `autolora variants` lists them.")
@click.option("--budget", type=float, help="Full-run equivalents per variant, everything included.")
@click.option("--time-budget", metavar="TIME", help="The study ends within it, such as 90m, 4h or 1h30m.")
@click.option("--dir", "folder", type=UserPath(path_type=Path, file_okay=False), help="Run directory.")
@click.option("--executor", type=click.Choice(list(EXECUTORS)), default="inline", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any spec key: training.examples=800.")
@click.option("--dry-run", is_flag=True, help="Print the plan and what it will cost; tune nothing.")
def tune(
    spec: Path | None,
    model: str | None,
    data: tuple[str, ...],
    trainer: str | None,
    variants: str | None,
    budget: float | None,
    time_budget: str | None,
    folder: Path | None,
    executor: str,
    settings: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Tune, from a spec file, from flags, or both (flags win). Again with the same --dir: resumes.

    Ends with 0 for a result, 2 for an error that is told in one line, 3 if no variant could be tuned, 130 if it was
    stopped by Ctrl-C or SIGTERM, 141 if nobody reads its output any more, as after `| head`.
    """
    train = data[0] if len(data) == 1 else list(data) or None
    flags: dict[str, object] = {"trainer": trainer, "model": model, "data.train": train, "variants": variants}
    flags |= {"budget": budget, "time_budget": time_budget}
    with _plain_errors():
        overrides = {key: value for key, value in flags.items() if value is not None} | _assignments(settings)
        if spec is None and not overrides:
            raise click.UsageError("give a SPEC.yaml, --model and --data, or --trainer")
        from autolora import spec as specs

        checked = specs.load(spec, **overrides)
        _quiet_libraries()
        folder = folder or Path("runs") / (spec.stem if spec else "autolora")
        if dry_run:
            if executor == "inline":
                from autolora.execution.devices import check_cards

                check_cards(checked)
            _dry_run(checked, folder)
        else:
            from autolora import driver

            _watched(
                folder, executor, partial(driver.tune, spec=checked, dir=folder, executor=executor, began=_began())
            )


@cli.command()
@RUN_DIRECTORY
@click.option("--budget", type=float, help="Full-run equivalents per variant in total; by default as recorded.")
@click.option("--time-budget", metavar="TIME", help="In all, such as 4h; by default as recorded.")
@click.option("--executor", type=click.Choice(list(EXECUTORS)), default="inline", show_default=True)
def resume(folder: Path, budget: float | None, time_budget: str | None, executor: str) -> None:
    """Go on with a study from its recorded specification, from any folder."""
    with _plain_errors():
        from autolora import driver

        _quiet_libraries()
        resumed = partial(driver.resume, folder, budget=budget, time_budget=time_budget, began=_began())
        _watched(folder, executor, partial(resumed, executor=executor))


@cli.command()
@RUN_DIRECTORY
def finish(folder: Path) -> None:
    """Conclude a study now, with what has been trained: test scores, adapters, best.json and the verdict.

    Nothing is trained; `autolora resume` goes on with the study afterwards.
    """
    with _plain_errors():
        from autolora import driver

        _quiet_libraries()
        _watched(folder, "inline", partial(driver.finish, folder))


@cli.command()
@RUN_DIRECTORY
def status(folder: Path) -> None:
    """Show where a study stands, running or not."""
    with _plain_errors():
        from autolora.report.status import read_status

        found = read_status(folder)
        _console().print(found.table)
        for line in found.lines:
            click.echo(line)


@cli.command()
@RUN_DIRECTORY
@click.option("--variant", help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def best(folder: Path, variant: str | None, as_json: bool) -> None:
    """Show the tuned configurations of a finished study."""
    with _plain_errors():
        from autolora.report.status import read_best

        found = read_best(folder, variant)
        if found.note:
            click.echo(found.note, err=True)
        if as_json:
            click.echo(found.json)
        else:
            _console().print(found.table)


@cli.command()
@RUN_DIRECTORY
@click.option("--variant", required=True)
@click.option("--to", "target", default="peft", show_default=True, help="peft, lora, trl, axolotl or llamafactory.")
@click.option("--rank", type=click.IntRange(min=1), help="Of --to lora; by default twice the trained rank.")
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    help="Training examples of the run to write: the learning rate is carried to it by the law of length.",
)
@click.argument("out", type=UserPath(path_type=Path, file_okay=False))
def export(folder: Path, variant: str, target: str, rank: int | None, examples: int | None, out: Path) -> None:
    """Write the tuned adapter, or the tuned settings in another trainer's words, to the folder OUT.

    --to peft is the adapter itself; --to lora cuts one that has a format of its own, as DoRA's, to a plain LoRA.
    Of a study that was tuned with your configuration file of a tool, --to that tool is this file with tuned values.
    """
    with _plain_errors():
        from autolora.recipes import carried, write, write_lora

        if examples is not None and target in ("peft", "lora"):
            raise click.UsageError("--examples is for a run to come: --to trl, axolotl or llamafactory")
        if target == "lora":
            _quiet_libraries()
            plain = write_lora(folder, variant, out, rank)
            click.echo("\n".join(map(str, plain.files)))
            click.echo(plain.summary)
            return
        if rank is not None:
            raise click.UsageError("--rank goes with --to lora")
        for path in write(folder, variant, target, out, examples):
            click.echo(path)
        if examples is not None:
            words = carried(folder, variant, examples).words
            click.echo(words[:1].upper() + words[1:] + ".")


@cli.command()
@click.argument("spec", metavar="SPEC.yaml", type=UserPath(path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any spec key: prior.probe=true.")
@click.option("--plots", type=UserPath(path_type=Path, file_okay=False), help="Folder for pictures of the prior.")
def prior(spec: Path, settings: tuple[str, ...], plots: Path | None) -> None:
    """Show where the search would start: the learning rate each variant is expected to want."""
    with _plain_errors():
        from tempfile import TemporaryDirectory

        from autolora import spec as specs
        from autolora.driver.opening import Opening
        from autolora.report.tables import prior_table

        checked = specs.load(spec, **_assignments(settings))
        if plots is not None:
            from autolora.report.plots import prior_plots, pyplot

            pyplot()  # whether it is installed is said before anything is measured
        _quiet_libraries()
        with TemporaryDirectory() as scratch:  # for which no storage is needed
            opening = Opening.of(checked.model_copy(update={"storage": None}), Path(scratch))
        scouted = opening.scout()
        for note in scouted.notes:
            click.echo(note)
        if scouted.prior is None:
            return
        _console().print(prior_table(scouted, opening.space, checked.variants))
        if plots is not None:
            for path in prior_plots(plots, scouted.prior, opening.space, checked.variants, scouted.curvatures):
                click.echo(path)


@cli.command()
@click.argument("model", required=False)
@click.option("--hidden-size", type=int, help="Width of the model, in place of MODEL.")
@click.option("--variant", default="lora", show_default=True, help="`autolora variants` lists them.")
@click.option("--rank", type=int, help="By default 32, or the largest usual one that fits the model.")
@click.option("--alpha", type=float, help="By default that of s = 1, or the variant's own.")
@click.option("--batch-size", type=int, help="Training examples per optimizer step; by default 32.")
@click.option("--examples", type=int, help="Training examples of a full run; by default unknown.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def recommend(model: str | None, as_json: bool, **setting: Any) -> None:
    """Recommend a learning rate for MODEL from its configuration alone, in seconds.

    MODEL is a directory with config.json, or a hub id. What is left out is assumed, and said.
    """
    with _plain_errors():
        import json

        from autolora import advising
        from autolora.report.advice import advice_view

        warnings.filterwarnings("ignore", category=FutureWarning)
        advice = advising.recommend(model, **setting)
        if as_json:
            click.echo(json.dumps(advice.as_dict(), indent=2))
        else:
            _console().print(advice_view(advice))


@cli.command()
@click.argument("name", required=False)
def variants(name: str | None) -> None:
    """List the LoRA variants that can be tuned, or tell more of one."""
    with _plain_errors():
        from autolora.report.tables import variant_view, variants_table

        _console().print(variants_table() if name is None else variant_view(name))


def _watched(folder: Path, executor: str, work: Callable[..., TuneResult]) -> None:
    """Do the work with progress shown, and say how it goes on if it does not come to its end."""
    from autolora.errors import AutoloraError
    from autolora.report.console import console_callback

    try:
        result = work(callbacks=[console_callback(_console())])
    except KeyboardInterrupt:
        click.echo(f"\nStopped. Completed work is saved. To continue:\n  {_command_again(folder, executor)}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except (AutoloraError, OSError):
        raise
    except Exception:
        again = _command_again(folder, executor)
        click.echo(
            f"\nTraining or the metric failed. Completed work is saved. Fix the problem and rerun:\n  {again}", err=True
        )
        raise
    if all(tuned.fraction < 1 for tuned in result.values()):
        from autolora.report.failure import nothing_tuned

        click.echo(f"error: {nothing_tuned(folder)}", err=True)
        sys.exit(EXIT_NOTHING_TUNED)


def _began() -> float:
    """When this process began, by ``time.monotonic``: loading libraries takes time, too."""
    import psutil

    age: float = time.time() - psutil.Process().create_time()
    return time.monotonic() - age


def _command_again(folder: Path, executor: str) -> str:
    """How to go on with a run directory."""
    from autolora.driver.records import hidden_keys

    command = ["autolora resume", files.argument(folder), *(["--executor", executor] if executor != "inline" else [])]
    hidden = hidden_keys(folder)
    note = (
        f"\nThe secrets in {' and '.join(hidden)} are not recorded, and are looked for where the database's and the "
        "store's own tools look. Otherwise run the same `autolora tune` as before, or write ${VARIABLE} in place of "
        f"*** in {files.shown(folder / 'spec.yaml')}."
    )
    return " ".join(command) + (note if hidden else "")


def _dry_run(spec: Spec, folder: Path) -> None:
    from rich.text import Text

    from autolora.driver.plan import dry_run, saving_keys
    from autolora.report.tables import plan_view

    console = _console()

    def warn(memory: Memory) -> None:
        if memory.fits is False:  # before it is tried, which may end the process
            console.print(Text(f"warning: {memory.verdict()} {saving_keys(memory)}\n"))

    console.print(plan_view(dry_run(spec, folder, on_memory=warn), spec, folder))


def _assignments(settings: tuple[str, ...]) -> dict[str, object]:
    """KEY=VALUE flags as spec overrides; values are YAML."""
    from autolora import urls
    from autolora.documents import DocumentError, parse_yaml
    from autolora.spec import SpecError

    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise SpecError(f"--set {urls.scrubbed(setting)}: write KEY=VALUE, as in --set training.examples=800")
        try:
            parsed[key] = parse_yaml(value, f"--set {key}")
        except DocumentError as error:
            raise SpecError(str(error)) from None
    return parsed


def _quiet_libraries() -> None:
    """Their progress bars and deprecation notices are not for our users; their errors still are."""
    import logging

    import datasets
    import optuna
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    optuna.logging.set_verbosity(logging.WARNING)


def _console() -> Console:
    """The terminal, or a stream wide enough that no table is cut when the output goes to a file."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise  # as an error, which rich would turn into an exit without a word

    return Terminal() if sys.stdout.isatty() else Terminal(width=LINE_WIDTH)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has gone. If so, it is said, and what is still to be written is dropped."""
    if not hasattr(select, "poll"):  # Windows, where such a write fails in another way
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not any(state & select.POLLERR for _, state in output.poll(0)):
        return False
    dropped = os.open(os.devnull, os.O_WRONLY)
    os.dup2(dropped, sys.stdout.fileno())
    try:
        click.echo("error: nobody reads the output any more. Completed work is saved.", err=True)
    except BrokenPipeError:  # the same pipe, as after `2>&1 | head`
        os.dup2(dropped, sys.stderr.fileno())
    return True


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Print errors that the user can fix in one line; others keep their traceback."""
    from autolora.errors import AutoloraError

    try:
        yield
        sys.stdout.flush()
    except AutoloraError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USER)
    except KeyboardInterrupt:
        click.echo("\nStopped.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(EXIT_CLOSED_PIPE)
        if error.errno not in FILE_SYSTEM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        click.echo(
            f"error: {error.strerror}{where}. Completed work is saved. Fix the problem and rerun the same command.",
            err=True,
        )
        sys.exit(EXIT_USER)
