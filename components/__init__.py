"""Athanor's components: nouns (`artifacts`), verbs (one package a stage) and the memory they share (`store`).

Nothing below this package knows Prefect, Hydra or OmegaConf: a verb is a function from records and a plain
dictionary to a record. `flows` does the wiring.
"""
