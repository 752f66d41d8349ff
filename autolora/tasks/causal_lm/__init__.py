"""Causal language modeling: rows become text, text becomes tokens, and the loss is taken on some of them.

``formats`` and ``conversations`` say how rows become examples, ``tokenize`` and ``chat`` how examples become tokens,
``preparation`` makes the splits of a study.
"""
