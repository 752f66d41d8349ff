"""One segment of a trial inside a tool that trains with a ``transformers.Trainer``: stopped, scored and reported.

For tools that autolora runs with a configuration file, see :mod:`autolora.trainers.configurations`. They may live in an
environment of their own, so this module needs transformers and nothing else of autolora.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

TRIAL, REPORT = "AUTOLORA_TRIAL", "AUTOLORA_REPORT"
"""Variables with the file of the trial and the file of its reports."""
ADAPTER, INITIAL = "adapter", "initial"
"""Subfolders of the trial's folder: the adapter of a completed training; the start that it is converted by."""
ALTERING = ("pissa", "olora", "corda")
"""Starts of PEFT that alter the base: what is trained fits the unmodified base only together with the start."""
WEIGHTS = ("adapter_model.safetensors", "adapter_config.json")


class SegmentCallback(TrainerCallback):  # type: ignore[misc]  # its types are not followed, see pyproject.toml
    """Follows a segment of a trial.

    It logs the loss of every step, NaN included; at the segment's last step it has the Trainer evaluate, then write a
    checkpoint, whose state holds the score, and then stop, on the schedule of the full run. Losses and the score go to
    the report. If one process trains, it also has a checkpoint written after the step that runs on SIGTERM, and every
    ``training.checkpoint_seconds``; several would not agree on when. At the end of a full run it leaves the adapter in
    the trial's folder, as one that fits the unmodified base.

    Args:
        trial: what ``$AUTOLORA_TRIAL`` holds: its folder, and the fraction of a full run that it stops at.
        report: file that lines are appended to.
    """

    def __init__(self, trial: Mapping[str, Any], report: Path) -> None:
        self._folder, self._fraction, self._report = Path(trial["folder"]), float(trial["stop"]), report
        training = trial.get("specification", {}).get("training", {})
        self._interval = float(training.get("checkpoint_seconds", math.inf))
        self._stop = math.inf
        self._asked = False
        self._former: Any = None

    @classmethod
    def here(cls) -> SegmentCallback | None:
        """The one of the trial that this process trains; None if autolora has not started it."""
        path = os.environ.get(TRIAL)
        if not path:
            return None
        return cls(json.loads(Path(path).read_text(encoding="utf-8")), Path(os.environ[REPORT]))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the last step, and keep a start that alters the base."""
        # as autolora.search.rungs.steps_until: a fraction as 1/3 is rounded
        self._stop = min(state.max_steps, math.ceil(self._fraction * state.max_steps - 1e-9))
        args.logging_nan_inf_filter = False  # it would log another loss in place of NaN
        self._alone, self._saved = args.world_size == 1, time.monotonic()
        if self._alone and threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._ask)
        if state.global_step == 0 and args.should_save:
            self._keep_start(kwargs.get("model"))

    def _ask(self, *_: object) -> None:
        self._asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """At the last step: evaluate, save, stop."""
        control.should_log = True
        reached = state.global_step >= self._stop
        if reached or self._asked:
            control.should_evaluate = reached
            control.should_save = control.should_training_stop = True
        elif self._alone and time.monotonic() - self._saved >= self._interval:
            control.should_save = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let SIGTERM end the process again."""
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)
            self._former = None

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report a loss."""
        logs = kwargs.get("logs") or {}
        if state.is_world_process_zero and "loss" in logs:
            norm = {"grad_norm": float(logs["grad_norm"])} if "grad_norm" in logs and not args.fp16 else {}
            self._write(step=state.global_step, loss=float(logs["loss"]), **norm)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the scores of the last step."""
        if state.is_world_process_zero and state.global_step >= self._stop:
            self._write(**{key: value for key, value in (kwargs.get("metrics") or {}).items() if _is_number(value)})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leave the adapter of a completed training."""
        self._saved = time.monotonic()
        if state.global_step < state.max_steps or not args.should_save:
            return
        target, start = self._folder / ADAPTER, self._folder / INITIAL
        if start.is_dir():
            kwargs["model"].save_pretrained(target, path_initial_model_for_weight_conversion=os.fspath(start))
            return
        target.mkdir(exist_ok=True)
        saved = Path(args.output_dir, f"checkpoint-{state.global_step}")
        for name in WEIGHTS:
            if (saved / name).is_file():
                shutil.copyfile(saved / name, target / name)

    def _keep_start(self, model: Any) -> None:
        config = getattr(model, "peft_config", {}).get("default")
        start = getattr(config, "init_lora_weights", None)
        if config is None or not (isinstance(start, str) and start.split("_")[0] in ALTERING):
            return
        config.init_lora_weights = True  # or it would be computed once more when it is read
        try:
            model.save_pretrained(self._folder / INITIAL)
        finally:
            config.init_lora_weights = start

    def _write(self, **values: float) -> None:
        descriptor = os.open(self._report, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, (json.dumps(values) + "\n").encode())
        finally:
            os.close(descriptor)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
