"""Checks, one a flaw: conf/check names them."""
