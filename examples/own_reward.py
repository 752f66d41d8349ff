"""A rule as reward for GRPO: the text goes on with a question, and a number answers it. See grpo.yaml."""

import re

COUNTED = re.compile(r"Answer: There (are|were) \d+")


def counts(completions, **columns):
    """One number for each text: a half for the question, and a half for the number."""
    return [0.5 * ("Question:" in text) + 0.5 * bool(COUNTED.search(text)) for text in completions]
