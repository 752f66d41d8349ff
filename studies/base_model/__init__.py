"""The quickstart's model and task: how they were made."""
