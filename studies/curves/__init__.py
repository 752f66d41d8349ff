"""A table of LoRA trainings over learning rate, batch size, rank, alpha and variant."""
