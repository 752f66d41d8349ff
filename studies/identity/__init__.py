"""A recording of behavior that a change of structure must leave as it is."""
