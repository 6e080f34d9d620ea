"""Behler-Parrinello potentials: symmetry functions, and a small network for each element."""
