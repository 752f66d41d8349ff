"""Which configuration to train next, and how far."""

from autolora.search.job import Job
from autolora.search.recorder import InMemory, Recorder
from autolora.search.search import WAIT, Search

__all__ = ["WAIT", "InMemory", "Job", "Recorder", "Search"]
