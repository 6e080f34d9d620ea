"""Learned optimizers: inputs, networks, the weights that ship, and classics whose constants are learned."""
