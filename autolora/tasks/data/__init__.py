"""The rows that every task starts from: which source they are in, and reading it."""
