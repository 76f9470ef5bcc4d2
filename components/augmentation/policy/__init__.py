"""Augmentation policies: conf/augmentation names them."""
