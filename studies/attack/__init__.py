"""A fault campaign: damage, locks, kills, names and bad inputs; each must end in a result or a plain message."""
