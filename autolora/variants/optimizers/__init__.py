"""Optimisers of our own. Unlike the folder above they import torch: variants import them inside functions."""
