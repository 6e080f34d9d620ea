"""Every potential keeps the contract: a new one adds a row to the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.potential import Potential
from mlopt.core.testing import PotentialTolerance, check_potential
from mlopt.potentials import (
    AsePotential,
    Gupta,
    LennardJones,
    Morse,
    SoftSphere,
    StillingerWeber,
    SumPotential,
)


def clusters(
    sizes: tuple[int, ...] = (2, 13, 5, 13, 38), spacing: float = 1.0, z: int = 18, edge: int = 4
) -> Systems:
    """Free clusters on a distorted cubic lattice."""
    generator = torch.Generator().manual_seed(len(sizes))
    grid = torch.cartesian_prod(*[torch.arange(edge, dtype=torch.float64)] * 3)
    pos = [grid[:n] + 0.15 * torch.rand(n, 3, generator=generator, dtype=torch.float64) for n in sizes]
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return Systems(spacing * torch.cat(pos), torch.full((sum(sizes),), z), ptr)


def crystals(spacing: float = 1.0, z: int = 18) -> Systems:
    """Small skewed cells, smaller than a cutoff of 2.5, and one atom alone with its images."""
    many = []
    for index, (n, size) in enumerate(((1, 1.1), (4, 2.0), (8, 2.1))):
        one = clusters((n,), z=z, edge=2)
        generator = torch.Generator().manual_seed(index)
        cell = size * torch.eye(3, dtype=torch.float64)
        cell = cell + 0.1 * torch.rand(3, 3, generator=generator, dtype=torch.float64)
        pos = one.pos + torch.tensor([7.3, -2.0, 0.0], dtype=torch.float64)  # outside the cell
        many.append(
            replace(one, pos=spacing * pos, cell=spacing * cell[None], pbc=torch.ones(1, 3, dtype=torch.bool))
        )
    return Systems.concatenate(many)


def slabs() -> Systems:
    """Periodic along one or two directions, without a vector along the others."""
    systems = crystals()
    pbc = torch.tensor([[True, True, False], [False, True, False], [True, False, True]])
    return replace(systems, pbc=pbc, cell=systems.cell * pbc[:, :, None])


def mixed() -> Systems:
    """Free and periodic, in one batch."""
    return Systems.concatenate([clusters((13, 2)), crystals(), clusters((5,))]).select([3, 0, 5, 1, 2, 4])


def made_of(kinds: list[int], systems: Systems, spacing: float) -> Systems:
    """The same systems of other elements, at random places, with distances ``spacing`` times as long."""
    generator = torch.Generator().manual_seed(len(kinds))
    z = torch.tensor(kinds)[torch.randint(len(kinds), systems.z.shape, generator=generator)]
    return replace(systems, pos=spacing * systems.pos, cell=spacing * systems.cell, z=z)


LISTED = {"none": 2.0, "energy": 2.2, "force": 2.5}
PAIRS: list[tuple[Potential, Systems]] = [
    (LennardJones(), clusters()),
    (LennardJones(epsilon=0.3, sigma=2.5), clusters(spacing=2.8)),
    *[(LennardJones(cutoff=cutoff, shift=shift), mixed()) for shift, cutoff in LISTED.items()],  # type: ignore[arg-type]
    (LennardJones(cutoff=2.5), crystals()),
    (LennardJones(cutoff=2.5), slabs()),
    (Morse(), clusters()),
    (Morse(rho0=3.0, epsilon=0.5, r0=1.2, cutoff=2.5, shift="force"), mixed()),
    (SoftSphere(r0=1.3), mixed()),
    (SoftSphere(epsilon=2.0, r0=1.4, alpha=2.5), crystals()),
    (SumPotential(terms=[LennardJones(cutoff=2.5), Morse(cutoff=2.0, shift="force")]), mixed()),
]


@pytest.mark.parametrize("potential, systems", PAIRS, ids=lambda value: type(value).__name__)
def test_pair_potentials(potential: Potential, systems: Systems) -> None:
    check_potential(potential, systems)


MANY_BODY: list[tuple[Potential, Systems]] = [
    (Gupta(), made_of([79], clusters(), 2.7)),
    (Gupta(preset="AgAu"), made_of([47, 79], clusters(), 2.7)),
    (Gupta(preset="PdPt", cutoff=6.0), made_of([46, 78], mixed(), 2.7)),
    (Gupta(preset="au55-paper", cutoff=6.0, taper=0.0), made_of([79], mixed(), 2.8)),
    (Gupta(preset="AgPt", cutoff=7.0, taper=2.0), made_of([47, 78], crystals(), 2.6)),
    (Gupta(cutoff=5.0), made_of([78], slabs(), 2.6)),
    (StillingerWeber(), made_of([14], clusters(), 2.3)),
    (StillingerWeber(), made_of([14], crystals(), 2.2)),
    (StillingerWeber(preset="paper"), made_of([14], mixed(), 2.3)),
    (StillingerWeber(p=4.5, q=0.5, gamma=0.7, cos_theta0=0.2), made_of([14], mixed(), 2.3)),
    (StillingerWeber(three_body=0.0), made_of([14], slabs(), 2.3)),
]


@pytest.mark.parametrize("potential, systems", MANY_BODY, ids=lambda value: type(value).__name__)
def test_many_body_potentials(potential: Potential, systems: Systems) -> None:
    check_potential(potential, systems)


def test_ase_calculator() -> None:
    # EMT's own cutoff function makes its forces exact to some 1e-8 only
    tolerance = PotentialTolerance(difference=1e-5, invariance=1e-8, batch=1e-12)
    systems = Systems.concatenate([clusters((13, 4), 2.6, 29), crystals(2.6, 29).select([2])])
    check_potential(AsePotential(calculator="emt"), systems, tolerance)


class Skewed(LennardJones):
    """Breaks the contract: a force that is 1 % too strong."""

    def uncut(self, r2, first, second):  # type: ignore[no-untyped-def]
        energy, weight = super().uncut(r2, first, second)
        return energy, 1.01 * weight


class Leaky(LennardJones):
    """Breaks the contract: the energy of a system depends on its neighbours in the batch."""

    def evaluate(self, systems, *, stress=False):  # type: ignore[no-untyped-def]
        found = super().evaluate(systems, stress=stress)
        return replace(found, energy=found.energy + 1e-9 * len(systems), row_energy=None)


@pytest.mark.parametrize(
    "potential, message",
    [
        (Skewed(), r"force is minus the gradient by autograd: system 0 is off by 1\.00e-02"),
        (Leaky(), r"system 0 alone and in the batch, energy: system 0 is off"),
    ],
)
def test_the_contract_notices(potential: Potential, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_potential(potential, clusters((5, 7)))
