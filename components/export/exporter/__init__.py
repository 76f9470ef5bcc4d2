"""Exporters: conf/exporter names them."""
