"""The data of a study: read, turned into text, tokenized once, split without leakage, and kept in a cache."""

from autolora.training.data.errors import DataError
from autolora.training.data.preparation import prepare
from autolora.training.data.report import DataReport, SplitReport
from autolora.training.data.split import PreparedData, Split

__all__ = ["DataError", "DataReport", "PreparedData", "Split", "SplitReport", "prepare"]
