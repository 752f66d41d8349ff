"""Adapters on a model: putting them on, taking them off, their state, and the files that they leave as.

What one variant is, is declared in :mod:`autolora.variants`. Nothing here knows a particular variant. Torch, peft and
transformers are imported inside functions; :mod:`autolora.adapters.kernels` is imported late.
"""
