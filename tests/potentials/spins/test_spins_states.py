"""Lattices, states and what is measured on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from pydantic import ValidationError

from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.plugins import plugin
from mlopt.potentials.spins import (
    DomainWall,
    Ferromagnet,
    GivenSpins,
    Heisenberg,
    RandomSpins,
    Skyrmion,
    SpinLattice,
    magnetization,
    make_state,
    random_spins,
    topological_charge,
    write_spins,
)

SQUARE = SpinLattice(kind="square", repeat=[16, 12], periodic=True)


def neighbours(lattice: SpinLattice, shells: int) -> list[float]:
    """Bonds of each shell, counted from both ends, per spin."""
    found = lattice.bonds(shells)
    bond, _, _ = lattice.pairs(found.first, found.second, found.translation)
    return [2 * float((found.shell[bond] == shell).sum()) / lattice.n_spins for shell in range(found.count)]


@pytest.mark.parametrize(
    "lattice, numbers",
    [
        (SpinLattice(kind="chain", repeat=5, periodic=True), [2, 2, 2]),
        (SpinLattice(kind="square", repeat=[5, 6], periodic=True), [4, 4, 4, 8, 4, 4, 8]),
        (SpinLattice(kind="hexagonal", repeat=[5, 6], periodic=True, spacing=3.3), [6, 6, 6, 12, 6]),
        (SpinLattice(kind="cubic", repeat=[3, 4, 5], periodic=True), [6, 12, 8, 6, 24, 24]),
        # one layer of a cubic lattice, periodic in the plane, has the shells of a square one
        (SpinLattice(kind="cubic", repeat=[5, 6, 1], periodic=[True, True, False]), [4, 4, 4, 8]),
        (SpinLattice.from_atoms(bulk("Fe"), repeat=(2, 2, 3)), [8, 6, 12, 24, 8]),
        (SpinLattice.from_atoms(bulk("Fe", cubic=True), repeat=(2, 2, 3)), [8, 6, 12, 24, 8]),
        (SpinLattice.from_atoms(bulk("Ni", cubic=True)), [12, 6, 24, 12]),
        # open ends: 4 bonds of 5 spins, 3 of the second neighbours
        (SpinLattice(kind="chain", repeat=5), [8 / 5, 6 / 5, 4 / 5, 2 / 5]),
    ],
)
def test_shells(lattice: SpinLattice, numbers: list[float]) -> None:
    assert neighbours(lattice, len(numbers)) == pytest.approx(numbers)


def test_sites_are_numbered_as_in_spirit() -> None:
    lattice = SpinLattice(
        cell=[[1, 0, 0], [0, 2, 0], [0, 0, 3]],
        basis=[[0, 0, 0], [0.5, 0, 0]],
        repeat=[2, 3, 2],
        vacant=[1, 4],
    )
    assert (lattice.n_sites, lattice.n_spins, lattice.shape) == (24, 22, (2, 3, 2))
    assert lattice.site_positions[[0, 1, 2, 4, 12]].tolist() == [
        [0, 0, 0],
        [0.5, 0, 0],
        [1, 0, 0],
        [0, 2, 0],
        [0, 0, 3],
    ]
    assert lattice.sites[:4].tolist() == [0, 2, 3, 5]
    assert lattice.positions[3].tolist() == [0.5, 2, 0]
    assert lattice.label(3) == "site 5 (cell 0, 1, 0; atom 1)"


def test_masks_of_sites() -> None:
    lattice = SpinLattice(kind="square", repeat=[4, 3])
    left = lattice.positions[:, 0] < 1
    pinned = SpinLattice(kind="square", repeat=[4, 3], pinned=left, vacant=[3])
    assert np.flatnonzero(pinned.pinned_rows).tolist() == [0, 3, 7]  # sites 0, 4 and 8
    edges = SpinLattice(
        kind="square", repeat=[4, 3], periodic=[False, True], pin_edges=True, pinned=torch.tensor([1])
    )
    assert np.flatnonzero(edges.pinned_rows).tolist() == [0, 1, 3, 4, 7, 8, 11]
    assert not SpinLattice(
        kind="square", repeat=[4, 1], periodic=[True, False], pin_edges=True
    ).pinned_rows.any()


def test_moments_of_a_basis_and_of_sites() -> None:
    cell = {"cell": np.eye(3), "basis": [[0, 0, 0], [0.5, 0, 0]], "repeat": 2}
    assert SpinLattice(**cell, moments=2).spin_moments.tolist() == [2, 2, 2, 2]
    assert SpinLattice(**cell, moments=[1, 2], vacant=[0]).spin_moments.tolist() == [2, 1, 2]
    assert SpinLattice(**cell, moments=[1, 2, 3, 4], vacant=[0]).spin_moments.tolist() == [2, 3, 4]
    lattice = SpinLattice(kind="chain", repeat=2, moments=[1, 3])
    x = torch.tensor([[0, 0, 1.0], [1, 0, 0], [0, 0, 1], [0, 0, 1]], dtype=torch.float64)
    assert magnetization(lattice, x).tolist() == [[0.75, 0, 0.25], [0, 0, 1]]


def test_lattices_of_ase() -> None:
    slab = fcc111("Ni", (2, 3, 2), vacuum=4.0)
    slab.set_initial_magnetic_moments([0.6] * 11 + [0.0])
    lattice = SpinLattice.from_atoms(slab, pinned=[0])
    assert lattice.n_spins == 11 and lattice.pbc == (True, True, False)
    assert lattice.spin_moments.tolist() == [0.6] * 11 and lattice.pinned_rows.sum() == 1
    np.testing.assert_allclose(lattice.positions, slab.positions[:11], atol=1e-12)
    alloy = bulk("NiFe", "rocksalt", a=4.0)
    alloy.set_initial_magnetic_moments([[0, 0, -0.6], [0, 3, 4]])
    assert SpinLattice.from_atoms(alloy).spin_moments.tolist() == [0.6, 5.0]
    iron = SpinLattice.from_atoms(alloy, species="Fe", repeat=[3, 3, 3])
    assert iron.n_spins == 27 and neighbours(iron, 1) == [12] and iron.spin_moments[0] == 5.0
    dimer = SpinLattice.from_atoms(Atoms("Fe2", [[0, 0, 0], [0, 0, 2.0]]))
    assert neighbours(dimer, 1) == [1] and dimer.positions[1].tolist() == [0, 0, 2]
    with pytest.raises(InputError, match=r"no atom is of \['Co'\]; there are: Fe, Ni"):
        SpinLattice.from_atoms(alloy, species="Co")
    alloy.set_initial_magnetic_moments([[float("nan"), 0, 0], [1.0, 0, 0]])
    with pytest.raises(InputError, match=r"an initial magnetic moment is not finite; correct it"):
        SpinLattice.from_atoms(alloy)


CHAIN = {"kind": "chain", "repeat": [3]}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kind": "hex", "repeat": 3}, r"kind: input should be 'chain', 'square'.* \(got 'hex'\)"),
        ({"kind": "chain"}, r"repeat: this setting is required"),
        ({"kind": "chain", "repeat": 0}, r"repeat: 0 cells along direction 0; at least 1"),
        (
            {"kind": "chain", "repeat": [1, 1, 1, 1]},
            r"repeat: one to three numbers of cells are needed, got 4",
        ),
        (
            {"kind": "chain", "repeat": [3, 2]},
            r"repeat: a chain lattice repeats along 1 direction.*choose another kind",
        ),
        ({"kind": "cubic", "repeat": [1000, 1000, 1000]}, r"repeat: 1,000,000,000 sites are more than"),
        (CHAIN | {"periodic": [True, True]}, r"periodic: a chain lattice has 1 direction"),
        (CHAIN | {"periodic": "x"}, r"periodic: should be true or false, or a list of them"),
        (CHAIN | {"spacing": 0.0}, r"spacing: input should be greater than 0"),
        (
            {"kind": "given", "repeat": 1},
            r"cell: belongs to kind `given`, which needs one; give both or neither",
        ),
        (CHAIN | {"cell": np.eye(3)}, r"cell: belongs to kind `given`"),
        (
            {"cell": [[1, 0, 0], [2, 0, 0], [0, 0, 1]], "repeat": 1},
            r"cell: three vectors are needed that do not lie",
        ),
        ({"cell": [[1, 0, 0], [0, 1, 0]], "repeat": 1}, r"cell: three vectors are needed"),
        ({"cell": [[1, 0], [0, 1]], "repeat": 1}, r"cell\.0: list should have at least 3 items"),
        (CHAIN | {"basis": []}, r"basis: there is no atom in it; give at least one"),
        (CHAIN | {"moments": [1, 2]}, r"moments: 2 numbers; give 1, or 1 for the basis, or 3 for the sites"),
        (CHAIN | {"moments": [1, 0.0, 1]}, r"moments: number 1 is 0\.0; moments are positive"),
        (CHAIN | {"vacant": [3]}, r"vacant: there is no number 3; sites are numbered 0 to 2"),
        (CHAIN | {"vacant": [1, 1]}, r"vacant: 1 stands there twice; give it once"),
        (CHAIN | {"vacant": [True]}, r"vacant: 1 flags for 3 sites; give one for each"),
        (CHAIN | {"vacant": [0, 1, 2]}, r"vacant: every site is vacant; leave at least one spin"),
        (
            CHAIN | {"vacant": [1, True]},
            r"vacant: should be a list of the sites' numbers, or of a flag for each",
        ),
        (
            CHAIN | {"vacant": [1], "pinned": [1]},
            r"pinned: site 1 is vacant, so it cannot be pinned; remove it",
        ),
        (CHAIN | {"pined": [1]}, r"unknown key 'pined' in the top level\. Did you mean 'pinned'\?"),
    ],
)
def test_bad_lattices(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plugin.build(SpinLattice, settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, r"lattice: this setting is required"),
        (
            {"lattice": CHAIN, "exchange": [1, 2, 3]},
            r"exchange: 3 shells of neighbours, but the lattice has 2; shorten",
        ),
        (
            {"lattice": CHAIN, "exchange": 1, "dmi": [1, 2, 3]},
            r"dmi: 3 shells of neighbours, but the lattice has 2",
        ),
        ({"lattice": CHAIN, "exchange": ["x"]}, r"exchange\.0: input should be a valid number \(got 'x'\)"),
        ({"lattice": CHAIN, "field": [0, 1]}, r"field: list should have at least 3 items"),
        ({"lattice": CHAIN, "field": [0, 1, math.inf]}, r"field\.2: input should be a finite number"),
        (
            {"lattice": CHAIN, "anisotropy": [{"axis": [0, 0, 0], "k": 1}]},
            r"anisotropy\.0\.axis: should be a direction",
        ),
        (
            {"lattice": CHAIN, "anisotropy": [{"axs": [0, 0, 1]}]},
            r"anisotropy\.0: unknown key 'axs' .*mean 'axis'\?",
        ),
        (
            {"lattice": CHAIN, "anisotropy": [{"axis": [0, 0, 1], "k": 1, "sites": [5]}]},
            r"anisotropy\.0\.sites: there is no number 5; sites are numbered 0 to 2",
        ),
        ({"lattice": CHAIN, "pairs": [{"j": 1}]}, r"pairs\.0: joins 0 and 1; atoms of the basis are 0 to 0"),
        (
            {"lattice": CHAIN, "pairs": [{"exchange": 1}]},
            r"pairs\.0: joins an atom to itself; give a translation",
        ),
        (
            {"lattice": CHAIN, "pairs": [{"translation": [1, 0, 0]}, {"translation": [-1, 0, 0]}]},
            r"pairs: 0 and 1 are the same bond; give it once",
        ),
        (
            {"lattice": CHAIN, "dmi": 1.0, "dmi_kind": "interfacial", "dmi_normal": [1, 0, 0]},
            r"dmi_normal: lies along a bond",
        ),
        (
            {"lattice": {"cell": np.eye(3), "basis": np.zeros((2, 3)), "repeat": 2}, "exchange": 1},
            r"atoms 0 and 1 of the",
        ),
    ],
)
def test_bad_interactions(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plugin.build(Heisenberg, settings)


def test_large_cells_are_asked_for_pairs() -> None:
    big = SpinLattice(
        cell=100 * np.eye(3), basis=np.random.default_rng(0).random((1000, 3)), repeat=1, periodic=True
    )
    assert Heisenberg(lattice=big).landscape().n_spins == 1000
    with pytest.raises(
        ValidationError, match=r"27,000,000 pairs to look at: ask for fewer.*give the bonds themselves"
    ):
        Heisenberg(lattice=big, exchange=1.0)


def test_configurations_are_complete() -> None:
    settings = {
        "lattice": {"kind": "square", "repeat": (4, 4), "periodic": True},
        "exchange": 1,
        "anisotropy": [{"axis": (0, 0, 1), "k": 0.1}],
        "pairs": [{"translation": np.array([2, 1, 0]), "exchange": 0.3}],
    }
    made = plugin.build(Heisenberg, settings)
    assert made.config()["exchange"] == [1.0] and made.config()["anisotropy"][0]["sites"] is None
    assert plugin.build(Heisenberg, made.config()) == made


def test_ferromagnet_and_random() -> None:
    x = Ferromagnet(direction=[0, 3, 4]).spins(SQUARE)
    assert x.shape == (192, 3) and x[7].tolist() == pytest.approx([0, 0.6, 0.8])
    assert Ferromagnet().spins(SQUARE, dtype=torch.float32).dtype == torch.float32
    one, other = RandomSpins(seed=1).spins(SQUARE), RandomSpins(seed=2).spins(SQUARE)
    assert not torch.equal(one, other) and torch.equal(one, RandomSpins(seed=1).spins(SQUARE))
    assert float((torch.linalg.vector_norm(one, dim=-1) - 1).abs().max()) < 1e-15
    batch = random_spins(Segments.uniform(5, 192), problem_keys(0, torch.arange(5)))
    assert torch.equal(
        batch[384:576], random_spins(Segments.uniform(1, 192), problem_keys(0, torch.tensor([2])))
    )
    many = random_spins(Segments.uniform(1, 100_000), problem_keys(0, torch.arange(1)))
    assert float(many.mean(0).abs().max()) < 0.01
    assert float((many.T @ many / 1e5 - torch.eye(3) / 3).abs().max()) < 0.01


def test_domain_wall_states() -> None:
    chain = SpinLattice(kind="chain", repeat=41)
    x = DomainWall(width=2.0, position=18.0).spins(chain)
    r = torch.arange(41, dtype=torch.float64)
    torch.testing.assert_close(x[:, 2], -torch.tanh((r - 18.0) / 2.0), rtol=0, atol=1e-14)
    assert x[18].tolist() == pytest.approx([0, -1, 0])  # Bloch: across the way
    assert DomainWall(width=2.0, through=[5, 0, 1]).spins(chain)[20].tolist() == pytest.approx([1, 0, 0])
    along = DomainWall(width=2.0, direction=[1, 0, 0]).spins(chain)
    assert float(along[20, 0]) == pytest.approx(0) and float(along[0, 0]) == pytest.approx(1)
    with pytest.raises(
        InputError, match=r"domain-wall: `through` lies along `direction`; choose one across it"
    ):
        DomainWall(width=2.0, through=[0, 0, 2]).spins(chain)


def test_skyrmion_states() -> None:
    x = Skyrmion(radius=3.0, center=[5.0, 4.0], helicity=0).spins(SQUARE).reshape(12, 16, 3)
    assert x[4, 5].tolist() == pytest.approx([0, 0, -1]) and float(x[4, 13, 2]) > 0.97
    assert x[4, 8].tolist() == pytest.approx([1, 0, 0])  # Neel: away from the centre
    assert x[7, 5].tolist() == pytest.approx([0, 1, 0])
    bloch = Skyrmion(radius=3.0, center=[5.0, 4.0], helicity=90, core="up").spins(SQUARE).reshape(12, 16, 3)
    assert bloch[4, 8].tolist() == pytest.approx([0, 1, 0]) and float(bloch[4, 5, 2]) == pytest.approx(1)
    # around the edges of a periodic lattice, however far away the centre is said to be
    for center, shift in (([15.0, 4.0], 10), ([5.0 + 10 - 160, 4.0 + 120], 10)):
        moved = Skyrmion(radius=3.0, center=center, helicity=0).spins(SQUARE).reshape(12, 16, 3)
        torch.testing.assert_close(moved, x.roll(shift, 1), rtol=0, atol=1e-12)
    narrow = Skyrmion(radius=3.0, center=[5.0, 4.0], width=1e-3).spins(SQUARE).reshape(12, 16, 3)
    assert float(narrow[4, 7, 2]) == -1.0 and float(narrow[4, 9, 2]) == 1.0
    with pytest.raises(
        InputError, match=r"a radius of 6 does not fit into a lattice that repeats every 12; make"
    ):
        Skyrmion(radius=6).spins(SQUARE)


@pytest.mark.parametrize(
    "lattice",
    [
        SQUARE,
        SpinLattice(kind="hexagonal", repeat=[14, 15], periodic=True),
        SpinLattice(kind="cubic", repeat=[24, 24, 1]),
        SpinLattice(
            cell=[[1, 0, 0], [0, -1, 0], [0, 0, 1]], repeat=[14, 14, 1], periodic=[True, True, False]
        ),
    ],
    ids=["square", "hexagonal", "open", "left-handed"],
)
def test_topological_charge(lattice: SpinLattice) -> None:
    def charge(**settings: Any) -> float:
        return float(topological_charge(lattice, Skyrmion(radius=3.0, **settings).spins(lattice)))

    tolerance = 2e-3 if not any(lattice.pbc) else 1e-12  # at open edges the spins are not quite up
    for helicity in (0, 77, 180):
        assert charge(helicity=helicity) == pytest.approx(-1, abs=tolerance)
    assert charge(core="up") == pytest.approx(1, abs=tolerance)
    assert charge(vorticity=-1) == pytest.approx(1, abs=tolerance)
    assert charge(vorticity=2) == pytest.approx(-2, abs=10 * tolerance)
    both = torch.cat([Ferromagnet(direction=[1, 1, 1]).spins(lattice), Skyrmion(radius=3.0).spins(lattice)])
    assert topological_charge(lattice, both).tolist() == pytest.approx([0, -1], abs=tolerance)


def test_what_observables_refuse() -> None:
    layers = SpinLattice(kind="cubic", repeat=[3, 3, 2])
    with pytest.raises(
        InputError, match=r"needs one layer with one atom a cell, got 1 atoms a cell and 2 layers"
    ):
        topological_charge(layers, Ferromagnet().spins(layers))
    with pytest.raises(
        InputError, match=r"`x` must have shape \(n_problems \* 18, 3\) to fit the lattice, got \(9, 3\)"
    ):
        magnetization(layers, torch.ones(9, 3))


def test_states_by_their_settings(tmp_path: Path) -> None:
    chain = SpinLattice(kind="chain", repeat=3, vacant=[0])
    assert make_state({"kind": "skyrmion", "radius": 4}) == Skyrmion(radius=4)
    assert make_state("random") == RandomSpins() and make_state(Ferromagnet()) == Ferromagnet()
    values = [[0, 0, 2.0], [3, 0, 0]]
    for given in (values, np.array(values), torch.tensor(values), {"kind": "given", "values": values}):
        assert make_state(given).spins(chain).tolist() == [[0, 0, 1], [1, 0, 0]]
    write_spins(tmp_path / "a.ovf", torch.tensor([values, values[::-1]]), chain)
    assert make_state(str(tmp_path / "a.ovf")).spins(chain).tolist() == [[1, 0, 0], [0, 0, 1]]
    first = {"kind": "given", "file": str(tmp_path / "a.ovf"), "index": 0}
    assert make_state(first).spins(chain).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(
        InputError, match=r"a\.ovf: has 2 configurations, so there is no number 2; use 0 to 1"
    ):
        make_state(first | {"index": 2}).spins(chain)


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"radius": 3}, r"start: a state of spins needs a `kind`, one of ferromagnet, .*; got None"),
        ({"kind": "vortex"}, r"start: a state of spins needs a `kind`, one of .*; got 'vortex'"),
        (
            {"kind": "skyrmion", "raduis": 3},
            r"start: radius: this setting is required\n.*unknown key 'raduis'.*Did you mean 'radius'\?",
        ),
        ({"kind": "skyrmion", "radius": -3.0}, r"start: radius: input should be greater than 0"),
        ({"kind": "domain-wall"}, r"start: width: this setting is required"),
        ({"kind": "given"}, r"start: GivenSpins: give either a `file` or `values`"),
        ([[0, 0]], r"start: values\.0: list should have at least 3 items"),
        (7, r"start: a state of spins is settings with a `kind`, the name of a file, or vectors; got int"),
    ],
)
def test_bad_states(spec: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_state(spec, "start")


def test_bad_vectors() -> None:
    chain = SpinLattice(kind="chain", repeat=3, vacant=[0])
    with pytest.raises(InputError, match=r"values: 2 vectors of 3 components are needed.*got shape \(1, 3\)"):
        GivenSpins(values=[[1, 0, 0]]).spins(chain)
    with pytest.raises(
        InputError, match=r"values: site 2 \(cell 2, 0, 0\) has the length zero.*declare the site vacant"
    ):
        GivenSpins(values=[[1, 0, 0], [0, 0, 0]]).spins(chain)
    assert GivenSpins(values=[[1e-200, 0, 0], [0, 1e200, 1e200]]).spins(chain)[0, 0] == 1.0
