"""What to try next, on which process, and which trial is best."""
