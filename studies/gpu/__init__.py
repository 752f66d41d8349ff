"""Correctness, speed and memory of training on the card that is there."""
