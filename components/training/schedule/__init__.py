"""How the learning rate goes over a training: one member a file, chosen by `schedule=`."""
