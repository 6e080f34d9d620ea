"""Settings that are tensors get gradients through `evaluate`, whether or not positions ask for any."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlopt.core import Potential, Systems, setting
from mlopt.potentials import LennardJones, Morse, SoftSphere, StillingerWeber, SumPotential


class Harmonic(Potential):
    """Springs to the origin: forces by the base class."""

    k: float = setting(1.0, "of each spring")

    def energy(self, systems: Systems) -> torch.Tensor:
        """(n_systems,)"""
        return 0.5 * self.k * systems.segments.sum(systems.pos**2)


def sum_of_two(theta: torch.Tensor) -> Potential:
    parts = [LennardJones().replace(epsilon=theta[0]), Morse().replace(epsilon=theta[1])]
    return SumPotential(terms=parts)


MADE: dict[str, tuple[Callable[[torch.Tensor], Potential], list[float]]] = {
    "lennard-jones": (lambda t: LennardJones().replace(epsilon=t[0], sigma=t[1]), [1.1, 1.05]),
    "lennard-jones with a cutoff": (lambda t: LennardJones(cutoff=2.5).replace(epsilon=t[0]), [1.1]),
    "morse": (lambda t: Morse().replace(epsilon=t[0]), [0.9]),
    "soft spheres": (lambda t: SoftSphere(r0=1.4).replace(epsilon=t[0]), [1.2]),
    "silicon": (lambda t: StillingerWeber(sigma=1.0).replace(epsilon=t[0], three_body=t[1]), [1.1, 20.0]),
    "harmonic": (lambda t: Harmonic().replace(k=t[0]), [0.7]),
    "sum": (sum_of_two, [1.1, 0.8]),
}


def clusters() -> Systems:
    """Two clusters of unlike sizes, at distances around 1.1."""
    grid = 1.1 * torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3)
    noise = 0.1 * torch.rand(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pos = grid + noise
    return Systems(torch.cat([pos, pos[:5]]), torch.full((13,), 18), torch.tensor([0, 8, 13]))


@pytest.mark.parametrize("name", MADE)
def test_energies_and_forces_have_gradients_in_the_settings(name: str) -> None:
    make, start = MADE[name]
    systems = clusters()
    assert not systems.pos.requires_grad

    def energies_and_forces(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = make(theta).evaluate(systems)
        return found.energy, found.force

    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(energies_and_forces, theta)


@pytest.mark.parametrize("name", MADE)
def test_without_a_parameter_that_asks_nothing_keeps_a_graph(name: str) -> None:
    make, start = MADE[name]
    found = make(torch.tensor(start, dtype=torch.float64)).evaluate(clusters())
    assert not found.energy.requires_grad and not found.force.requires_grad
    with torch.no_grad():
        asked = make(torch.tensor(start, dtype=torch.float64, requires_grad=True)).evaluate(clusters())
    assert not asked.energy.requires_grad and not asked.force.requires_grad
