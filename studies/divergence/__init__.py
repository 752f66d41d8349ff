"""What diverged trials cost."""
