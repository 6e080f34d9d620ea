"""Moment tensor potentials: linear in their coefficients."""
