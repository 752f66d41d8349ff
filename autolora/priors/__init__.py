"""What is believed about good hyperparameters before the first trial."""

from autolora.priors.prior import Prior

__all__ = ["Prior"]
