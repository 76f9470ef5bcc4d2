"""How a network with a parent's weights is trained on: one member a file, chosen by `finetune=`."""
