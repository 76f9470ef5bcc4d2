"""Where trials run: one process each, here."""
