"""Rates over saddles in the harmonic approximation: Vineyard for atoms, HTST and Langer for spins.

All of them multiply ``exp(-barrier / kT)`` by a prefactor. It does not depend on temperature, unless the minimum or the
saddle has zero modes, which have no restoring force. For a zero mode, the volume that it sweeps replaces the Gaussian
integral ``sqrt(2 pi kT / lambda)``. Source: Bessarab, Uzdin & Jónsson, Phys. Rev. B 85, 184409 (2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlopt.core.atoms.units import SPINS, Units
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.optimizers.saddles.modes import NEAR_ZERO, spectra

#: electron g-factor, and hbar in meV seconds (CODATA 2018)
G_ELECTRON, HBAR_MEV_S = 2.00231930436256, 6.582119569e-13
_EV = Units()


@dataclass(frozen=True)
class Rate:
    """The rate of escape from a minimum over a saddle: ``prefactor exp(-barrier / kT)``, times zero-mode factors.

    barrier: height of the saddle above the minimum, in the energy of ``units``.
    prefactor: 1/s (in reduced units one over the unit of time), without the factors of zero modes.
    zero_modes: numbers of zero modes at the minimum and at the saddle.
    volumes: the volumes swept by the zero modes, in the length of x to the power of their number.
    saddles: number of equivalent saddles, already in ``prefactor``.
    method: name of the theory.
    """

    barrier: float
    prefactor: float
    units: Units
    zero_modes: tuple[int, int] = (0, 0)
    volumes: tuple[float, float] = (1.0, 1.0)
    saddles: int = 1
    method: str = "vineyard"

    def at(self, temperature: float) -> float:
        """Return the rate, 1/s, at ``temperature`` in kelvin (reduced: in units of energy).

        Raises:
            InputError: a temperature that is not positive.
        """
        if not temperature > 0:
            raise InputError(f"a rate needs a positive temperature, got {temperature}")
        thermal = self.units.boltzmann * temperature
        at_minimum, at_saddle = self.zero_modes
        zero = math.pow(2.0 * math.pi * thermal, 0.5 * (at_minimum - at_saddle))
        zero *= self.volumes[1] / self.volumes[0]
        return self.prefactor * zero * math.exp(-self.barrier / thermal)

    def lifetime(self, temperature: float) -> float:
        """Return the mean time to escape, s: one over the rate; infinite if the rate underflows."""
        rate = self.at(temperature)
        return 1.0 / rate if rate > 0 else math.inf


@dataclass(frozen=True)
class _Ends:
    """The spectra at minimum and saddle without zero modes: values (m,) and vectors (m, rows, d)."""

    barrier: float
    minimum: torch.Tensor
    saddle: torch.Tensor
    saddle_vectors: torch.Tensor
    unstable: float
    unstable_vector: torch.Tensor
    zero_modes: tuple[int, int]


def vineyard(
    landscape: Landscape,
    minimum: torch.Tensor,
    saddle: torch.Tensor,
    masses: torch.Tensor | float,
    *,
    units: Units | str = _EV,
    saddles: int = 1,
    near_zero: float = NEAR_ZERO,
) -> Rate:
    """Return the rate of harmonic transition state theory (Vineyard, J. Phys. Chem. Solids 3, 121 (1957), eq. 10).

    ``nu = product of the frequencies at the minimum / product of the real ones at the saddle``.

    landscape: a landscape of one problem.
    minimum, saddle: the two points, (n_rows, d).
    masses: (n_rows,) or one number, atomic mass units.
    units: units of energy and length. With "reduced", masses, lengths and energies have units of their own. The unit of
        time is then length sqrt(mass / energy), and the rate is in one over that.
    saddles: number of equivalent saddles.
    near_zero: limit relative to the stiffest mode below which a mode is a zero mode.

    Rigid motions of free atoms are left out at both ends, as their inertia hardly differs. For clusters in vacuum the
    ratios of rotational partition functions and of symmetry numbers are not included.

    Raises:
        InputError: the minimum has negative modes, or the saddle has not exactly one. The numbers of zero modes differ.
            Shapes or masses do not fit. Units are unknown, or have no length.
    """
    units = Units.of(units)
    # energy / (length^2 u) in 1/s^2
    square = 1.0 if units.reduced else 1e30 / units.dalton
    masses = torch.as_tensor(masses, dtype=minimum.dtype, device=minimum.device)
    if masses.ndim == 0:
        masses = masses.expand(len(minimum))
    if masses.shape != (len(minimum),) or not bool((masses > 0).all()):
        raise InputError(
            f"vineyard: `masses` must be {len(minimum)} positive numbers, one a row, or one for all; "
            f"got shape {tuple(masses.shape)}, smallest {float(masses.min()) if masses.numel() else 'none'}"
        )
    scaled = _MassWeighted(landscape, masses.rsqrt())
    root = masses.sqrt()[:, None]
    ends = _ends("vineyard", scaled, minimum * root, saddle * root, near_zero)
    if ends.zero_modes[0] != ends.zero_modes[1]:
        raise InputError(
            f"vineyard: {ends.zero_modes[0]} zero modes at the minimum but {ends.zero_modes[1]} at the saddle, beyond "
            f"rigid motions; a ratio of frequencies has no meaning then. Relax both more tightly, or change `near_zero`"
        )
    exponent = 0.5 * (ends.minimum.log().sum() - ends.saddle.log().sum())
    prefactor = saddles * math.sqrt(square) * math.exp(float(exponent)) / (2.0 * math.pi)
    return Rate(ends.barrier, prefactor, units, saddles=saddles, method="vineyard")


def spin_rate(
    landscape: Landscape,
    minimum: torch.Tensor,
    saddle: torch.Tensor,
    moments: torch.Tensor | float,
    *,
    damping: float | None = None,
    units: Units | str = SPINS,
    volumes: tuple[float, float] | None = None,
    saddles: int = 1,
    near_zero: float = NEAR_ZERO,
) -> Rate:
    """Return the rate of a spin system over a saddle.

    Without ``damping`` the rate is that of harmonic transition state theory (HTST; Bessarab, Uzdin & Jónsson 2012, as
    in Spirit): ``k = s Omega / (2 pi) exp(-barrier / kT)``. Here
    ``Omega = sqrt(prod lambda_min / prod' lambda_saddle)`` and ``s = sqrt(sum'_i a_i^2 / lambda_i)``. In it a_i is the
    velocity along the unstable mode that precession gives to mode i of the saddle.

    With ``damping`` (Gilbert's alpha >= 0) the rate is that of Langer's theory, which also counts spins that turn back.
    The growth rate of the linearised Landau-Lifshitz-Gilbert equation replaces s |lambda_unstable|^(1/2) (Langer, Ann.
    Phys. 54, 258 (1969); Coffey, Garanin & McCarthy, Adv. Chem. Phys. 117, 528 (2001)). At alpha = 0 it equals the rate
    of HTST for one spin, and is lower for more spins.

    landscape: a landscape of one problem of unit vectors.
    minimum, saddle: the two points, (n_spins, 3).
    moments: (n_spins,) or one number, in Bohr magnetons; with units "reduced", moment over gyromagnetic ratio.
    damping: Gilbert's alpha, a number.
    units: units of energy. Rates are in 1/s, by ``g mu_B / (hbar mu)``, unless units are reduced.
    volumes: volumes swept by the zero modes of minimum and saddle, needed if there are any. The volume is 2 pi sqrt(n)
        for n spins that turn together about an axis and are perpendicular to it.
    saddles: number of equivalent saddles.
    near_zero: as in `vineyard`.

    Raises:
        InputError: the number of negative modes is wrong, zero modes have no volumes, or shapes do not fit. Or the
            precession does not cross the saddle, as in axial symmetry. HTST then gives 0, and only damping leads
            across.
    """
    units = Units.of(units)
    moments = torch.as_tensor(moments, dtype=minimum.dtype, device=minimum.device)
    if moments.ndim == 0:
        moments = moments.expand(len(minimum))
    if moments.shape != (len(minimum),) or not bool((moments > 0).all()):
        raise InputError(
            f"spin_rate: `moments` must be {len(minimum)} positive numbers, one a spin, or one for all; "
            f"got shape {tuple(moments.shape)}; leave vacancies out of the rows"
        )
    if damping is not None and not (damping >= 0 and math.isfinite(damping)):
        raise InputError(f"spin_rate: `damping` must not be negative, got {damping}")
    if minimum.shape[-1] != 3:
        raise InputError(f"spin_rate: spins have 3 components, got {minimum.shape[-1]}")
    ends = _ends("spin_rate", landscape, minimum, saddle, near_zero)
    precession = 1.0 if units.reduced else G_ELECTRON / (HBAR_MEV_S * 1e-3 / units.ev)
    gyration = precession / moments[:, None]  # velocity of a spin / torque
    entropy = float(0.5 * (ends.minimum.log().sum() - ends.saddle.log().sum()))
    if damping is None:
        velocity = gyration * torch.linalg.cross(
            saddle.expand_as(ends.saddle_vectors), ends.saddle_vectors, dim=-1
        )
        a = ends.saddle * (velocity * ends.unstable_vector).sum((-1, -2))
        flux = float((a * a / ends.saddle).sum().sqrt())
        reach = float(gyration.max()) * math.sqrt(float(ends.saddle.max()) if ends.saddle.numel() else 0.0)
        if not flux > 1e-6 * reach:
            raise InputError(
                "spin_rate: precession does not cross this saddle (no stable mode drives the unstable one, as in axial "
                "symmetry), so the undamped harmonic rate is 0 and says nothing. Give `damping`: Langer's rate is then "
                "proportional to alpha / (1 + alpha^2), Brown's result for the axial case"
            )
        prefactor = flux * math.exp(entropy) / (2.0 * math.pi)
    else:
        growth = _growth(saddle, ends, gyration, damping)
        if not growth > 0:
            raise InputError(
                "spin_rate: no motion of the linearised equation grows at this saddle; without damping an axially "
                "symmetric one is never crossed. Give a positive `damping`"
            )
        prefactor = growth * math.exp(entropy) / (2.0 * math.pi * math.sqrt(-ends.unstable))
    if volumes is None and ends.zero_modes != (0, 0):
        raise InputError(
            f"spin_rate: {ends.zero_modes[0]} zero modes at the minimum and {ends.zero_modes[1]} at the saddle; give "
            f"`volumes`, what they sweep at minimum and saddle (1 where there are none), or a smaller `near_zero`"
        )
    return Rate(
        ends.barrier,
        saddles * prefactor,
        units,
        ends.zero_modes,
        volumes or (1.0, 1.0),
        saddles,
        "htst" if damping is None else "langer",
    )


def _growth(saddle: torch.Tensor, ends: _Ends, gyration: torch.Tensor, damping: float) -> float:
    """Return the growth rate of the unstable motion: largest real eigenvalue of ``g/(1 + a^2) (s x H - a H)``."""
    # zero modes exert no torque, so the motion can be looked at without them
    values = torch.cat([ends.saddle.new_tensor([ends.unstable]), ends.saddle])
    vectors = torch.cat([ends.unstable_vector[None], ends.saddle_vectors])
    turned = torch.linalg.cross(saddle.expand_as(vectors), vectors, dim=-1) - damping * vectors
    velocity = gyration / (1.0 + damping**2) * turned * values[:, None, None]
    matrix = vectors.flatten(1) @ velocity.flatten(1).T
    found = torch.linalg.eigvals(matrix)
    real = found.imag.abs() <= 1e-6 * found.abs().max()
    return float(torch.where(real, found.real, -torch.inf).max())


def _ends(
    where: str, landscape: Landscape, minimum: torch.Tensor, saddle: torch.Tensor, near_zero: float
) -> _Ends:
    """Return energies and spectra at both ends, checked.

    Raises:
        InputError: as in `vineyard` and `spin_rate`.
    """
    segments = landscape.segments
    if segments.n_problems != 1:
        raise InputError(
            f"{where}: the landscape must be of one problem, got {segments.n_problems}: `select` one"
        )
    if minimum.shape != saddle.shape or minimum.ndim != 2 or len(minimum) != segments.n_rows:
        raise InputError(
            f"{where}: `minimum` and `saddle` must have shape ({segments.n_rows}, d), "
            f"got {tuple(minimum.shape)} and {tuple(saddle.shape)}"
        )
    with torch.no_grad():
        energy = [float(landscape.evaluate(one).energy[0]) for one in (minimum, saddle)]
        (low, _), (high, vectors) = (spectra(landscape, one)[0] for one in (minimum, saddle))
    scale = float(torch.cat([low, high]).abs().max())
    soft_low, soft_high = (values.abs() <= near_zero * scale for values in (low, high))
    negative = [int(((values < 0) & ~soft).sum()) for values, soft in ((low, soft_low), (high, soft_high))]
    if negative[0]:
        raise InputError(
            f"{where}: the minimum has {negative[0]} negative modes, lowest {float(low[0]):.6g}: it is none; relax it "
            f"after a small push"
        )
    if negative[1] != 1:
        raise InputError(
            f"{where}: the saddle has {negative[1]} negative modes instead of one, lowest "
            f"{[float(f'{value:.6g}') for value in high[:3]]}: rates are about saddles of first order"
        )
    if energy[1] < energy[0]:
        raise InputError(f"{where}: the saddle ({energy[1]:.8g}) lies below the minimum ({energy[0]:.8g})")
    stable = ~soft_high & (high > 0)
    return _Ends(
        energy[1] - energy[0],
        low[~soft_low],
        high[stable],
        vectors[stable],
        float(high[0]),
        vectors[0],
        (int(soft_low.sum()), int(soft_high.sum())),
    )


class _MassWeighted(Landscape):
    """A flat landscape in coordinates ``q = sqrt(m) x``, with squared frequencies as curvatures."""

    def __init__(self, landscape: Landscape, weight: torch.Tensor) -> None:
        self.landscape, self.weight = landscape, weight  # (n_rows,) one over the root of the mass
        self.segments, self.manifold, self.fixed = landscape.segments, landscape.manifold, landscape.fixed

    @property
    def hessian_calls(self) -> int:
        return self.landscape.hessian_calls

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return the energy, and the force along the scaled coordinates."""
        weight = self.weight[:, None]
        found = self.landscape.evaluate(x * weight)
        return Evaluation(found.energy, found.force * weight)

    def hessian_product(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the Hessian in scaled coordinates times ``v``, both (n_rows, d)."""
        weight = self.weight[:, None]
        return weight * self.landscape.hessian_product(x * weight, v * weight)

    def free_motions(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return the rigid motions, orthonormal in the scaled coordinates."""
        weight = self.weight[:, None]
        found = self.landscape.free_motions(x * weight)
        if found is None:
            return None
        kept: list[torch.Tensor] = []
        for motion in found / weight:
            for one in kept * 2:
                motion = motion - self.segments.scale(self.segments.dot(one, motion), one)
            square = self.segments.dot(motion, motion)
            kept.append(
                self.segments.scale(torch.where(square > 0, square.clamp(min=1e-300).rsqrt(), 0.0), motion)
            )
        return torch.stack(kept)

    def select(self, problems: torch.Tensor) -> _MassWeighted:
        """Return the same landscape of some problems."""
        _, rows = self.segments.select(problems)
        return _MassWeighted(self.landscape.select(problems), self.weight[rows])
