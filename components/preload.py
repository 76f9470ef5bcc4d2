"""Imported by the forkserver after torch: the modules that every worker is about to need, so that a fork has them."""

import multiprocessing.util

import tqdm

import components.compression.distill
import components.fusion.fuse
import components.training.train
import components.training.trial  # noqa: F401

# tqdm, which the exporter uses, makes a named semaphore on first use; made and unlinked here, nothing is left of it when a
# worker is killed.
tqdm.tqdm.get_lock()
multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
