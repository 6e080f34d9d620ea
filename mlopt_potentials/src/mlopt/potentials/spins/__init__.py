"""Classical spins on lattices: their energy as a landscape, initial states, and files."""

from mlopt.potentials.spins.files import read_spins, write_spins
from mlopt.potentials.spins.heisenberg import MU_B, Anisotropy, Heisenberg, SpinPair
from mlopt.potentials.spins.landscape import SpinLandscape
from mlopt.potentials.spins.lattice import SpinLattice
from mlopt.potentials.spins.observables import magnetization, topological_charge
from mlopt.potentials.spins.ovf import OvfSegment, read_ovf, write_ovf
from mlopt.potentials.spins.states import (
    DomainWall,
    Ferromagnet,
    GivenSpins,
    RandomSpins,
    Skyrmion,
    SpinState,
    make_state,
    random_spins,
)

__all__ = [
    "MU_B",
    "Anisotropy",
    "DomainWall",
    "Ferromagnet",
    "GivenSpins",
    "Heisenberg",
    "OvfSegment",
    "RandomSpins",
    "Skyrmion",
    "SpinLandscape",
    "SpinLattice",
    "SpinPair",
    "SpinState",
    "magnetization",
    "make_state",
    "random_spins",
    "read_ovf",
    "read_spins",
    "topological_charge",
    "write_ovf",
    "write_spins",
]
