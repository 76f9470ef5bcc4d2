"""How one model is made of several: conf/fusion names them."""
