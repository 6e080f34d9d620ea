"""Paths between minima: bands of images, their beginnings and their profiles."""
