"""How a student learns from its teacher: conf/distillation names them."""
