"""Integrators as scalar functions for the fused engine; see `mlopt.optimizers.local.kernels`."""
