"""Strategies, each a maker of Optuna samplers: conf/strategy names them."""
