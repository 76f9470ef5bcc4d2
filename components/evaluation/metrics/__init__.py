"""Which metrics are measured and how: conf/metrics names them."""
