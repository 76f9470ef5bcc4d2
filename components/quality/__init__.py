"""Whether a dataset version is fit for training."""
