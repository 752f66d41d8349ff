"""Whether the verdict claims too much, and what it finds: studies whose truth is known."""
