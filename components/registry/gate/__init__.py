"""Gates, each one rule that a challenger must pass: conf/gate names them."""
