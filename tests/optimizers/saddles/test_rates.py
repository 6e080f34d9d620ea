"""Rates: closed forms of one spin, Brown's uniaxial result, Vineyard of harmonic atoms, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import SPINS, Units
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.rates import Rate, spin_rate, vineyard
from mlopt.potentials.classical.lennard_jones import LennardJones

X, Y, Z = torch.eye(3, dtype=torch.float64).split(1)


def spin(k1: float = 1.0, k2: float = -2.0, field: float = 0.0, n: int = 1) -> FunctionLandscape:
    """``sum -K1 Sx^2 - K2 Sz^2 - b Sx`` of n spins that do not interact."""
    square = torch.tensor([-k1, 0.0, -k2], dtype=torch.float64)
    return FunctionLandscape(
        lambda x, s: s.sum(x * x * square) - field * s.sum(x[:, :1]), Segments.uniform(1, n), UnitSphere()
    )


def test_biaxial_spin() -> None:
    """``k = gamma/(pi mu) sqrt(K1 (K1 + |K2|)) exp(-K1/kT)``, in reduced units and in 1/s."""
    rate = spin_rate(spin(), X, Y, 1.0, units="reduced")
    assert rate.prefactor == pytest.approx(math.sqrt(3.0) / math.pi, abs=1e-12)
    assert rate.prefactor == pytest.approx(0.5513288954, abs=1e-8)
    assert rate.barrier == pytest.approx(1.0, abs=1e-12) and rate.zero_modes == (0, 0)
    assert rate.at(0.1) == pytest.approx(rate.prefactor * math.exp(-10.0))
    physical = spin_rate(spin(), X, Y, 1.0)
    assert physical.prefactor == pytest.approx(1.677175e12, rel=1e-6)
    assert spin_rate(spin(), X, Y, 2.0, saddles=2).prefactor == pytest.approx(physical.prefactor)
    kt = 0.08617333262 * 2.0  # meV at 2 K
    assert physical.lifetime(2.0) == pytest.approx(math.exp(1.0 / kt) / physical.prefactor)
    electron_volts = spin_rate(spin(1e-3, -2e-3), X, Y, 1.0, units="eV")
    assert electron_volts.prefactor == pytest.approx(physical.prefactor, rel=1e-9)
    assert electron_volts.lifetime(2.0) == pytest.approx(physical.lifetime(2.0), rel=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_biaxial_spin_in_a_field(side: float) -> None:
    """Barrier ``K1 (1 + s b / 2 K1)^2``, and the prefactor of the minimum alone: FMR frequency / 2 pi."""
    b, k1, k2 = 0.3, 1.0, 2.0
    across = -b / (2.0 * k1)
    saddle = torch.tensor([[across, math.sqrt(1.0 - across**2), 0.0]], dtype=torch.float64)
    rate = spin_rate(spin(field=b), side * X, saddle, 1.0, units="reduced")
    expected = math.sqrt((2 * k1 + side * b) * (2 * k1 + 2 * k2 + side * b)) / (2 * math.pi)
    assert rate.prefactor == pytest.approx(expected, abs=1e-10)
    assert rate.barrier == pytest.approx(k1 * (1 + side * b / (2 * k1)) ** 2, abs=1e-12)


@pytest.mark.parametrize(
    ("damping", "growth", "prefactor"),
    [
        (0.0, 2.828427, 0.551329),
        (0.1, 2.717121, 0.529633),
        (0.5, 2.161250, 0.421280),
        (1.0, 1.561553, 0.304384),
    ],
)
def test_langer(damping: float, growth: float, prefactor: float) -> None:
    rate = spin_rate(spin(), X, Y, 1.0, damping=damping, units="reduced")
    k1, k2, a = 1.0, 2.0, damping
    exact = (a * (k1 - k2) + math.sqrt((a * (k1 + k2)) ** 2 + 4 * k1 * k2)) / (1 + a * a)
    assert exact == pytest.approx(growth, abs=1e-6)
    assert rate.prefactor == pytest.approx(exact / (2 * math.pi) * math.sqrt(12.0 / 8.0), abs=1e-10)
    assert rate.prefactor == pytest.approx(prefactor, abs=1e-6)


def test_spins_that_do_not_interact() -> None:
    """One of three crosses; the others change nothing, whatever their moments."""
    moments = torch.tensor([1.0, 2.5, 0.7], dtype=torch.float64)
    minimum, saddle = X.repeat(3, 1), torch.cat([X, Y, X])
    for damping in (None, 0.0, 0.3):
        rate = spin_rate(spin(n=3), minimum, saddle, moments, damping=damping, units="reduced")
        alone = spin_rate(spin(), X, Y, 2.5, damping=damping, units="reduced")
        assert rate.prefactor == pytest.approx(alone.prefactor, rel=1e-10)


def test_axial_symmetry_is_named() -> None:
    """HTST gives 0 there; Langer with the volume of the ring is Brown's (Phys. Rev. 130, 1677 (1963)) result."""
    uniaxial = spin(0.0, 1.0)
    with pytest.raises(InputError, match=r"precession does not cross this saddle .* Give `damping`"):
        spin_rate(uniaxial, Z, X, 1.0)
    with pytest.raises(InputError, match="Give a positive `damping`"):
        spin_rate(uniaxial, Z, X, 1.0, damping=0.0, volumes=(1.0, 2 * math.pi))
    with pytest.raises(InputError, match="0 zero modes at the minimum and 1 at the saddle; give `volumes`"):
        spin_rate(uniaxial, Z, X, 1.0, damping=0.5)
    rate = spin_rate(uniaxial, Z, X, 1.0, damping=0.5, volumes=(1.0, 2 * math.pi), units="reduced")
    kt = 0.05
    brown = 0.5 / 1.25 * 2.0 * math.sqrt(1.0 / (math.pi * kt)) * math.exp(-1.0 / kt)
    assert rate.at(kt) == pytest.approx(brown, rel=1e-10)
    assert rate.zero_modes == (0, 1)


def test_vineyard_of_springs() -> None:
    """``E = -a x^2 + x^4 + b y^2 / 2`` for atoms of unlike masses: closed form, masses included."""
    a, b = 1.5, 4.0

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        rows = x.reshape(segments.n_problems, 2, 2)
        u, v = rows[:, 0, 0], rows[:, 1, 0]  # coordinate 0 of each atom moves, the others are bound
        bound = 0.5 * b * (rows[:, :, 1] ** 2).sum(-1) + 0.5 * b * v * v * (1.0 + 0.5 * u * u)
        return -a * u * u + u**4 + bound

    landscape = FunctionLandscape(energy, Segments.uniform(1, 2))
    u0 = math.sqrt(a / 2.0)
    minimum = torch.tensor([[u0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    masses = torch.tensor([3.0, 5.0], dtype=torch.float64)
    rate = vineyard(landscape, minimum, torch.zeros_like(minimum), masses, units="reduced")
    along = math.sqrt((-2 * a + 12 * u0**2) / 3.0)
    stiffening = math.sqrt(1.0 + 0.5 * u0**2)
    assert rate.prefactor == pytest.approx(along * stiffening / (2 * math.pi), rel=1e-10)
    assert rate.barrier == pytest.approx(a * a / 4.0)
    assert vineyard(landscape, minimum, 0 * minimum, 3.0, units="reduced").prefactor == pytest.approx(
        rate.prefactor
    )
    # 1 eV / (angstrom^2 u) is (15.63 THz)^2 as a frequency
    thz = vineyard(landscape, minimum, 0 * minimum, masses).prefactor / rate.prefactor * 1e-12 / (2 * math.pi)
    assert thz == pytest.approx(15.6333, rel=1e-4)


@pytest.mark.parametrize(
    "units", [Units("meV", "nm"), Units("Ry", "Bohr"), Units("kcal/mol"), Units("kJ/mol", "pm")]
)
def test_a_rate_does_not_depend_on_its_units(units: Units) -> None:
    """An atom of 195 amu between two wells, in eV and angstrom and in others: one lifetime at 300 K."""

    def wells(ev: float, angstrom: float) -> FunctionLandscape:
        def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
            u, v = x[:, 0] * angstrom, x[:, 1] * angstrom
            return 0.1 / ev * ((u * u - 1.0) ** 2 + 5.0 * v * v)

        return FunctionLandscape(energy, Segments.uniform(1, 1))

    minimum = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    rate = vineyard(wells(1.0, 1.0), minimum, 0 * minimum, 195.0)
    frequency = math.sqrt(0.8 * 1.602176634e-19 / 1e-20 / (195.0 * 1.6605390666e-27)) / (2.0 * math.pi)
    assert rate.prefactor == pytest.approx(frequency, rel=1e-9)
    assert rate.at(300.0) == pytest.approx(frequency * math.exp(-0.1 / (8.617333262e-5 * 300.0)), rel=1e-8)
    other = vineyard(
        wells(units.ev, units.angstrom), minimum / units.angstrom, 0 * minimum, 195.0, units=units
    )
    assert other.barrier * units.ev == pytest.approx(0.1) and other.units == units
    assert other.lifetime(300.0) == pytest.approx(rate.lifetime(300.0), rel=1e-6)
    assert vineyard(wells(1.0, 1.0), minimum, 0 * minimum, 195.0, units="eV, angstrom") == rate


def test_vineyard_of_a_free_cluster() -> None:
    """LJ4 over its rhombus, against frequencies from a dense mass-weighted Hessian; and a saddle of second order."""
    flat = torch.tensor([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.85, 0], [0, -0.85, 0]], dtype=torch.float64)
    solid = (
        torch.tensor([[0.5, 0.5, 0.5], [0.5, -0.5, -0.5], [-0.5, 0.5, -0.5], [-0.5, -0.5, 0.5]]).double()
        / 2**0.5
    )
    landscape = AtomsLandscape(Systems(flat, torch.full((4,), 18), torch.tensor([0, 4])), LennardJones())
    rhombus = minimize(landscape, LBFGS(), flat, fmax=1e-10, force_calls=300).x
    masses = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    rate = vineyard(landscape, solid, rhombus, masses, units="reduced")
    assert rate.barrier == pytest.approx(6.0 + float(landscape.evaluate(rhombus).energy[0]))
    root = masses.sqrt().repeat_interleave(3)
    logs = []
    for x in (solid, rhombus):
        unit = torch.eye(12, dtype=torch.float64).reshape(12, 4, 3)
        columns = torch.stack([landscape.hessian_product(x, one).flatten() for one in unit])
        values = torch.linalg.eigvalsh(columns / root[:, None] / root)
        logs.append(values[values > 1e-4].log().sum())
        assert int((values > 1e-4).sum()) == 6 - len(logs) + 1
    assert rate.prefactor == pytest.approx(math.exp(0.5 * float(logs[0] - logs[1])) / (2 * math.pi), rel=1e-8)
    line = torch.tensor([[-0.99918, 0, 0], [0, 0, 0], [0.99918, 0, 0]], dtype=torch.float64)
    triangle = torch.tensor([[0, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0]], dtype=torch.float64)
    three = AtomsLandscape(Systems(line, torch.full((3,), 18), torch.tensor([0, 3])), LennardJones())
    with pytest.raises(InputError, match="the saddle has 2 negative modes instead of one"):
        vineyard(three, triangle, line, 1.0, units="reduced")  # it bends two ways


def test_refusals() -> None:
    with pytest.raises(InputError, match="the minimum has 1 negative modes, lowest -2: it is none; relax it"):
        spin_rate(spin(), Y, X, 1.0)
    with pytest.raises(InputError, match="the saddle has 2 negative modes instead of one"):
        spin_rate(spin(), X, Z, 1.0)
    with pytest.raises(InputError, match="must be of one problem, got 2"):
        two = FunctionLandscape(lambda x, s: s.sum(x * x), Segments.uniform(2, 1), UnitSphere())
        spin_rate(two, X.repeat(2, 1), Y.repeat(2, 1), 1.0)
    with pytest.raises(InputError, match="`moments` must be 1 positive numbers"):
        spin_rate(spin(), X, Y, 0.0)
    with pytest.raises(InputError, match=r"`damping` must not be negative, got -0\.1"):
        spin_rate(spin(), X, Y, 1.0, damping=-0.1)
    with pytest.raises(InputError, match="lengths in radian are no number of angstrom"):
        vineyard(spin(), X, Y, 1.0, units=SPINS)
    with pytest.raises(InputError, match=r"no unit of energy is called 'kcal/mole'\. Did you mean"):
        vineyard(spin(), X, Y, 1.0, units="kcal/mole")
    with pytest.raises(InputError, match="`masses` must be 1 positive numbers"):
        vineyard(spin(), X, Y, -1.0)
    with pytest.raises(InputError, match="a rate needs a positive temperature, got 0"):
        Rate(1.0, 1.0, SPINS).at(0.0)
    assert Rate(1e6, 1.0, SPINS).lifetime(1.0) == math.inf
