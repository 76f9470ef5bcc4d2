"""A network trained on a dataset version, by Lightning, resumable."""
