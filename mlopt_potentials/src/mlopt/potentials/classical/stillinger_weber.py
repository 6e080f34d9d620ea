"""The Stillinger-Weber potential of silicon, without a list of triplets.

With weights ``g_j`` and unit vectors ``u_j`` towards the neighbours j of an atom, and ``c = -cos(theta0)``,

    sum_{j<k} g_j g_k (u_j . u_k + c)^2 = 1/2 [ |T|^2 + 2 c |V|^2 + c^2 S^2 - (1 + c)^2 Q ]

where ``S = sum g_j``, ``V = sum g_j u_j``, ``T = sum g_j u_j u_j^T`` and ``Q = sum g_j^2``. To derive it, expand the
square and add the terms j = k. Energy and force then cost as much as a pair potential, and periodic images need no
special care.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from mlopt.core.atoms.systems import Systems
from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.potentials.kernels.stillinger_weber import stillinger_weber_kernel
from mlopt.potentials.sums.few_atoms import find_pairs
from mlopt.potentials.sums.local import LocalPotential, force_of_pairs, spoil_lost, virial_of_pairs

_SIGMA = 2.0951
#: minimum of the pair term of silicon, in units of sigma
_LEAST = 2.0 ** (1.0 / 6.0)
#: changes of each preset to the defaults
PRESETS: dict[str, dict[str, float]] = {"lammps": {}, "paper": {"epsilon": 2.16826, "a": 3.77 / _SIGMA}}

#: pairs (i, j) with i <= j of the components of a symmetric 3 x 3 tensor
_UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class StillingerWeber(LocalPotential):
    """Stillinger-Weber silicon: short-range bonds, and a penalty on angles that are not tetrahedral.

    The energy is ``E2 + E3``, where
    ``E2 = sum_{i<j} epsilon A [B (sigma/r)^p - (sigma/r)^q] exp(sigma / (r - a sigma))`` and
    ``E3 = sum_i sum_{j<k} epsilon lambda (cos(theta_jik) - cos(theta0))^2 w_ij w_ik`` with
    ``w_ij = exp(gamma sigma / (r_ij - a sigma))``. Both terms vanish smoothly, with all derivatives, at r = a sigma.

    `preset` names the defaults of other programs; other settings take precedence over it.

    - ``lammps``: the file Si.sw, epsilon = 2.1683 eV and a = 1.8; a crystal has -4.3366 eV per atom.
    - ``paper``: as JAX-MD runs Learn2Hop (Merchant et al., ICML 2021), epsilon = 2.16826 eV and a sigma = 3.77
      angstrom. The crystal of 64 atoms at 5.431 angstrom has -277.1967 eV (they report -277.22), not -277.5424. Their
      equation lacks one exponential, and their table 5 lacks the settings q and theta0.

    Source: F. H. Stillinger & T. A. Weber, Phys. Rev. B 31, 5262 (1985), eqs. 2.3-2.7.
    """

    preset: Literal["lammps", "paper"] = setting(
        "lammps", "program whose values of epsilon and a are the defaults"
    )
    epsilon: float = setting(2.1683, "depth of a bond", unit="eV", gt=0)
    sigma: float = setting(_SIGMA, "unit of length of the potential", unit="angstrom", gt=0)
    a: float = setting(1.8, "range of both terms, in units of sigma", gt=0)
    three_body: float = setting(
        21.0, "lambda, the strength of the penalty on angles, in units of epsilon", ge=0
    )
    gamma: float = setting(1.2, "decay of the penalty towards the end of the range", gt=0)
    big_a: float = setting(7.049556277, "A, the strength of the pair term, in units of epsilon", gt=0)
    big_b: float = setting(0.6022245584, "B, the strength of the repulsion in the pair term", ge=0)
    p: float = setting(4.0, "exponent of the repulsion", ge=0)
    q: float = setting(0.0, "exponent of the attraction", ge=0)
    cos_theta0: float = setting(-1.0 / 3.0, "cosine of the ideal angle", ge=-1, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        preset = values.get("preset") if isinstance(values, Mapping) else None
        return {**PRESETS[preset], **values} if isinstance(preset, str) and preset in PRESETS else values

    @model_validator(mode="after")
    def _bonds_count(self) -> Self:
        if self.a <= _LEAST:
            raise ValueError(
                f"a: {self.a:g} is not above {_LEAST:.3f}, where a bond has its least energy, so that atoms would not "
                f"hold together. It is in units of sigma, not a length: 1.8 of {self.sigma:g} angstrom are usual"
            )
        return self

    def species(self) -> set[int]:
        """Return the atomic number of silicon."""
        return {14}

    def reach(self) -> float:
        """Return the cutoff, ``a sigma``, in angstrom."""
        return self.a * self.sigma

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        """Return the distance of the pair term's minimum for every atom, (n_atoms,); ``2^(1/6) sigma`` for silicon."""
        return torch.full(z.shape, _LEAST * self.sigma, dtype=torch.float64, device=z.device)

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        """Return this potential for the fused engine."""
        return stillinger_weber_kernel(
            reach=self.reach(),
            sigma=self.sigma,
            bond=self.epsilon * self.big_a,
            big_b=self.big_b,
            p=self.p,
            q=self.q,
            gamma=self.gamma,
            cosine=-self.cos_theta0,
            strength=self.epsilon * self.three_body,
        )

    def _listed(self, systems: Systems) -> bool:
        """Return True: all systems use a neighbour list, because few pairs are within range even in small clusters."""
        return True

    def sums_of_near(
        self, systems: Systems, stress: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return row energy (n_atoms,), force (n_atoms, 3) and dE/dstrain (n_systems, 3, 3) from a neighbour list."""
        pairs = find_pairs(systems, self.reach())
        first, second = pairs.first, pairs.second
        difference = pairs.differences(systems)
        zero = systems.pos.new_zeros(len(systems.pos))
        row_energy, pull = self._sums(first, second, difference, zero)
        force = force_of_pairs(zero, first, second, pull)
        virial = virial_of_pairs(systems, first, pull, difference) if stress else None
        return spoil_lost(systems, pairs, row_energy, force, virial)

    def _sums(
        self, first: torch.Tensor, second: torch.Tensor, difference: torch.Tensor, zero: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row energy (n_atoms,), and ``-dE/d(difference)`` (3, n_pairs), a pair's force on its first atom."""

        def total(values: torch.Tensor, sign: float = 1.0) -> torch.Tensor:
            """Sum over the neighbours of each atom. sign: that of the value when seen from the second atom."""
            return zero.index_add(0, first, values).index_add(0, second, values, alpha=sign)

        square = difference * difference
        r = (square[0] + square[1] + square[2]).sqrt()
        pair, pair_slope, g, g_slope = self._functions(r)
        u = difference / r
        gu = g * u
        s, squares = total(g), total(g * g)
        v = [total(part, -1.0) for part in gu.unbind(0)]  # seen from the second atom, u has the other sign
        t = {(i, j): total(gu[i] * u[j]) for i, j in _UPPER}
        c, strength = -self.cos_theta0, self.epsilon * self.three_body
        t2 = t[0, 0] * t[0, 0] + t[1, 1] * t[1, 1] + t[2, 2] * t[2, 2]
        t2 = t2 + 2.0 * (t[0, 1] * t[0, 1] + t[0, 2] * t[0, 2] + t[1, 2] * t[1, 2])
        v2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
        angles = (t2 + (2.0 * c) * v2) + ((c * c) * (s * s) - (1.0 + c) ** 2 * squares)
        row_energy = 0.5 * (total(pair) + strength * angles)

        # the derivatives at both atoms are linear in T, V and S of that atom, so these are added up first
        vs = [part[first] - part[second] for part in v]
        ts = {key: part[first] + part[second] for key, part in t.items()}
        w = [
            ts[0, 0] * u[0] + ts[0, 1] * u[1] + ts[0, 2] * u[2] + c * vs[0],
            ts[0, 1] * u[0] + ts[1, 1] * u[1] + ts[1, 2] * u[2] + c * vs[1],
            ts[0, 2] * u[0] + ts[1, 2] * u[1] + ts[2, 2] * u[2] + c * vs[2],
        ]
        along = w[0] * u[0] + w[1] * u[1] + w[2] * u[2]
        vu = vs[0] * u[0] + vs[1] * u[1] + vs[2] * u[2]
        by_g = along + c * vu + (c * c) * (s[first] + s[second]) - (2.0 * (1.0 + c) ** 2) * g
        across = 2.0 * g / r
        radial = pair_slope + strength * (by_g * g_slope - across * along)
        return row_energy, -(radial * u + (strength * across) * torch.stack(w))

    def _functions(self, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the pair term and its slope, and the weight g of a neighbour and its slope.

        All are 0 from the distance on at which exp(-1000) underflows, close to the end of the range.
        """
        gap = (r - self.reach()).clamp(max=-1e-3 * self.sigma * min(1.0, self.gamma))
        x = self.sigma / r
        repulsion, attraction = self.big_b * _power(x, self.p), _power(x, self.q)
        decay = -self.sigma / (gap * gap)
        bond = (self.epsilon * self.big_a) * torch.exp(self.sigma / gap)
        pair = bond * (repulsion - attraction)
        slope = pair * decay - bond * (self.p * repulsion - self.q * attraction) / r
        g = torch.exp((self.gamma * self.sigma) / gap)
        return pair, slope, g, (self.gamma * decay) * g


def _power(x: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return ``x ** exponent`` for x > 0, without `pow`, whose bits depend on the place in a tensor."""
    if exponent not in range(13):
        return torch.exp(exponent * torch.log(x))
    found = torch.ones_like(x)
    for _ in range(int(exponent)):
        found = found * x
    return found
