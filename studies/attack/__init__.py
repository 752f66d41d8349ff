"""A fault campaign: damage, locks, kills, names and wrong inputs, each of which must end in a result or a plain line."""
