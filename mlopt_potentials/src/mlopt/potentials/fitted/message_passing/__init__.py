"""Potentials that pass messages between neighbours."""
