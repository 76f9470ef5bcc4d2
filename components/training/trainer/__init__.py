"""On which devices a training runs: one member a file, chosen by `trainer=`."""
