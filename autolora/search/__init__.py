"""Which configuration to train next, and how far."""

from autolora.search.search import WAIT, Best, Job, Search

__all__ = ["WAIT", "Best", "Job", "Search"]
