"""TRL's trainers, as its own configuration files describe them."""
