"""The Morse pair."""

from __future__ import annotations

import math


def morse(r2: float, epsilon: float, rho0: float, r0: float) -> tuple[float, float]:
    """Return ``epsilon u (u - 2)`` with ``u = exp(rho0 (1 - r/r0))``, and its weight."""
    r = math.sqrt(r2)
    u = math.exp(rho0 - rho0 / r0 * r)
    pull = u * (u - 1.0)
    return epsilon * (pull - u), 2.0 * epsilon * (rho0 / r0) * pull / r
