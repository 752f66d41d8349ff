"""The loop: study, policy and executor to a TuneResult. The only place that knows all three."""

from autolora.driver.directory import RunDirectoryError, run_directory
from autolora.driver.loop import WorkersError
from autolora.driver.reporter import Reporter, Silent
from autolora.driver.result import NoVariantError, ResultError, TunedVariant, TuneResult
from autolora.driver.tuning import tune

__all__ = [
    "NoVariantError",
    "Reporter",
    "ResultError",
    "RunDirectoryError",
    "Silent",
    "TuneResult",
    "TunedVariant",
    "WorkersError",
    "run_directory",
    "tune",
]
