"""What becomes of commands that fail, are killed, stall, report nonsense or do not stop: each by really doing it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from autolora.trainers import Interrupted, LostSegment, Progress, SignOfLife
from autolora.trainers.command import attempt as attempts
from autolora.trainers.command.errors import CommandError
from autolora.trainers.command.process import TRIAL, end_marked
from tests.support.commands import SCORES, TRAINS, command_trainer, job
from tests.support.processes import marked


def python(program: str) -> str:
    """A command line that runs a program, whose braces are doubled."""
    return f"exec {shlex.quote(sys.executable)} -S -c {shlex.quote(program.replace('{', '{{').replace('}', '}}'))}"


# Exit codes and signals.


def test_an_exit_code_is_an_error_with_the_last_lines_and_the_log(tmp_path):
    trainer = command_trainer(tmp_path, "echo first; echo 'ValueError: no such column' >&2; exit 3")
    with pytest.raises(CommandError) as raised:
        trainer.run(job())
    said = str(raised.value)
    shown = ("exit code 3", "ValueError: no such column", "echo first", str(trainer.log(0)), "Completed work is saved")
    assert all(each in said for each in shown)


def test_a_command_that_is_not_there_is_an_error_that_says_so(tmp_path):
    with pytest.raises(CommandError, match=r"exit code 127[\s\S]*no-such-program"):
        command_trainer(tmp_path, "no-such-program --lr {learning_rate}").run(job())


@pytest.mark.parametrize(
    "said",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RuntimeError: CUDA error: out of memory",
        "MemoryError",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "OSError: [Errno 12] Cannot allocate memory",
    ],
)
def test_running_out_of_memory_is_infeasible(tmp_path, said):
    outcome = command_trainer(tmp_path, f'echo "{said}"; exit 1').run(job())
    assert (outcome.kind, outcome.value) == ("infeasible", None)
    assert said[:40] in outcome.reason


LACKING = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.mark.parametrize(
    "lines",
    [
        ["halving the batch if it runs out of memory", "ValueError: no such column"],
        [LACKING, "caught, halving the batch", "Traceback (most recent call last):", "KeyError: 'text'"],
        [LACKING, *["step"] * 20, "failed"],
        ["usage: train.py [--on-out-of-memory {{halve,stop}}]", "train.py: error: argument --on-out-of-memory"],
        ["INFO catches MemoryError and std::bad_alloc", "exiting"],
        ["ValueError: rows mention MemoryErrors"],
        [
            LACKING,
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
            *["table"] * 5,
            "OSError: disk",
        ],
    ],
)
def test_output_that_mentions_memory_has_not_run_out_of_it(tmp_path, lines):
    said = "\n".join(lines)
    with pytest.raises(CommandError, match="exit code 1"):
        command_trainer(tmp_path, f"echo {shlex.quote(said)}; exit 1").run(job())


@pytest.mark.parametrize(
    "lines",
    [
        [f"[rank0]: {LACKING}", "[rank0]:[W1130] Warning: destroy_process_group() was not called"],
        [
            LACKING,
            *["Traceback"] * 20,
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
            "train.py FAILED",
        ],
        ["jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4 bytes."],
        [
            "terminate called after throwing an instance of 'c10::Error'",
            "  what():  CUDA out of memory. Tried to allocate",
        ],
        ["numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 TiB for an array"],
    ],
)
def test_an_exception_for_lack_of_memory_may_come_through_launchers(tmp_path, lines):
    said = "\n".join(lines)
    outcome = command_trainer(tmp_path, f"echo {shlex.quote(said)}; exit 1").run(job())
    assert outcome.kind == "infeasible"
    assert any(line.strip()[-30:] in outcome.reason for line in lines)


def test_a_signal_from_elsewhere_counts_before_what_was_said_of_memory(tmp_path):
    with pytest.raises(LostSegment, match="SIGTERM"):
        command_trainer(tmp_path / "a", f"echo '{LACKING}'; kill -15 $$").run(job())
    aborted = "echo 'terminate called after throwing an instance of std::bad_alloc'; kill -6 $$"
    assert command_trainer(tmp_path / "b", aborted).run(job()).kind == "infeasible"


def test_memory_that_an_earlier_segment_lacked_is_not_this_one_s(tmp_path):
    command_trainer(tmp_path, "echo MemoryError; exit 1").run(job())
    (tmp_path / "trials" / "0" / "trial.json").unlink()
    with pytest.raises(CommandError, match="exit code 1"):
        command_trainer(tmp_path, "echo ok; exit 1").run(job())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
@pytest.mark.parametrize("inner", [False, True], ids=["the command", "what its shell runs"])
def test_a_command_that_a_signal_kills_is_lost(tmp_path, number, inner):
    command = f"kill -{number.value} $$"
    if inner:
        command = f"sh -c '{command}'; exit $?"
    with pytest.raises(LostSegment, match=rf"killed by {number.name}; its output is in .*0\.log"):
        command_trainer(tmp_path, command).run(job())


def test_the_next_run_of_what_was_lost_goes_on(tmp_path):
    once = "if [ ! -e {folder}/once ]; then touch {folder}/once; kill -9 $$; fi; "
    trainer = command_trainer(tmp_path, once + SCORES)
    with pytest.raises(LostSegment):
        trainer.run(job())
    assert trainer.run(job()).value == 2.5


def test_a_stall_is_lost_and_the_group_is_killed(tmp_path):
    trainer = command_trainer(tmp_path, "echo begun; sleep 1000 & sleep 1000", **{"resources.stall_minutes": 0.5 / 60})
    with pytest.raises(LostSegment, match=r"neither reported nor printed anything for 0\.00833333 minutes"):
        trainer.run(job())
    assert marked(tmp_path) == []


@pytest.mark.parametrize("life", ["echo .", """echo '{{"step": 9}}' >> $AUTOLORA_REPORT"""], ids=["output", "reports"])
def test_output_and_reports_are_signs_of_life(tmp_path, life):
    command = f"for i in 1 2 3 4 5 6; do {life}; sleep 0.3; done; {SCORES}"
    outcome = command_trainer(tmp_path, command, **{"resources.stall_minutes": 0.8 / 60}).run(job())
    assert outcome.value == 2.5


def test_what_a_command_leaves_running_ends_with_it(tmp_path):
    assert command_trainer(tmp_path, f"sleep 1000 & setsid sleep 1000 & {SCORES}").run(job()).value == 2.5
    assert marked(tmp_path) == []


# Scores and reports.


def test_no_score_is_an_error_that_names_what_was_reported(tmp_path):
    command = """echo '{{"step": 9, "loss": 1.0, "accuracy": 0.5}}' >> "$AUTOLORA_REPORT" """
    with pytest.raises(
        CommandError, match=r"reported step, loss, accuracy, and metric is 'eval_loss'.*AUTOLORA_REPORT"
    ):
        command_trainer(tmp_path, command).run(job())
    with pytest.raises(CommandError, match="reported nothing"):
        command_trainer(tmp_path / "other", "true").run(job())


def reports(*lines: str) -> str:
    """A command that reports these lines."""
    return python(f"import os\nopen(os.environ['AUTOLORA_REPORT'], 'a').write({chr(10).join(lines)!r})")


@pytest.mark.parametrize(
    ("lines", "metric", "value"),
    [
        (['{"eval_loss": 3.0}', '{"eval_loss": 2.0}', '{"step": 9, "loss": 1}'], "eval_loss", 2.0),
        (['{"eval_accuracy": 0.5}'], "accuracy", 0.5),
        (['{"accuracy": 0.25, "eval_accuracy": 0.5}'], "accuracy", 0.25),
        (['{"eval_loss": "2.0"}'], "eval_loss", 2.0),
        (['\ufeff{"eval_loss": 2.0}'], "eval_loss", 2.0),
        (["\ufeff", '{"eval_loss": 2.0}'], "eval_loss", 2.0),
        (['{"eval_loss": NaN}', '{"eval_loss": 2}', ""], "eval_loss", 2.0),
        (['{"eval_loss": 2}', '{"eval_loss": 3'], "eval_loss", 2.0),  # cut short
        (["", '{"eval_loss": null}', '{"eval_loss": 2}\r'], "eval_loss", 2.0),
        (['{"step": 9, "loss": 1.0, "eval_rewards/accuracies": 0.75}'], "eval_rewards/accuracies", 0.75),
    ],
)
def test_the_last_line_with_the_metric_is_the_score(tmp_path, lines, metric, value):
    named = {"metric": {"name": metric, "direction": "minimize"}}
    assert command_trainer(tmp_path, reports(*lines), **named).run(job()).value == value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("oops", r"line 2: 'oops' is not JSON"),
        ("[1, 2]", r"line 2: '\[1, 2\]' is not a JSON object"),
        ('{"loss": [1]}', r"line 2: loss must be a number, not '\[1\]'"),
        ('{"step": "first"}', r"line 2: step must be a number, not '\"first\"'"),
        ('{"step": -1}', "line 2: step must be a number of at least 0"),
    ],
)
def test_a_line_that_is_not_a_report_is_an_error_with_file_and_line(tmp_path, line, said):
    with pytest.raises(CommandError, match=rf"000001\.jsonl {said}.*append lines such as") as raised:
        command_trainer(tmp_path, reports('{"step": 1}', line, '{"eval_loss": 2}')).run(job())
    assert str(tmp_path) in str(raised.value)


def test_a_line_that_could_not_be_read_does_not_stop_the_next_run(tmp_path):
    with pytest.raises(CommandError):
        command_trainer(tmp_path, reports("oops", "")).run(job())
    trainer = command_trainer(tmp_path, reports("oops", ""))
    trainer.launch = lambda trial: attempts.Launch(["sh", "-c", SCORES.replace("{{", "{").replace("}}", "}")])
    assert trainer.run(job()).value == 2.5


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", '"nan"'])
@pytest.mark.parametrize("key", ["loss", "eval_loss"])
def test_what_is_not_finite_has_diverged(tmp_path, key, value):
    outcome = command_trainer(tmp_path, reports(f'{{"step": 3, "{key}": {value}}}')).run(job())
    assert (outcome.kind, outcome.value) == ("diverged", None)
    assert "nan" in outcome.reason or "inf" in outcome.reason
    assert outcome.at == pytest.approx(24 / 72 if key == "loss" else 1.0)


def test_a_command_that_fails_on_the_nan_that_it_has_reported_has_diverged(tmp_path):
    command = """echo '{{"step": 3, "loss": NaN}}' >> "$AUTOLORA_REPORT"; exit 1"""
    assert command_trainer(tmp_path, command).run(job()).kind == "diverged"


def test_a_loss_that_blows_up_stops_the_command(tmp_path):
    lines = "\\n".join(f'{{"step": {n}, "loss": {2.0 if n < 5 else 50.0}}}' for n in range(1, 8))
    program = f"import os, time\nopen(os.environ['AUTOLORA_REPORT'], 'a').write('{lines}\\n')\ntime.sleep(1000)"
    outcome = command_trainer(tmp_path, python(program)).run(job())
    assert outcome.kind == "diverged"
    assert re.search(r"rose to .* by step [567]", outcome.reason)


def test_negative_rewards_are_scores_like_others(tmp_path):
    lines = [f'{{"step": {n}, "reward": {-n}, "eval_reward": {-10 * n}}}' for n in range(1, 9)]
    metric = {"metric": {"name": "eval_reward", "direction": "maximize"}}
    assert command_trainer(tmp_path, reports(*lines), **metric).run(job()).value == -80.0


def test_a_loss_below_zero_may_rise(tmp_path):
    """As in reinforcement learning, where it says little; a hundredfold is too much of any."""
    losses = [0.3, -0.5, -1.0, -0.2, 0.4, 1.9, 2.5, 3.0]
    lines = [f'{{"step": {n}, "loss": {loss}}}' for n, loss in enumerate(losses, 1)]
    assert command_trainer(tmp_path / "a", reports(*lines, '{"eval_loss": 2}')).run(job()).value == 2
    blown = [f'{{"step": {n}, "loss": {loss}}}' for n, loss in enumerate((*losses[:6], -900, 950), 1)]
    assert command_trainer(tmp_path / "b", reports(*blown, '{"eval_loss": 2}')).run(job()).kind == "diverged"


def test_losses_that_are_repeated_after_a_resume_are_not_counted_twice(tmp_path):
    """The watch of what was trained twice sees what one sees that was trained once."""
    from autolora.trainers.command.reports import Reports

    def line(step: int, loss: float) -> str:
        return f'{{"step": {step}, "loss": {loss}}}'

    seen = Reports(8, "eval_loss")
    for step in (*range(1, 7), *range(3, 7)):
        assert seen.take(line(step, 3.0 - step / 10))[1] is None
    once = Reports(8, "eval_loss")
    for step in range(1, 7):
        once.take(line(step, 3.0 - step / 10))
    assert seen._losses == once._losses
    for step in range(7, 12):
        assert seen.take(line(step, 4.9)) == once.take(line(step, 4.9))


def test_losses_of_earlier_segments_are_known_to_the_watch(tmp_path):
    steady = [f'{{"step": {n}, "loss": 2.0}}' for n in range(1, 4)]
    trainer = command_trainer(tmp_path, reports(*steady, '{"eval_loss": 2}'))
    trainer.run(job(rung=1))
    (tmp_path / "trials" / "0" / "trial.json").unlink()
    blown = [f'{{"step": {n}, "loss": 30.0}}' for n in range(4, 5)]  # alone it would be a start
    trainer.launch = lambda trial: attempts.Launch(
        [sys.executable, "-c", f"import os\nopen(os.environ['AUTOLORA_REPORT'], 'a').write({blown[0]!r} + chr(10))"]
    )
    assert trainer.run(job(rung=2)).kind == "diverged"


def test_a_report_that_is_written_over_counts_as_it_is(tmp_path):
    """With > in place of >>, at the same length and at a greater one."""
    command = "".join(
        f"""echo '{{{{"eval_loss": {score}}}}}' > "$AUTOLORA_REPORT"; sleep 0.3; """ for score in (4.0, 3.0, 2.125)
    )
    assert command_trainer(tmp_path, command).run(job()).value == 2.125


# Metric files and patterns.


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ('{"eval_loss": 2.0, "epoch": 1}', 2.0),
        ('\ufeff{"eval_loss": 2.0}', 2.0),
        ('{"results": {"task": {"eval_loss": 2.0}}}', 2.0),
        ('{"log_history": [{"eval_loss": 3.0, "step": 1}, {"eval_loss": 2.0}, {"loss": 1.0}]}', 2.0),
        ('{"eval_loss": 3.0}\n{"eval_loss": 2.0}\n{"loss": 1}\n', 2.0),
        ('{"all": {"eval_loss": 9}, "eval_loss": "2"}', 2.0),
    ],
)
def test_the_score_is_found_in_a_metric_file(tmp_path, content, value):
    path = tmp_path / "content"
    path.write_text(content)
    named = {"trainer": {"metric_file": "{folder}/metrics.json"}}
    trainer = command_trainer(tmp_path / "run", f"cp {path} {{folder}}/metrics.json", **named)
    assert trainer.run(job()).value == value


def test_a_metric_file_without_the_score_is_an_error(tmp_path):
    named = {"trainer": {"metric_file": "{folder}/metrics.json"}}
    for command, said in (
        ("true", r"metrics\.json is not there: .*did not write it"),
        ("echo '{{\"loss\": 1}}' > {folder}/metrics.json", "holds no number under 'eval_loss'.*its keys: loss"),
        ('echo \'{{"a": [{{"b": 1}}]}}\' > {folder}/metrics.json', "its keys: a, b"),
        ('echo \'{{"eval_loss": "x"}}\' > {folder}/metrics.json', "has eval_loss = 'x', which is not a number"),
        ("echo '{{\"eval_loss\": [1]}}' > {folder}/metrics.json", "holds no number under 'eval_loss'"),
        ("echo 'oops' > {folder}/metrics.json", "is not JSON"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(CommandError, match=rf"(?s){said}.*Trial 0: `.*; its output is in .*logs/0\.log"):
            command_trainer(folder, command, **named).run(job())


def test_the_score_of_an_earlier_segment_is_not_this_one_s(tmp_path):
    command = """if [ ! -e {folder}/m.json ]; then echo '{{"eval_loss": 2}}' > {folder}/m.json; fi"""
    trainer = command_trainer(tmp_path, command, trainer={"metric_file": "{folder}/m.json"})
    assert trainer.run(job(rung=0)).value == 2.0
    with pytest.raises(CommandError, match="is as it was before"):
        trainer.run(job(rung=1))


def test_the_last_match_of_a_pattern_in_the_output_is_the_score(tmp_path):
    command = "echo 'accuracy: 0.25'; printf 'bar 50%%\\raccuracy: 0.5' >&2"
    named = {"metric": {"name": "accuracy", "direction": "maximize"}}
    trainer = command_trainer(tmp_path, command, trainer={"metric_pattern": "accuracy: ([0-9.]+)"}, **named)
    assert trainer.run(job(rung=0)).value == 0.5
    trainer.launch = lambda trial: attempts.Launch("echo nothing")
    with pytest.raises(
        CommandError, match="no line of its output matches"
    ):  # that of the segment before does not count
        trainer.run(job(rung=1))
    other = command_trainer(tmp_path / "other", command, trainer={"metric_pattern": "(bar) 50"}, **named)
    with pytest.raises(CommandError, match=r"metric_pattern: '\(bar\) 50' found 'bar'.*not a number.*Trial 0: `echo"):
        other.run(job())


# Stops.


@pytest.mark.parametrize("line", ['{"step": 100, "loss": 1}', '{"step": 1, "examples": 800, "loss": 1}'])
def test_a_command_that_ignores_its_stop_is_stopped_with_what_to_do(tmp_path, line):
    program = f"import os, time\nopen(os.environ['AUTOLORA_REPORT'], 'a').write('{line}\\n')\ntime.sleep(1000)"
    with pytest.raises(
        CommandError, match=r"800 examples.* to stop at 24 of 72\..*\{stop_examples\}.*early_stop: false"
    ):
        command_trainer(tmp_path, python(program)).run(job(rung=1))
    assert marked(tmp_path) == []


def test_a_batch_more_than_the_stop_is_not_too_far(tmp_path):
    assert command_trainer(tmp_path, reports('{"step": 4, "loss": 1, "eval_loss": 2}')).run(job(rung=1)).value == 2


@pytest.mark.parametrize(
    "lines",
    [
        ['{"step": 4, "loss": 1, "eval_loss": 2}'],
        ['{"examples": 32, "loss": 1}', '{"examples": 32, "eval_loss": 2}'],
        [*(f'{{"step": {n}, "loss": 1}}' for n in range(1, 5)), '{"eval_loss": 2}'],
        ['{"step": 1, "loss": 1}', '{"eval_loss": 2}'],
    ],
)
def test_a_command_that_ends_well_long_before_its_stop_is_an_error(tmp_path, lines):
    with pytest.raises(CommandError, match=r"reported (32|8) examples at last, and was to train to 72 \(of 72"):
        command_trainer(tmp_path, reports(*lines)).run(job())


@pytest.mark.parametrize(
    "lines",
    [
        ['{"eval_loss": 2}'],  # it said nothing of how far it went
        ['{"loss": 1}', '{"eval_loss": 2}'],
        ['{"step": 8, "loss": 1, "eval_loss": 2}'],
        ['{"step": 5, "loss": 1}', '{"eval_loss": 2}'],  # it reports every five steps, of nine
    ],
)
def test_a_command_that_may_have_reached_its_stop_is_believed(tmp_path, lines):
    assert command_trainer(tmp_path, reports(*lines)).run(job()).value == 2


def test_a_run_that_goes_on_reports_steps_since_the_beginning_of_the_trial(tmp_path):
    trainer = command_trainer(tmp_path, reports('{"step": 3, "loss": 1, "eval_loss": 2}'))
    assert trainer.run(job(rung=1)).value == 2
    with pytest.raises(CommandError, match="since the beginning of the trial"):
        trainer.run(job(rung=2))


def test_without_early_stop_nobody_looks_how_far_it_goes(tmp_path):
    lines = reports('{"step": 1000, "loss": 1, "eval_loss": 2}')
    assert command_trainer(tmp_path, lines, trainer={"early_stop": False}).run(job()).value == 2


# Interrupts.


def test_signs_of_life_come_every_second_from_a_command_that_says_nothing(tmp_path):
    told: list[Progress] = []
    began = time.monotonic()
    command_trainer(tmp_path, f"sleep 1.5; {SCORES}").run(job(), told.append)
    assert len(told) >= time.monotonic() - began
    assert all(isinstance(each, SignOfLife) for each in told)
    assert len(set(told)) == 1  # nothing was heard


def test_more_output_is_another_sign_of_life(tmp_path):
    told: list[Progress] = []
    command_trainer(tmp_path, f"for i in 1 2 3; do echo .; sleep 0.3; done; {SCORES}").run(job(), told.append)
    assert len(set(told)) >= 3


FOR_EVER = "while true; do sleep 0.05; done"
READY = "touch {folder}/ready"
"""What a command runs once it has said what it does with signals."""


def interrupt_when_ready(trainer, interrupted: threading.Event | None = None):
    """Stop a trial once its command is READY, and tell of it."""

    def on_step(progress: Progress) -> None:
        if (trainer.work(0) / "ready").exists():
            if interrupted is not None:
                interrupted.set()
            raise Interrupted

    return on_step


def test_an_interrupt_lets_the_command_save_first(tmp_path):
    command = "trap 'sleep 0.3; echo saved > {folder}/saved; exit 0' TERM; " + READY
    trainer = command_trainer(tmp_path, f"{command}; {FOR_EVER}")
    with pytest.raises(Interrupted):
        trainer.run(job(), interrupt_when_ready(trainer))
    assert (trainer.work(0) / "saved").exists()
    assert marked(tmp_path) == []


def test_what_a_shell_runs_may_save_after_the_shell_is_gone(tmp_path):
    inner = "trap 'sleep 0.5; echo saved > {folder}/saved; exit 0' TERM; " + READY
    trainer = command_trainer(tmp_path, f'true; sh -c "{inner}; {FOR_EVER}"; true')
    with pytest.raises(Interrupted):
        trainer.run(job(), interrupt_when_ready(trainer))
    assert (trainer.work(0) / "saved").exists()
    assert marked(tmp_path) == []


def test_a_log_that_somebody_removes_is_not_missed(tmp_path):
    trainer = command_trainer(tmp_path, f"rm -r {tmp_path}/logs; sleep 0.3; exit 4")
    with pytest.raises(CommandError, match="exit code 4"):
        trainer.run(job())


def test_a_report_that_is_written_again_from_its_beginning_is_read(tmp_path):
    command = (
        """echo '{{"step": 1, "loss": 1.0, "padding": "............"}}' > $AUTOLORA_REPORT; sleep 0.4; """
        """echo '{{"step": 9, "eval_loss": 2}}' > $AUTOLORA_REPORT"""
    )
    assert command_trainer(tmp_path, command).run(job()).value == 2


def test_a_command_that_does_not_end_is_killed_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "GRACE_SECONDS", 0.5)
    trainer = command_trainer(tmp_path, f"trap '' TERM; {READY}; {FOR_EVER}")
    with pytest.raises(Interrupted):
        trainer.run(job(), interrupt_when_ready(trainer))
    assert marked(tmp_path) == []


@pytest.fixture
def _heeds_ctrl_c():
    """Whatever started the tests may ignore the signal, as a shell does for what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_ctrl_c")
def test_a_second_ctrl_c_kills_at_once(tmp_path):
    """The grace time is longer than any test may take."""
    interrupted = threading.Event()

    def ctrl_c() -> None:
        interrupted.wait()
        time.sleep(0.3)  # the command has been asked to end
        os.kill(os.getpid(), signal.SIGINT)

    trainer = command_trainer(tmp_path, f"trap '' TERM; {READY}; {FOR_EVER}")
    threading.Thread(target=ctrl_c, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        trainer.run(job(), interrupt_when_ready(trainer, interrupted))
    assert marked(tmp_path) == []


# What outlives its driver.


@dataclass
class Orphan:
    """A command, by its pid, with the driver and the guard that it may outlive."""

    pid: int
    driver: subprocess.Popen
    guard: psutil.Process


def orphan(folder: Path, *, own_session: bool) -> Orphan:
    """Run a trial in a process of its own."""
    command = "setsid sleep 1000 & wait" if own_session else "sleep 1000"
    program = (
        "import sys; from pathlib import Path; from tests.support.commands import command_trainer, job\n"
        f"command_trainer(Path({str(folder)!r}), {command!r}).run(job())"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 30
    while not (found := [each for each in marked(folder) if "1000" in each.cmdline()]):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    guards = [each for each in psutil.Process(process.pid).children() if any("guard.py" in x for x in each.cmdline())]
    assert len(guards) == 1
    return Orphan(found[-1].pid, process, guards[0])


@pytest.mark.parametrize("own_session", [False, True], ids=["in its group", "in a session of its own"])
def test_the_guard_ends_a_command_whose_driver_is_killed(tmp_path, own_session):
    left = orphan(tmp_path, own_session=own_session)
    left.driver.kill()
    left.driver.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(left.pid) and psutil.Process(left.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives"
        time.sleep(0.02)
    left.guard.wait(10)


@pytest.mark.parametrize("own_session", [False, True], ids=["in its group", "in a session of its own"])
def test_what_outlived_driver_and_guard_is_ended_before_its_trial_goes_on(tmp_path, own_session):
    left = orphan(tmp_path, own_session=own_session)
    left.guard.kill()
    left.driver.kill()
    left.driver.wait()
    assert psutil.Process(left.pid).status() != psutil.STATUS_ZOMBIE
    (tmp_path / "trials" / "0" / "trial.json").unlink()  # of another command, here
    assert command_trainer(tmp_path, SCORES).run(job()).value == 2.5
    assert marked(tmp_path) == []


def test_other_trials_and_those_who_started_us_are_left_alone(tmp_path):
    other = subprocess.Popen(["sleep", "1000"], env={**os.environ, TRIAL: str(tmp_path / "1")})
    ours = subprocess.Popen(["sleep", "1000"], env={**os.environ, TRIAL: str(tmp_path / "0")})
    program = (
        "from pathlib import Path; from autolora.trainers.command.process import end_marked\n"
        f"end_marked(Path({str(tmp_path / '0')!r})); print('lives')"
    )
    marked_shell = {**os.environ, TRIAL: str(tmp_path / "0")}
    shell = ["sh", "-c", '"$@"; echo outer', "sh", sys.executable, "-c", program]
    done = subprocess.run(shell, env=marked_shell, capture_output=True, text=True)
    assert done.stdout.split() == ["lives", "outer"], done.stderr
    assert ours.wait(10) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
    end_marked(tmp_path / "0")


def test_a_whole_segment_needs_no_guard_to_end(tmp_path):
    """Nothing of ours is left behind by a segment."""
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    command_trainer(tmp_path, TRAINS).run(job())
    assert {each.pid for each in psutil.Process().children(recursive=True)} <= before
