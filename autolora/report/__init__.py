"""What a person sees while a study runs and when it ends."""

from autolora.driver.reporter import Reporter, Silent

__all__ = ["Reporter", "Silent"]
