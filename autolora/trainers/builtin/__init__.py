"""Our own loop: one resident base, adapters attached and taken off, exact continuation of a run that was cut."""
