"""Wiring: Hydra composes, Prefect runs, and every verb of `components` is called in one place each. No arithmetic."""
