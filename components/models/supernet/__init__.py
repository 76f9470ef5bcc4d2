"""Supernets: one network that holds every candidate of a space, so that candidates share weights.

A space that has one offers it by a method `supernet(inputs, num_outputs)` and says so in `offers`: `supernet` if it
can run one candidate at a time, `mixture supernet` if it can also run a weighted mixture, as gradient strategies ask.
"""
