"""The search against other optimizers on problems whose best is known."""
