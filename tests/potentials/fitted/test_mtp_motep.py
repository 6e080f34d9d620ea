"""An independent reader and evaluator of ``.mtp``: motep (https://github.com/imw-md/motep), where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mlopt.core import Dataset, Systems
from mlopt.optimizers.fitting.least_squares import Weights, solve, triangle
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import LennardJones, Mtp

pytest.importorskip("numba")
motep = pytest.importorskip("motep", reason="motep is not installed; pip install motep==0.2.0")


def shaken(seed: int, *, alloy: bool = False) -> Atoms:
    """Copper, or copper and gold."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    if alloy:
        atoms.symbols[::3] = "Au"
    atoms.rattle(0.1, seed=seed)
    strain = 0.03 * np.random.default_rng(seed).normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def cells(alloy: bool) -> list[Atoms]:
    """Smaller than the cutoff, skewed, partly periodic, and free."""
    images = [shaken(seed, alloy=alloy) for seed in range(4)]
    lean = np.array([[1, 0, 0], [1, 1, 0], [-1, 1, 1]])
    images[1] = images[1] * (1, 1, 2)
    images[1].set_cell(lean @ images[1].cell.array)  # another basis of the same lattice
    images[2].set_pbc([True, False, True])
    images[3].set_pbc(False)
    return images


def labelled(alloy: bool) -> Dataset:
    systems = Systems.from_atoms([shaken(seed, alloy=alloy) for seed in range(10, 22)])
    return PotentialLabeller(potential=LennardJones(epsilon=0.2, r0=2.6, cutoff=4.5)).label(systems)


@pytest.mark.parametrize(
    ("level", "alloy"), [(4, False), (8, False), (12, False), (16, False), (4, True), (8, True)]
)
def test_motep_gives_the_energies_of_a_fit(level: int, alloy: bool, tmp_path: Path) -> None:
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp, write_mtp

    data = labelled(alloy)
    potential = Mtp(level=level, cutoff=4.5, pair_functions=4, shortest=1.6).prepared(data)
    solution = solve(triangle(potential, data, Weights(stress=1.0)), potential.roughness())
    fitted = potential.with_theta(solution.theta)
    path = tmp_path / "pot.mtp"
    fitted.write_mtp(str(path))
    read = read_mtp(path)
    read.species = [29, 79][: 1 + alloy]
    for atoms in cells(alloy):
        atoms.calc = MTP(read)
        ours = fitted.evaluate(Systems.from_atoms(atoms), stress=bool(atoms.pbc.all()))
        assert abs(float(ours.energy) - atoms.get_potential_energy()) < 1e-10
        assert np.abs(ours.force.numpy() - atoms.get_forces()).max() < 1e-10
        if atoms.pbc.all():
            assert np.abs(ours.stress[0].numpy() - atoms.get_stress(voigt=False)).max() < 1e-11
    back = tmp_path / "back.mtp"
    write_mtp(back, read)
    again = Mtp(file=str(back), elements=["Cu", "Au"][: 1 + alloy])
    systems = Systems.from_atoms(cells(alloy))
    torch.testing.assert_close(
        again.evaluate(systems).energy, fitted.evaluate(systems).energy, rtol=1e-12, atol=1e-9
    )
