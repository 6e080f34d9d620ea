"""Local optimizers as scalar functions for the fused engine; see `mlopt.core.kernels.kernel`.

Each kernel does for one system what the eager optimizer of the same name does for a batch. The reasons for the
arithmetic are given there. Offsets of state fields follow the order in which the eager state declares them.
"""
