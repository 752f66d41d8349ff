"""What the trials of a study say: pure functions of a trial table."""
