"""Learned optimizers: what they are given, the networks, the weights that ship, and classics whose constants are learned."""
