"""How tables write conversations, and what they become: messages as chat templates read them.

``rows`` reads a conversation and the columns beside it, ``turns`` a single message, ``tools`` schemas and calls, and
``marks`` says which turns are learned.
"""
