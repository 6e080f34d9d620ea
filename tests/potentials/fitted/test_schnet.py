"""SchNet: the contract, torch_geometric's own, cells of every kind, smoothness, files, and what it runs in."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import write
from pydantic import ValidationError

from mlopt.core import Dataset, InputError, Systems, SystemSpec
from mlopt.core.features.graph import Graph
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.testing import PotentialTolerance, check_fittable
from mlopt.optimizers import BasinHopping, Budget, Search
from mlopt.optimizers import Path as PathExperiment
from mlopt.optimizers.experiments.path.experiment import BandSettings
from mlopt.potentials import MloptCalculator, Morse, SchNet, SumPotential
from mlopt.potentials.models.atoms import AtomsModel

#: matrix products round otherwise in batches of other sizes
TOLERANCE = PotentialTolerance(batch=1e-12)
TRAINING = {
    "task_family": "none",
    "horizon": 0,
    "estimator": "none",
    "seeds": 1,
    "cost": {},
    "results": {},
    "command": "none",
}


def small(**settings: Any) -> SchNet:
    return SchNet(
        **{"cutoff": 4.0, "hidden": 8, "filters": 6, "gaussians": 7, "elements": ["Au", "Cu"]} | settings
    )


def cells() -> Systems:
    """A cell smaller than the cutoff, a skewed one, and another of an alloy."""
    images = [bulk("Cu"), bulk("Cu", cubic=True), bulk("Au", a=3.9) * (2, 1, 1)]
    images[1].symbols[1:3] = "Au"
    strain = 0.1 * np.random.default_rng(0).normal(size=(3, 3))
    images[1].set_cell(images[1].cell.array @ (np.eye(3) + strain), scale_atoms=True)
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
    return Systems.from_atoms(images)


def clusters() -> Systems:
    """Free clusters and a slab, of unlike sizes."""
    images = [bulk("Cu", cubic=True), bulk("Cu", cubic=True) * (2, 1, 1), bulk("Au", cubic=True), bulk("Cu")]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
        atoms.set_pbc(False)
    images[1].symbols[::2] = "Au"
    images[2].set_pbc([True, True, False])
    return Systems.from_atoms(images)


@pytest.mark.parametrize("systems", [cells(), clusters()], ids=["cells", "clusters"])
@pytest.mark.parametrize(
    "settings", [{}, {"scale": 2.5, "references": [-1.0, 3.0], "rounds": 1}], ids=["bare", "scaled"]
)
def test_contract(systems: Systems, settings: dict[str, Any]) -> None:
    check_fittable(small(**settings), systems, TOLERANCE)


def test_a_supercell_has_the_energies_and_forces_of_its_cell() -> None:
    potential = small(rounds=3)
    skewed = cells().to_atoms()[1]
    for pbc in (True, [True, False, True]):
        skewed.set_pbc(pbc)
        times = np.where(skewed.pbc, [2, 3, 2], 1)
        both = Systems.from_atoms([skewed, skewed * tuple(int(one) for one in times)])
        found = potential.evaluate(both, stress=pbc is True)
        n, copies = len(skewed), int(times.prod())
        assert found.row_energy is not None
        for values in (found.force, found.row_energy):
            one, many = values[:n], values[n:].reshape(copies, n, *values.shape[1:])
            assert float((many - one).abs().max()) < 1e-10
        assert float(found.force.abs().max()) > 1e-3
        if found.stress is not None:
            assert float((found.stress[1] - found.stress[0]).abs().max()) < 1e-11


def test_it_is_schnet_of_torch_geometric() -> None:
    schnet = pytest.importorskip("torch_geometric.nn.models.schnet")
    ours = small(elements=["H", "C", "O"], hidden=10, rounds=2, cutoff=3.0)

    def pairs(pos: torch.Tensor, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distance = torch.cdist(pos, pos)
        edges = ((distance < 3.0) & ~torch.eye(len(pos), dtype=torch.bool)).nonzero().T
        return edges, (pos[edges[0]] - pos[edges[1]]).norm(dim=-1)

    theirs = schnet.SchNet(10, 6, 2, 7, 3.0, interaction_graph=pairs).double()
    parts = {name: one[0] for name, one in ours.layers.sizes.parts(ours.start(3)[None]).items()}
    with torch.no_grad():
        theirs.embedding.weight[[1, 6, 8]] = parts["embedding"]
        layers: dict[str, torch.nn.Linear] = {"first": theirs.lin1, "energy": theirs.lin2}
        for index, block in enumerate(theirs.interactions):
            layers |= {
                f"{index}.filter0": block.mlp[0],
                f"{index}.filter1": block.mlp[2],
                f"{index}.inner": block.conv.lin1,
                f"{index}.outer": block.conv.lin2,
                f"{index}.last": block.lin,
            }
        for name, layer in layers.items():
            layer.weight.copy_(parts[name])
            if layer.bias is not None:
                layer.bias.copy_(0.1 * torch.arange(len(layer.bias)))
                parts[f"{name}.bias"] = layer.bias.detach().clone()
        # these are kept in float32
        for module in theirs.modules():
            if isinstance(module, schnet.ShiftedSoftplus):
                module.shift = math.log(2.0)
        theirs.distance_expansion.offset = torch.linspace(0.0, 3.0, 7, dtype=torch.float64)
        theirs.distance_expansion.coeff = -0.5 / 0.5**2
    theta = torch.cat([parts[name].flatten() for name in ours.layers.sizes.shapes])
    systems = Systems.from_atoms([molecule("CH3CH2OH")])
    found = ours.with_theta(theta).evaluate(systems)
    pos = systems.pos.clone().requires_grad_(True)
    energy = theirs(systems.z, pos)
    (slope,) = torch.autograd.grad(energy.sum(), pos)
    assert float((found.energy - energy.detach()[:, 0]).abs().max()) < 1e-11
    assert float((found.force + slope).abs().max()) < 1e-11 and float(slope.abs().max()) > 1e-2


def test_energy_and_force_are_continuous_at_the_cutoff() -> None:
    potential = small(cutoff=3.0)
    distance = 3.0 + torch.tensor([-1e-3, -1e-5, 0.0, 1e-5], dtype=torch.float64)
    systems = Systems.cluster([79, 29], 4)
    pos = torch.zeros(8, 3, dtype=torch.float64)
    pos[1::2, 0] = distance
    found = potential.evaluate(systems.with_pos(pos))
    apart = found.energy - found.energy[-1]
    force = found.force.abs().amax(-1)[::2]
    assert float(apart[2].abs()) == 0.0 and float(force[2:].max()) == 0.0
    assert 0 < float(force[0]) < 1e-2 and float(force[1]) < 0.02 * float(
        force[0]
    )  # proportional to what is left
    assert 0 < float(apart[0].abs()) < 1e-5 and float(apart[1].abs()) < 1e-3 * float(apart[0].abs())


def test_a_loss_of_energies_and_forces_has_exact_derivatives_in_theta() -> None:
    potential = small(hidden=3, filters=2, gaussians=3, rounds=1)
    systems = clusters()[0]
    pull = torch.randn(systems.pos.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(theta: torch.Tensor) -> torch.Tensor:
        found = potential.with_theta(theta).evaluate(systems)
        return found.energy.square().sum() + (found.force * pull).sum().square()

    theta = potential.start(1).requires_grad_(True)
    assert torch.autograd.gradcheck(loss, (theta,))
    assert torch.autograd.gradgradcheck(loss, (theta,))


def test_systems_with_equal_parameters_share_them_and_keep_gradients_apart() -> None:
    potential, systems = small(), clusters()
    theta = torch.stack([potential.start(seed) for seed in (0, 1)])
    batch = systems.repeat(2)
    rows = theta.repeat_interleave(len(systems), 0)
    together = potential.with_theta(rows).evaluate(batch)
    each = [potential.with_theta(one).evaluate(systems) for one in theta]
    assert torch.allclose(together.energy, torch.cat([one.energy for one in each]), rtol=0, atol=1e-12)
    assert torch.allclose(together.force, torch.cat([one.force for one in each]), rtol=0, atol=1e-12)
    own = rows.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(potential.with_theta(own).evaluate(batch).energy.sum(), own)
    assert bool((slope.abs().amax(1) > 0).all())  # no row's gradient went to its like
    for index in (0, 3, 6):
        alone = rows[index].clone().requires_grad_(True)
        part = potential.with_theta(alone).evaluate(batch[index]).energy.sum()
        assert torch.allclose(torch.autograd.grad(part, alone)[0], slope[index], rtol=1e-9, atol=1e-12)


def test_several_networks_at_once_are_each_alone() -> None:
    potential, systems = small(), cells()
    theta = torch.stack([potential.start(seed) for seed in (0, 1, 1)]).requires_grad_(True)
    found = potential.of_theta(systems, stress=True)(theta)
    wanted = FittablePotential.of_theta(potential, systems, stress=True)(theta)
    assert found.stress is not None and wanted.stress is not None
    for mine, theirs in zip(vars(found).values(), vars(wanted).values(), strict=True):
        assert mine.shape == theirs.shape and torch.allclose(mine, theirs, rtol=0, atol=1e-12)
    slopes = [torch.autograd.grad(one.force.square().sum(), theta)[0] for one in (found, wanted)]
    assert torch.allclose(*slopes, rtol=1e-9, atol=1e-12) and bool((slopes[0].abs().amax(1) > 0).all())


def test_a_fit_searches_neighbours_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each number of networks; what the first theta finds is there for the next ones."""
    searched, within = [], Graph.within

    def counted(systems: Systems, reach: float) -> Graph:
        searched.append(len(systems))
        return within(systems, reach)

    monkeypatch.setattr(Graph, "within", staticmethod(counted))
    potential, systems = small(), cells()
    evaluated = potential.of_theta(systems, stress=True)
    theta = torch.stack([potential.start(seed) for seed in range(2)])
    first, _, again = evaluated(theta), evaluated(theta[:1]), evaluated(2.0 * theta)
    assert searched == [2 * len(systems), len(systems)]
    assert not torch.equal(again.energy, first.energy) and not first.force.requires_grad
    wanted = potential.with_theta(2.0 * theta[1]).evaluate(systems, stress=True)
    assert wanted.stress is not None and again.stress is not None
    for mine, theirs in ((again.force, wanted.force), (again.stress, wanted.stress)):
        torch.testing.assert_close(mine[1], theirs, rtol=0, atol=1e-12)


def test_data_give_species_references_and_scale() -> None:
    systems = cells()
    counts = torch.tensor([[0.0, 1.0], [2.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    force = 0.7 * torch.ones_like(systems.pos)
    data = Dataset(systems, counts @ torch.tensor([-3.0, -2.0], dtype=torch.float64), force)
    found = SchNet().prepared(data)
    assert found.elements == ["Cu", "Au"]
    assert found.references == pytest.approx([-2.0, -3.0]) and found.scale == pytest.approx(0.7)
    kept = small(scale=2.0, references=[1.0, 2.0]).prepared(data)
    assert kept.scale == 2.0 and kept.references == [1.0, 2.0] and kept.elements == ["Au", "Cu"]
    assert SchNet().prepared(Dataset(systems, data.energy)).scale == 1.0
    assert torch.equal(found.parameters, found.start(0)) and not torch.equal(found.start(0), found.start(1))


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    potential = small(scale=2.0, references=[1.0, 2.0])
    potential = potential.with_theta(potential.start(4))
    file = str(tmp_path / "potential.safetensors")
    potential.save(file, TRAINING)
    again, systems = SchNet(weights=file), clusters()
    assert torch.equal(again.evaluate(systems).force, potential.evaluate(systems).force)
    assert again.hidden == 8 and again.elements == ["Au", "Cu"]
    with pytest.raises(ValidationError, match="were trained with hidden: 8, not 16; leave it out"):
        SchNet(weights=file, hidden=16)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"elements": ["Xx"]}, "'Xx' is no element; write symbols such as Si"),
        ({"elements": ["Cu", "Cu"]}, "each element is named once"),
        (
            {"elements": ["Cu"], "references": [1.0, 2.0]},
            "one energy for each of the `elements`, in their order",
        ),
        ({"gaussians": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        SchNet(**settings)


def test_unknown_species_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"schnet: nothing says which species there are; fit the potential to data"
    ):
        SchNet().evaluate(clusters())
    with pytest.raises(InputError, match=r"SchNet has no parameters for Cu; it knows Au\."):
        small(elements=["Au"]).check(clusters())


def held_apart() -> SumPotential:
    """A network that was never fitted, and pair energies that keep atoms apart."""
    return SumPotential(terms=[small(elements=["Cu"], scale=0.02), Morse(epsilon=0.4, rho0=5.0, r0=2.5)])


def test_a_search_finds_minima_of_it() -> None:
    found = Search(
        system=SystemSpec(cluster="Cu5"),
        potential=held_apart(),
        optimizer=BasinHopping(),
        starts=2,
        budget=Budget(force_calls=150),
    ).run()
    alone = found.minima[0]
    pure = Search(
        system=SystemSpec(cluster="Cu5"),
        potential=held_apart().terms[1],
        optimizer=BasinHopping(),
        starts=2,
        budget=Budget(force_calls=150),
    ).run()
    assert abs(alone.energy - pure.minima[0].energy) > 1e-3  # the network has a say


def test_a_path_leads_over_a_barrier_of_it(tmp_path: Path) -> None:
    row = Atoms("Cu6", [[2.5 * i, 2.5 * j, 0.0] for i in range(3) for j in range(2)])
    row.set_constraint(FixAtoms(indices=range(6)))
    for name, x in (("left", 1.25), ("right", 3.75)):
        atoms = row + Atoms("Cu", [[x, 1.25, 1.8]])
        atoms.set_constraint(FixAtoms(indices=range(6)))
        write(tmp_path / f"{name}.extxyz", atoms)
    found = PathExperiment(
        model=AtomsModel(system=SystemSpec(file=str(tmp_path / "left.extxyz")), potential=held_apart()),
        initial={"file": str(tmp_path / "left.extxyz")},
        final={"file": str(tmp_path / "right.extxyz")},
        band=BandSettings(images=5),
        fmax=1e-3,
    ).run()
    assert found.converged and found.negative_modes == 1
    assert 0.05 < found.barrier_forward < 2.0
    assert found.barrier_forward == pytest.approx(found.barrier_reverse, abs=1e-4)


def test_ase_is_told_the_energy_of_each_atom() -> None:
    one = clusters()[0]
    atoms = one.to_atoms()[0]
    atoms.calc = MloptCalculator(small())
    wanted = small().evaluate(one)
    assert atoms.get_potential_energy() == pytest.approx(float(wanted.energy), abs=1e-12)
    assert np.abs(atoms.get_forces() - wanted.force.numpy()).max() < 1e-12
    assert wanted.row_energy is not None
    assert np.abs(atoms.get_potential_energies() - wanted.row_energy.numpy()).max() < 1e-12


def test_large_references_keep_their_digits() -> None:
    """Total energies of electrons are thousands of eV an atom, of which float32 would lose the fourth digit."""
    systems = cells()
    plain, far = small(references=[0.0, 0.0]), small(references=[-7000.123456789, -1234.567890123])
    counts = torch.stack([systems.segments.sum((systems.z == z).double()[:, None]) for z in (79, 29)], 1)
    wanted = counts @ torch.tensor(far.references, dtype=torch.float64)
    found = far.evaluate(systems).energy - plain.evaluate(systems).energy
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)
