"""Energies of two coordinates with known saddles, for `FunctionLandscape`; every problem is one row ``(x, y)``.

Each is ``energy(x (n_rows, 2), segments) -> (n_problems,)``; rows of one problem add up.
"""

from __future__ import annotations

from mlopt.core.batch.segments import Segments
from mlopt.core.lazy import torch

#: columns A, a, b, c, x0, y0 of the four terms
_MULLER_BROWN = (
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)
#: LEPS: dissociation energies d of AB, BC, AC; distance of the minimum and inverse width
_D_AB, _D_BC, _D_AC, _R0, _ALPHA = 4.746, 4.746, 3.445, 0.742, 1.942
#: LEPS with a harmonic oscillator: distance of the fixed atoms A and C, half the spring constant, coupling
_R_AC, _K_C, _C = 3.742, 0.2025, 1.154


def muller_brown(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    """Return ``sum_k A_k exp(a_k (x-x_k)^2 + b_k (x-x_k)(y-y_k) + c_k (y-y_k)^2)``; three minima and two saddles.

    Source: K. Müller & L. D. Brown, Theor. Chim. Acta 53, 75 (1979), eq. 13 and figure 4.
    """
    total = x.new_zeros(len(x))
    for height, a, b, c, x0, y0 in _MULLER_BROWN:
        u, v = x[:, 0] - x0, x[:, 1] - y0
        total = total + height * torch.exp(u * (a * u + b * v) + c * v * v)
    return segments.sum(total)


def leps(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    """Return the energy of three atoms A, B, C in a line, in eV: (n_problems,); one saddle.

    The columns of ``x (n_rows, 2)`` are the distances AB and BC, in angstrom.

    It has the London-Eyring-Polanyi-Sato form. Source of the numbers: Jónsson, Mills & Jacobsen, in Classical and
    Quantum Dynamics in Condensed Phase Simulations (1998), appendix A.1: a = c = 0.05, b = 0.30.
    """
    return segments.sum(_leps(x[:, 0], x[:, 1], 0.05, 0.30, 0.05))


def leps_harmonic(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    """Return LEPS with A and C fixed, and B coupled to an oscillator, in eV: (n_problems,); one saddle.

    The columns of ``x (n_rows, 2)`` are the distance AB, in angstrom, and the oscillator's coordinate. The energy is
    ``LEPS(x, r_AC - x) + 2 k (x - (r_AC / 2 - y / c))^2``. Source: as `leps`, appendix A.2: b = 0.80.
    """
    r, oscillator = x[:, 0], x[:, 1]
    stretch = r - (0.5 * _R_AC - oscillator / _C)
    return segments.sum(_leps(r, _R_AC - r, 0.05, 0.80, 0.05) + 2.0 * _K_C * stretch * stretch)


def _leps(ab: torch.Tensor, bc: torch.Tensor, a: float, b: float, c: float) -> torch.Tensor:
    """Return the sum of the Coulomb integrals minus the root of the exchange integrals."""
    coulomb, exchange = [], []
    for distance, d, sato in ((ab, _D_AB, a), (bc, _D_BC, b), (ab + bc, _D_AC, c)):
        near = torch.exp(-_ALPHA * (distance - _R0))
        coulomb.append(0.5 * d * near * (1.5 * near - 1.0) / (1.0 + sato))
        exchange.append(0.25 * d * near * (near - 6.0) / (1.0 + sato))
    first, second, third = exchange
    root = first * first + second * second + third * third - first * second - second * third - first * third
    return coulomb[0] + coulomb[1] + coulomb[2] - root.sqrt()
