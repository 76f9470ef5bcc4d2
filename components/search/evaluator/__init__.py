"""How a candidate gets its value: conf/evaluator names them."""
