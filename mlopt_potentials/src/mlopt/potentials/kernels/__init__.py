"""Potentials as scalar functions for the fused engine; see `mlopt.core.kernels.kernel`.

A pair potential needs one function, ``pair(r2, *numbers) -> (energy, weight)``. It returns the energy and
``-(dE/dr) / r`` at the squared distance ``r2``. Both must be 0 at a distance of 1e12. `pair_kernel` makes the rest::

    def spring(r2, k, r0):
        r = math.sqrt(r2)
        ...
        return energy, weight

    def kernel(self, species):
        return pair_kernel(spring, (self.k, self.r0))
"""

from __future__ import annotations

from mlopt.potentials.kernels.pair import pair_kernel

__all__ = ["pair_kernel"]
