"""The search with many workers, on a simulated clock."""
