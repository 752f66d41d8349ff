"""The search against a grid of full runs on GSM8K."""
