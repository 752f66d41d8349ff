"""Fields of the trainer as searched dimensions: what one that matters gains, and what one that does not costs."""
