"""What training costs: real tokens a second against other loops, and memory against the plan."""
