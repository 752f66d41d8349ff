"""What is learned: how rows become examples of a task. One task so far, causal language modeling."""
