"""Any ``transformers.Trainer``, as a function of the user's makes it: stopped at rungs, checkpointed, resumed."""
