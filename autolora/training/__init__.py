"""Training: data, one segment of a trial, checkpoints, divergence and evaluation."""
