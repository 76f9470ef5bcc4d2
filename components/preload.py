"""Imported by the forkserver after torch: the modules that every worker is about to need."""
