"""The loop: study, policy and executor to a TuneResult. The only place that knows all three."""

from autolora.driver.callbacks import Callback
from autolora.driver.directory import RunDirectoryError, run_directory
from autolora.driver.loop import WorkersError
from autolora.driver.result import NoVariantError, ResultError, TunedVariant, TuneResult
from autolora.driver.tuning import finish, resume, tune

__all__ = [
    "Callback",
    "NoVariantError",
    "ResultError",
    "RunDirectoryError",
    "TuneResult",
    "TunedVariant",
    "WorkersError",
    "finish",
    "resume",
    "run_directory",
    "tune",
]
