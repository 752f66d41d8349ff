"""The root of every error that a user can mend: its message is meant to be read without a traceback."""


class AutoloraError(Exception):
    """Says what was wrong, where, and what to do."""
