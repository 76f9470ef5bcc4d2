"""Search spaces: conf/space names them."""
