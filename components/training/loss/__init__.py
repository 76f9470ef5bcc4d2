"""What a training minimises: one member a file, chosen by `loss=`."""
