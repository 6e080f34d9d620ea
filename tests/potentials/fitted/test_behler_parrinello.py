"""Behler-Parrinello potentials: the contract, functions written out by hand, conventions, files, and refusals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from pydantic import ValidationError

from mlopt.core import Dataset, InputError, Systems
from mlopt.core.testing import check_fittable
from mlopt.potentials import BehlerParrinello
from mlopt.potentials.fitted.behler_parrinello.descriptors import compiled_values
from mlopt.potentials.fitted.behler_parrinello.functions import SymmetryFunctions

pytest.importorskip("numba")


def silicon() -> Systems:
    """A cell smaller than the cutoff, and a skewed one."""
    images = [bulk("Si", cubic=True), bulk("Si") * (2, 2, 2)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
    strain = 0.05 * np.random.default_rng(0).normal(size=(3, 3))
    images[1].set_cell(images[1].cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return Systems.from_atoms(images)


def mixed() -> Systems:
    """An alloy, a slab of it that is periodic in two directions, and a cluster."""
    images = [bulk("Cu", cubic=True) for _ in range(3)]
    for seed, atoms in enumerate(images):
        atoms.symbols[1:3] = "Au"
        atoms.rattle(0.1, seed=seed)
    images[1].set_pbc([True, True, False])
    images[2].set_pbc(False)
    return Systems.from_atoms(images)


def prepared(systems: Systems, **settings: Any) -> BehlerParrinello:
    """With inputs scaled by what is wider than ``systems``, among which functions may hardly differ."""
    wide = [replace(systems, pos=size * systems.pos, cell=size * systems.cell) for size in (0.85, 1.0, 1.1)]
    both = Systems.concatenate(wide)
    data = Dataset(both, energy=torch.arange(len(both)).double())
    return BehlerParrinello(**{"cutoff": 4.0, "hidden": [5, 4], **settings}).prepared(data)


CASES: dict[str, tuple[dict[str, Any], Systems]] = {
    "standard": ({}, silicon()),
    "amp": ({"functions": "amp", "cutoff_function": "polynomial"}, silicon()),
    "alloy": ({"functions": "amp", "angular_kind": "G5", "activation": "sigmoid"}, mixed().select([0])),
    "no hidden layer": ({"hidden": [], "angular": []}, silicon()),
    "softplus": ({"hidden": [3], "activation": "softplus", "functions": "amp"}, silicon()),
}


@pytest.mark.parametrize("case", CASES)
def test_contract(case: str) -> None:
    settings, systems = CASES[case]
    check_fittable(prepared(systems, **settings), systems)


@pytest.mark.parametrize("settings", [{}, {"functions": "amp", "angular_kind": "G5"}])
def test_compiled_functions_are_those_of_torch(settings: dict[str, Any]) -> None:
    systems = mixed()
    functions = prepared(systems, **settings).symmetry_functions
    torch.testing.assert_close(
        compiled_values(functions, systems), functions.values(systems), rtol=1e-12, atol=1e-12
    )


def by_hand(functions: SymmetryFunctions, systems: Systems, index: int) -> np.ndarray[Any, Any]:
    """The functions of each atom of one structure, sum by sum, with neighbours by ASE."""
    atoms, rc = systems[index].to_atoms()[0], functions.cutoff

    def cut(r: float) -> float:
        return 0.5 * (math.cos(math.pi * r / rc) + 1.0) if r < rc else 0.0

    first, second, vectors = neighbor_list("ijD", atoms, rc)
    found = []
    for i in range(len(atoms)):
        near = [(atoms.numbers[j], v) for j, v in zip(second[first == i], vectors[first == i], strict=True)]
        row = []
        for z in functions.species:
            for eta, shift in functions.radial:
                lengths = [float(np.linalg.norm(v)) for other, v in near if other == z]
                row.append(sum(math.exp(-eta * (r - shift) ** 2) * cut(r) for r in lengths))
        for one, two in itertools.combinations_with_replacement(functions.species, 2):
            for eta, zeta, sign in functions.angular:
                total = 0.0
                for (za, a), (zb, b) in itertools.combinations(near, 2):
                    if sorted((za, zb)) != sorted((one, two)):
                        continue
                    ra, rb, rc_ = (float(np.linalg.norm(v)) for v in (a, b, a - b))
                    cosine = float(a @ b) / (ra * rb)
                    square = ra**2 + rb**2 + (rc_**2 if functions.narrow else 0.0)
                    outer = cut(rc_) if functions.narrow else 1.0
                    total += (
                        (1.0 + sign * cosine) ** zeta * math.exp(-eta * square) * cut(ra) * cut(rb) * outer
                    )
                row.append(2.0 ** (1.0 - zeta) * total)
        found.append(row)
    return np.array(found)


@pytest.mark.parametrize("kind", ["G4", "G5"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_functions_are_the_sums_that_they_stand_for(kind: str, index: int) -> None:
    systems = mixed()
    functions = prepared(systems, functions="amp", angular_kind=kind, cutoff=3.5).symmetry_functions
    np.testing.assert_allclose(
        compiled_values(functions, systems[index]).numpy(), by_hand(functions, systems, index), atol=1e-12
    )


def test_eta_counts_in_the_units_that_are_named() -> None:
    amp = BehlerParrinello(
        elements=["Si"], cutoff=5.0, eta="amp", radial=[[4.0, 0.0]], angular=[[0.5, 1.0, 1.0]]
    )
    n2p2 = amp.replace(eta="n2p2", radial=[[0.16, 0.0]], angular=[[0.02, 1.0, 1.0]])
    for name in ("radial", "angular"):
        ours, theirs = (getattr(one.symmetry_functions, name) for one in (amp, n2p2))
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    assert len(BehlerParrinello(elements=["Si"], functions="amp").symmetry_functions.radial) == 4
    two = BehlerParrinello(elements=["Ru", "O"], functions="amp").symmetry_functions
    assert two.count == 20  # as Amp has for two elements


def test_many_thetas_at_once_are_each_alone() -> None:
    systems = mixed()
    potential = prepared(systems)
    theta = torch.stack([potential.start(seed) for seed in range(3)])
    together = potential.of_theta(systems, stress=True)(theta)
    assert together.stress is not None
    for index, one in enumerate(theta):
        alone = potential.with_theta(one).evaluate(systems, stress=True)
        assert alone.stress is not None
        size = float(alone.force.abs().max())
        torch.testing.assert_close(together.energy[index], alone.energy, rtol=0, atol=1e-11)
        torch.testing.assert_close(together.force[index], alone.force, rtol=0, atol=3e-7 * size)
        torch.testing.assert_close(
            together.stress[index], alone.stress, rtol=0, atol=3e-7 * size, equal_nan=True
        )


def test_forces_are_differentiated_as_often_as_asked() -> None:
    systems = silicon()[0]
    potential = prepared(silicon(), hidden=[3], functions="amp")
    evaluated = potential.of_theta(systems)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        found = evaluated(theta[None])
        return (found.energy**2).sum() + (found.force**3).sum()

    theta = potential.start(1)
    assert torch.autograd.gradcheck(loss, theta.clone().requires_grad_(True), eps=1e-5, atol=1e-4)
    assert torch.autograd.gradgradcheck(loss, theta.clone().requires_grad_(True), eps=1e-5, atol=1e-3)


def test_inputs_are_standardised_and_energies_begin_at_those_of_atoms() -> None:
    systems = mixed()
    data = Dataset(systems, energy=torch.tensor([7.0, 7.0, 7.0], dtype=torch.float64))
    potential = BehlerParrinello(cutoff=4.0).prepared(data)
    functions = potential.symmetry_functions
    kind = functions.kinds(systems)
    scale = torch.tensor(potential.scaling, dtype=torch.float64)[kind]
    x = (compiled_values(functions, systems) - scale[:, 0]) / scale[:, 1]
    for index in range(2):
        own = x[kind == index]
        torch.testing.assert_close(own.mean(0), torch.zeros_like(own[0]), rtol=0, atol=1e-9)
        varied = own.std(0, correction=0) > 1e-9
        torch.testing.assert_close(
            own.std(0, correction=0)[varied], torch.ones_like(own[0])[varied], rtol=0, atol=1e-9
        )
    flat = potential.with_theta(torch.zeros_like(potential.parameters)).evaluate(systems)
    torch.testing.assert_close(flat.energy, data.energy)


def test_a_file_gives_the_potential_back(tmp_path: Path) -> None:
    systems = mixed()
    potential = prepared(systems)
    potential = potential.with_theta(potential.start(5))
    path = str(tmp_path / "bp.safetensors")
    told = ("task_family", "horizon", "estimator", "seeds", "cost", "results", "command")
    potential.save(path, dict.fromkeys(told, "test"))
    again = BehlerParrinello(weights=path)
    assert again.elements == ["Cu", "Au"]
    assert torch.equal(again.evaluate(systems).force, potential.evaluate(systems).force)
    with pytest.raises(ValidationError, match="were trained with hidden: \\[5, 4\\], not \\[6\\]"):
        BehlerParrinello(weights=path, hidden=[6])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radial": [[1.0]]}, r"\[1.0\] is no function: give \[eta, shift\], with eta not negative"),
        ({"angular": [[1.0, 0.5, 1.0]]}, "zeta must be at least 1, and lambda 1 or -1"),
        ({"radial": [], "angular": []}, "neither radial nor angular functions"),
        ({"hidden": [0]}, "each hidden layer has between 1 and 1,000 nodes"),
        ({"elements": ["Xx"]}, "'Xx' is no element"),
        ({"references": [0.0]}, "in the order of `elements`: give these too"),
        ({"elements": ["Si"], "references": [0.0, 1.0]}, "one energy for each of 1 elements"),
        ({"elements": ["Si"], "scaling": [[[0.0], [1.0]]]}, "two rows of 34 numbers for each of 1 elements"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BehlerParrinello(**settings)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="nothing says which species there are"):
        BehlerParrinello().evaluate(silicon())
    potential = prepared(silicon())
    with pytest.raises(InputError, match="has no parameters for O"):
        potential.check(Systems.from_atoms(molecule("O2")))
    broken = silicon()
    broken = broken.with_pos(broken.pos.clone().index_fill(0, torch.tensor([0]), torch.nan))
    found = potential.evaluate(broken)
    assert bool(found.energy[0].isnan()) and bool(found.energy[1].isfinite())
    with pytest.raises(
        InputError, match="structure 0 of the data has a position or a cell that is no number"
    ):
        potential.of_theta(broken)
