"""Potentials that are fitted to data."""
