"""How an INT8 twin is made: conf/quantization names them."""
