"""Imported by the forkserver after torch: the modules that every worker is about to need, so that a fork has them."""

import multiprocessing.util

import components.compression.distill
import components.training.train
import components.training.trial  # noqa: F401

# tqdm made a named semaphore when it was imported; unlinked here, nothing is left of it when the server is killed.
multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
