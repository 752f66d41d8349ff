"""Studies that end within a time budget."""
