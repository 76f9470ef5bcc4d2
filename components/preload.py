"""Imported by the forkserver after torch: the modules that every worker is about to need, so that a fork has them."""

import components.compression.distill
import components.training.train
import components.training.trial  # noqa: F401
