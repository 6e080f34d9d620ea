"""Silicon: numbers of other programs, and the formula with its triplets written out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from scipy.optimize import minimize_scalar

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.plugins import plugin
from mlopt.potentials import StillingerWeber


def diamond(a: float = 5.431, cells: int = 2) -> Atoms:
    return bulk("Si", "diamond", a=a, cubic=True) * (cells, cells, cells)


def displaced() -> Atoms:
    atoms = diamond()
    atoms.positions[0] += [0.10, 0.20, -0.15]
    return atoms


def energy_of(atoms: Atoms, **settings: Any) -> float:
    return float(StillingerWeber(**settings).energy(Systems.from_atoms(atoms)))


def plain(s: StillingerWeber, atoms: Atoms, images: int) -> float:
    """Eqs. 2.3-2.7 term by term, each atom with its neighbours in so many cells around."""
    end, total = s.a * s.sigma, 0.0
    steps = [range(-images, images + 1) if periodic else [0] for periodic in atoms.pbc]
    for i, center in enumerate(atoms.positions):
        near = []
        for j, other in enumerate(atoms.positions):
            for step in itertools.product(*steps):
                d = other + np.array(step) @ atoms.cell.array - center
                r = float(np.linalg.norm(d))
                if r < end and not (i == j and step == (0, 0, 0)):
                    near.append((r, d / r))
        for r, _ in near:
            x = s.sigma / r
            bond = s.big_a * (s.big_b * x**s.p - x**s.q) * math.exp(s.sigma / (r - end))
            total += 0.5 * s.epsilon * bond
        for (r1, u1), (r2, u2) in itertools.combinations(near, 2):
            weight = math.exp(s.gamma * s.sigma / (r1 - end)) * math.exp(s.gamma * s.sigma / (r2 - end))
            total += s.epsilon * s.three_body * (float(u1 @ u2) - s.cos_theta0) ** 2 * weight
    return total


@pytest.mark.parametrize(
    "atoms, settings, energy",
    [
        (diamond(), {}, -277.542400),  # LAMMPS with Si.sw
        (diamond(), {"preset": "paper"}, -277.196684),
        (diamond(5.248), {}, -273.1157),
        (displaced(), {}, -276.982189),
        (displaced(), {"epsilon": 2.16826}, -276.977079),
        (Atoms("Si2", [[0, 0, 0], [2.35, 0, 0]]), {}, -2.168286),
        (Atoms("Si3", [[0, 0, 0], [2.35, 0, 0], [0, 2.35, 0]]), {}, -4.256737),
    ],
    ids=["lammps", "paper", "short cell", "displaced", "displaced, jax-md", "dimer", "trimer"],
)
def test_numbers_of_other_programs(atoms: Atoms, settings: dict[str, Any], energy: float) -> None:
    digits = 5e-5 if energy in (-273.1157,) else 1e-6
    assert energy_of(atoms, **settings) == pytest.approx(energy, abs=digits)


def test_crystal_of_jax_md() -> None:
    # jax-md, tests/energy_test.py::test_stillinger_weber; a cell of two atoms, much smaller than the range
    two = bulk("Si", "diamond", a=5.428)
    assert energy_of(two, epsilon=2.16826) / 2 == pytest.approx(-4.336503155764325, abs=5e-14)


def test_lattice_constant() -> None:
    found = minimize_scalar(
        lambda a: energy_of(bulk("Si", "diamond", a=a)) / 2, bracket=(5.4, 5.46), tol=1e-8
    )
    assert found.x == pytest.approx(5.43095, abs=6e-6)
    assert found.fun == pytest.approx(-4.336600, abs=1e-6)


@pytest.mark.parametrize("preset", ["lammps", "paper"])
def test_eight_atoms_are_an_eighth_of_sixty_four(preset: Any) -> None:
    """A cell of 5.43 angstrom is shorter than twice the range: nearest images are not enough."""
    small = diamond(cells=1)
    small.rattle(0.15, seed=4)
    potential = StillingerWeber(preset=preset)
    one, many = (
        potential.evaluate(Systems.from_atoms(atoms), stress=True) for atoms in (small, small * (2, 2, 2))
    )
    assert float(many.energy) == pytest.approx(8 * float(one.energy), rel=1e-13)
    torch.testing.assert_close(many.force, one.force.repeat(8, 1), rtol=0, atol=1e-11)
    assert one.stress is not None and many.stress is not None
    torch.testing.assert_close(many.stress, one.stress, rtol=0, atol=1e-13)
    assert float(one.force.abs().max()) > 0.1


def slab() -> Atoms:
    atoms = Atoms(bulk("Si", "diamond", a=5.3, orthorhombic=True) * (1, 2, 1))
    atoms.pbc = [True, False, True]
    return atoms


def skewed() -> Atoms:
    atoms = bulk("Si", "diamond", a=5.2)
    atoms.set_cell(atoms.cell.array + np.array([[0, 0.3, 0], [0, 0, 0.2], [0.4, 0, 0]]), scale_atoms=True)
    atoms.positions += [11.0, -3.0, 0.5]
    return atoms


def cluster() -> Atoms:
    atoms = diamond(a=5.0)[:30]
    atoms.pbc = False
    return atoms


@pytest.mark.parametrize("atoms", [skewed(), diamond(cells=1), slab(), cluster()])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preset": "paper"},
        {"cos_theta0": 0.3, "gamma": 0.6, "three_body": 5.0, "a": 1.7},
        {"p": 5.5, "q": 1.5, "big_b": 0.4, "cos_theta0": -1.0},
    ],
    ids=["lammps", "paper", "other angle", "other exponents"],
)
def test_against_triplets(atoms: Atoms, settings: dict[str, Any]) -> None:
    moved = atoms.copy()
    moved.rattle(0.2, seed=2)
    potential = StillingerWeber(**settings)
    expected = plain(potential, moved, images=2)
    assert float(potential.energy(Systems.from_atoms(moved))) == pytest.approx(expected, rel=1e-12)
    assert abs(plain(potential.replace(three_body=0.0), moved, images=2) - expected) > 1e-3  # angles matter


def test_large_free_clusters_take_another_list() -> None:
    atoms = diamond(cells=4)
    atoms.pbc = False
    atoms.rattle(0.1, seed=0)
    parts = Systems.from_atoms([atoms, atoms[:60]])
    found = StillingerWeber().evaluate(parts)
    # cut in two far apart, the energy is the sum
    both = atoms[:60]
    both.positions += 100.0
    joined = StillingerWeber().evaluate(Systems.from_atoms(atoms + both))
    assert float(joined.energy) == pytest.approx(float(found.energy.sum()), rel=1e-12)
    torch.testing.assert_close(joined.force, found.force, rtol=0, atol=1e-10)


def test_the_end_of_the_range() -> None:
    """Beyond it nothing is left, and right before it nothing is singular; in float32 as well."""
    end = StillingerWeber().reach()
    for dtype in (torch.float64, torch.float32):
        for gap in (1e-12, 1e-7, 1e-4, 1e-3, 0.0, -1e-7, -0.1):
            pair = Systems.from_atoms(Atoms("Si2", [[0, 0, 0], [end - gap, 0, 0]])).to(dtype=dtype)
            found = StillingerWeber(gamma=0.01).evaluate(pair)
            assert float(found.energy) == 0.0 and float(found.force.abs().max()) < 1e-30, (dtype, gap)
            assert gap > 0 or not bool(found.force.any())
    near = StillingerWeber().evaluate(Systems.from_atoms(Atoms("Si2", [[0, 0, 0], [end - 0.5, 0, 0]])))
    assert float(near.energy) < -0.01


def test_presets() -> None:
    paper = StillingerWeber(preset="paper")
    assert paper.epsilon == 2.16826 and paper.reach() == pytest.approx(3.77, rel=1e-15)
    assert StillingerWeber(preset="paper", epsilon=2.0).epsilon == 2.0
    assert StillingerWeber().reach() == pytest.approx(3.77118, rel=1e-12)
    for made in (paper, StillingerWeber(gamma=1.1)):
        assert plugin.build(StillingerWeber, made.config()) == made
    assert paper.diameter(torch.tensor([14])).tolist() == [pytest.approx(2.3517, abs=1e-4)]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"preset": "lamps"}, r"preset: input should be 'lammps' or 'paper'"),
        ({"sigma": 0.0}, r"sigma: input should be greater than 0"),
        ({"cos_theta0": 1.5}, r"cos_theta0: input should be less than or equal to 1"),
        ({"lambda": 21.0}, r"lambda: unknown key 'lambda' in the top level\..* three_body"),
    ],
)
def test_bad_parameters(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plugin.build(StillingerWeber, settings)


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match=r"StillingerWeber has no parameters for Ge; it knows Si\."):
        StillingerWeber().check(Systems.from_atoms(Atoms("SiGe", [[0, 0, 0], [2.4, 0, 0]])))
    with pytest.raises(
        InputError, match=r"system 0 has 64 atoms in a cell of volume .* pairs closer than 3\.771"
    ):
        StillingerWeber().check(Systems.from_atoms(diamond(a=0.05)))


def test_broken_systems_fail_alone() -> None:
    good = diamond(cells=1)
    flat, far, lost = good.copy(), good.copy(), good.copy()
    flat.cell[2] = flat.cell[1]
    far.positions[0, 0] = 1e12
    lost.positions[0, 0] = float("nan")
    free = lost.copy()
    free.pbc = False
    found = StillingerWeber().evaluate(Systems.from_atoms([flat, good, far, lost, free]), stress=True)
    assert found.energy.isfinite().tolist() == [False, True, False, False, False]
    alone = StillingerWeber().evaluate(Systems.from_atoms(good), stress=True)
    assert torch.equal(found.energy[1:2], alone.energy)
    assert found.stress is not None and alone.stress is not None
    assert torch.equal(found.stress[1:2], alone.stress)
    assert found.stress.isfinite().all(-1).all(-1).tolist() == [False, True, False, False, False]


def test_no_systems() -> None:
    none = Systems(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    found = StillingerWeber().evaluate(none)
    assert found.energy.shape == (0,) and found.force.shape == (0, 3)


@pytest.mark.gpu
def test_silicon_on_a_gpu() -> None:
    atoms = [displaced(), diamond(cells=1), cluster(), skewed(), slab()]
    for one in atoms:
        one.rattle(0.1, seed=1)
    systems = Systems.from_atoms(atoms)
    here = StillingerWeber().evaluate(systems, stress=True)
    there = StillingerWeber().evaluate(systems.to("cuda"), stress=True)
    for name in ("energy", "force", "stress"):
        torch.testing.assert_close(
            getattr(there, name).cpu(), getattr(here, name), rtol=1e-11, atol=1e-10, equal_nan=True
        )
