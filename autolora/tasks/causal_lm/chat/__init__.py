"""Conversations as the tokenizer's chat template writes them.

``template`` renders, in the form of messages that the template takes; ``completeness`` checks that all of a
conversation is in the text; ``turns`` finds in it what the assistant says; ``conventions`` knows what other trainers
learn with templates that they ship.
"""
