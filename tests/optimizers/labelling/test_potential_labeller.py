"""Labels from potentials: the contract, periodic cells, and a structure that fails alone."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk

from mlopt.core import InputError, Systems
from mlopt.core.testing import check_labeller
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import AsePotential, Gupta, LennardJones


def gold() -> Systems:
    """Two cells and a free cluster."""
    images = [bulk("Au", cubic=True) * 2, bulk("Au") * 2]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
    cluster = images[0].copy()
    cluster.set_cell(None)
    cluster.set_pbc(False)
    return Systems.from_atoms([*images, cluster])


@pytest.mark.parametrize(
    "potential", [Gupta(cutoff=5.0), AsePotential(calculator="emt")], ids=["gupta", "emt of ASE"]
)
def test_contract(potential: Gupta | AsePotential) -> None:
    labeller = PotentialLabeller(potential=potential)
    check_labeller(labeller, gold())
    data = labeller.label(gold())
    assert data.with_energy.all() and data.with_force.all()
    assert data.with_stress.tolist() == [True, True, False], "a cluster has no stress"


def test_what_is_not_finite_has_no_label() -> None:
    pos = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [1.1, 0, 0]], dtype=torch.float64)
    systems = Systems(pos, torch.full((4,), 18), torch.tensor([0, 2, 4]))
    data = PotentialLabeller(potential=LennardJones()).label(systems)
    assert data.with_energy.tolist() == [False, True] == data.with_force.tolist()
    assert data.source[0] == "the potential LennardJones gives no finite energy and force"


def test_a_species_that_the_potential_does_not_know_is_refused() -> None:
    with pytest.raises(InputError, match="has no parameters for Ar-Ar of system 0"):
        PotentialLabeller(potential=Gupta()).label(Systems.cluster([18, 18]))


def test_a_calculator_is_called_once_for_each_label() -> None:
    from ase.calculators.emt import EMT

    class Counted(EMT):
        calls = 0

        def calculate(self, *arguments: object, **named: object) -> None:
            Counted.calls += 1
            super().calculate(*arguments, **named)  # type: ignore[no-untyped-call]

    labeller = PotentialLabeller(potential=AsePotential.wrap(Counted()))  # type: ignore[no-untyped-call]
    systems = gold()
    broken = systems.with_pos(systems.pos.index_copy(0, torch.tensor([1]), systems.pos[:1]))
    found = labeller.label(broken)
    assert Counted.calls == len(systems), "a trial of the calculator would cost as much as labels"
    assert found.with_energy.tolist() == [False, True, True]
    assert found.source[0].startswith("the calculator 'Counted' gives no finite energy and force")
