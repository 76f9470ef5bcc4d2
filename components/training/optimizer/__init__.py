"""Optimizers that torch does not have; the others are torch's own classes, named in `conf/optimizer`."""
