"""Local optimizers as scalar functions for the fused engine; see `mlopt.core.kernels.kernel`.

Each does, system by system, what the eager version beside it does for a batch; the reasons for the arithmetic are
given there. Offsets of state fields follow the order in which the eager state declares them.
"""
