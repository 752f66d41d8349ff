"""The learning-rate prior against measured best learning rates."""
