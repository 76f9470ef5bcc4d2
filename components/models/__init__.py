"""What can be built: search spaces, their blocks and preprocessing."""
