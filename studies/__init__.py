"""Studies of autolora, run as modules from the repository root: ``python -m studies.search.run``."""
