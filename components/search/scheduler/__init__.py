"""How long to keep trying a candidate: conf/scheduler names them."""
