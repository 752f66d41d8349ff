from autolora import variants
