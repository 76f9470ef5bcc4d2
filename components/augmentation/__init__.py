"""How training rows are varied."""
