"""All variants: the cost of a step, and a comparison at equal budget."""
