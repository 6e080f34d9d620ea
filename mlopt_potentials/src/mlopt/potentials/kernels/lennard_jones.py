"""The Lennard-Jones pair."""

from __future__ import annotations


def lennard_jones(r2: float, epsilon: float, length2: float, pull: float) -> tuple[float, float]:
    """Return ``epsilon (s^2 - 2 s)`` with ``s = (r0/r)^6``, and its weight.

    length2 is r0 squared, pull ``12 epsilon / r0^2``.
    """
    inverse = length2 / r2
    s = inverse * inverse * inverse
    bound = s * (s - 1.0)
    return epsilon * (bound - s), pull * (bound * inverse)
