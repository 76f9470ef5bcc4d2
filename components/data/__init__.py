"""From files to a dataset version: readers, digests, splits, arrays, DVC pins."""
