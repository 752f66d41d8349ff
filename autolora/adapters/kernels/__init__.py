"""Forward passes and optimizers, which import torch and peft at the top: import them where a variant is used."""
