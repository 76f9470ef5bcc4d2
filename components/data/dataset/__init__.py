"""Readers, one a file form: conf/dataset names them."""
