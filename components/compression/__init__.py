"""Smaller models out of larger ones: distillation and quantisation."""
