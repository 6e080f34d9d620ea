"""Spins as a landscape: its properties on every kind of lattice, and the Hamiltonian written out term by term."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlopt.core import minimize
from mlopt.core.batch.random import problem_keys
from mlopt.core.errors import InputError
from mlopt.optimizers import LBFGS
from mlopt.potentials.spins import (
    MU_B,
    Anisotropy,
    Ferromagnet,
    Heisenberg,
    SpinLandscape,
    SpinLattice,
    SpinPair,
    random_spins,
)

EVERYTHING: dict[str, Any] = {
    "anisotropy": [Anisotropy(axis=[0, 0, 1], k=0.7), Anisotropy(axis=[1, 1, 0.5], k=-0.4, sites=[0, 2, 3])],
    "field": [1.0, -2.0, 3.0],
    "field_energy": [0.1, 0.0, 0.2],
}
SYSTEMS = {
    "chain": Heisenberg(lattice=SpinLattice(kind="chain", repeat=6), exchange=[1.0, -0.3], **EVERYTHING),
    "square": Heisenberg(
        lattice=SpinLattice(
            kind="square",
            repeat=[5, 4],
            periodic=True,
            vacant=[7],
            pinned=[0, 3],
            moments=np.linspace(1, 2, 20),
        ),
        exchange=[1.0, 0.2],
        dmi=[0.5],
        **EVERYTHING,
    ),
    "hexagonal": Heisenberg(
        lattice=SpinLattice(kind="hexagonal", repeat=[4, 5], periodic=[False, True], spacing=2.7),
        exchange=[1.0],
        dmi=[0.5, -0.2],
        dmi_kind="interfacial",
        **EVERYTHING,
    ),
    "cubic": Heisenberg(
        lattice=SpinLattice(kind="cubic", repeat=[3, 4, 3], periodic=[True, True, False]),
        exchange=[1.0, 0.5, 0.25],
        dmi=[0.3, 0.2],
        **EVERYTHING,
    ),
    "iron": Heisenberg(
        lattice=SpinLattice.from_atoms(bulk("Fe", cubic=True), repeat=(2, 3, 2), vacant=[5]),
        exchange=[10.0, 5.0, -1.0],
        dmi=[0.0, 1.5],
        dmi_kind="interfacial",
        dmi_normal=[1, 1, 1],
        **EVERYTHING,
    ),
    "two cells": Heisenberg(  # several bonds join the same spins, and a spin is its own neighbour
        lattice=SpinLattice(kind="square", repeat=[2, 1], periodic=True), exchange=[1.0, 0.2], dmi=[0.5]
    ),
    "one spin": Heisenberg(
        lattice=SpinLattice(kind="chain", repeat=1), anisotropy=[Anisotropy(axis=[1, 0, 0], k=1.0)]
    ),
    "field alone": Heisenberg(lattice=SpinLattice(kind="chain", repeat=3), field=[0, 0, 1.0]),
}
every_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS.keys())


def points(system: Heisenberg, n: int = 1, seed: int = 0) -> torch.Tensor:
    """Random spins of n problems."""
    segments = system.landscape(n).segments
    return random_spins(segments, problem_keys(seed, torch.arange(n)))


def tangents(system: Heisenberg, x: torch.Tensor, seed: int = 1) -> torch.Tensor:
    v = system.landscape(len(x) // system.lattice.n_spins).manifold.project(
        x, torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    )
    rows = torch.from_numpy(system.lattice.pinned_rows).repeat(len(x) // system.lattice.n_spins)
    return v.masked_fill(rows[:, None], 0.0)


def plain(system: Heisenberg, x: np.ndarray) -> float:
    """The sums of the docstring over sites and images of the supercell, each bond from both ends and halved."""
    lattice = system.lattice
    r, box = lattice.positions, np.array(lattice.shape)[:, None] * lattice.vectors
    spans = [range(-2, 3) if flag else [0] for flag in lattice.pbc]
    steps = [np.array(step) @ box for step in itertools.product(*spans)]
    everywhere = lattice.site_positions
    lengths = [np.linalg.norm(everywhere[:1] + step - everywhere[:, None], axis=-1).ravel() for step in steps]
    shells: list[float] = []
    for length in np.unique(np.concatenate(lengths).round(6)):
        if length > 1e-3 and (not shells or length > shells[-1] + 1e-3):
            shells.append(float(length))
    total = 0.0
    for step in steps:
        bonds = r + step - r[:, None]  # (from i, to j, 3)
        for shell, length in enumerate(shells[: max(len(system.exchange), len(system.dmi))]):
            for i, j in np.argwhere(abs(np.linalg.norm(bonds, axis=-1) - length) < 1e-3):
                if shell < len(system.exchange):
                    total -= 0.5 * system.exchange[shell] * x[i] @ x[j]
                if shell < len(system.dmi) and system.dmi[shell]:
                    bond = bonds[i, j]
                    across = bond if system.dmi_kind == "bulk" else np.cross(system.dmi_normal, bond)
                    d = system.dmi[shell] * across / np.linalg.norm(across)
                    total -= 0.5 * d @ np.cross(x[i], x[j])
    for row, site in enumerate(lattice.sites):
        for one in system.anisotropy:
            if one.sites is None or site in one.sites:
                total -= one.k * (x[row] @ np.array(one.axis) / np.linalg.norm(one.axis)) ** 2
        total -= lattice.spin_moments[row] * MU_B * np.array(system.field) @ x[row]
        total -= np.array(system.field_energy) @ x[row]
    return total


@every_system
def test_energy_is_the_hamiltonian_written_out(system: Heisenberg) -> None:
    x = points(system)
    found = system.landscape().evaluate(x)
    assert float(found.energy) == pytest.approx(plain(system, x.numpy()), abs=1e-11)
    assert found.row_energy is not None
    assert float(found.row_energy.sum()) == pytest.approx(float(found.energy), abs=1e-11)


@every_system
def test_force_is_minus_the_projected_gradient(system: Heisenberg) -> None:
    landscape, x = system.landscape(3), points(system, 3)
    point = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(landscape.evaluate(point).energy.sum(), point)
    torch.testing.assert_close(landscape.gradient(x), gradient, rtol=0, atol=1e-12)
    expected = landscape.manifold.project(x, -gradient)
    if landscape.fixed is not None:
        assert int(landscape.fixed.sum()) == 6
        expected = expected.masked_fill(landscape.fixed[:, None], 0.0)
    found = landscape.evaluate(x)
    torch.testing.assert_close(found.force, expected, rtol=0, atol=1e-12)
    assert float(found.force.abs().max()) > 1e-3 and not found.force.requires_grad
    assert float((found.force * x).sum(-1).abs().max()) < 1e-13


@every_system
def test_evaluations_can_be_differentiated_again(system: Heisenberg) -> None:
    """Bands and meta-learning differentiate through forces, and through their derivatives."""
    landscape, x, v = system.landscape(1), points(system), tangents(system, points(system))

    def force(point: torch.Tensor) -> torch.Tensor:
        return landscape.evaluate(point).force

    def product(point: torch.Tensor) -> torch.Tensor:
        return landscape.hessian_product(point, v)

    for function in (force, product):
        _, change = torch.autograd.functional.jvp(function, x, v)
        step = 1e-6
        difference = (function(x + step * v) - function(x - step * v)) / (2 * step)
        torch.testing.assert_close(change, difference, rtol=0, atol=1e-7)
    # the derivative of the force in space, projected, is minus the Riemannian Hessian
    change = torch.autograd.functional.jvp(force, x, v)[1]
    torch.testing.assert_close(
        landscape.hessian_product(x, v), -tangent(landscape, x, change), rtol=0, atol=1e-11
    )


def tangent(landscape: SpinLandscape, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    found = landscape.manifold.project(x, v)
    return found if landscape.fixed is None else found.masked_fill(landscape.fixed[:, None], 0.0)


@every_system
def test_hessian_is_the_curvature_along_geodesics(system: Heisenberg) -> None:
    landscape, x = system.landscape(2), points(system, 2)
    v = tangents(system, x)
    length = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    unit = v / length.clamp(min=1e-300)

    def energy(t: torch.Tensor) -> torch.Tensor:
        return landscape.evaluate(x * torch.cos(t * length) + unit * torch.sin(t * length)).energy.sum()

    curvature = torch.autograd.functional.hessian(energy, torch.tensor(0.0, dtype=torch.float64))
    found = landscape.hessian_product(x, v)
    assert landscape.hessian_calls == 1
    assert float((v * found).sum()) == pytest.approx(float(curvature), abs=1e-10)
    # symmetric, blind to what is not tangent, and the same for several vectors at once
    w = tangents(system, x, seed=5)
    assert float((w * found).sum()) == pytest.approx(
        float((v * landscape.hessian_product(x, w)).sum()), abs=1e-10
    )
    both = landscape.hessian_product(x, torch.stack([v + 3.0 * x, w]))
    torch.testing.assert_close(both[0], found, rtol=0, atol=1e-11)
    assert torch.equal(both[1], landscape.hessian_product(x, w))


@every_system
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bits_do_not_depend_on_the_batch(system: Heisenberg, dtype: torch.dtype) -> None:
    n = 37
    landscape, x = system.landscape(n, dtype=dtype), points(system, n).to(dtype)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found, product = landscape.evaluate(x), landscape.hessian_product(x, v)
    assert found.energy.dtype == dtype and found.energy.shape == (n,) and landscape.segments.n_problems == n
    chosen = torch.tensor([5, 5, 36, 0, 11])
    part = landscape.select(chosen)
    _, rows = landscape.segments.select(chosen)
    again = part.evaluate(x[rows])
    assert torch.equal(again.energy, found.energy[chosen]) and torch.equal(again.force, found.force[rows])
    alone = system.landscape(1, dtype=dtype)
    size = system.lattice.n_spins
    for problem in range(n):
        own = slice(problem * size, (problem + 1) * size)
        one = alone.evaluate(x[own])
        assert torch.equal(one.energy, found.energy[problem : problem + 1])
        assert torch.equal(one.force, found.force[own])
        assert torch.equal(alone.hessian_product(x[own], v[own]), product[own])


def test_single_precision_is_the_same_number() -> None:
    system = SYSTEMS["cubic"]
    x = points(system, 4)
    double = system.landscape(4).evaluate(x)
    single = system.landscape(4, dtype=torch.float32).evaluate(x.float())
    torch.testing.assert_close(single.energy.double(), double.energy, rtol=0, atol=2e-4)
    torch.testing.assert_close(single.force.double(), double.force, rtol=0, atol=2e-5)


def test_exchange_does_not_change_in_a_rotation() -> None:
    system = Heisenberg(lattice=SYSTEMS["cubic"].lattice, exchange=[1.0, -0.5, 0.3])
    x = points(system)
    turn, _ = torch.linalg.qr(
        torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    )
    landscape = system.landscape()
    before, after = landscape.evaluate(x), landscape.evaluate(x @ turn.T)
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=1e-12)
    torch.testing.assert_close(after.force, before.force @ turn.T, rtol=0, atol=1e-12)
    other = SYSTEMS["cubic"].landscape()  # with a DM interaction and axes it does
    assert abs(float(other.evaluate(x).energy - other.evaluate(x @ turn.T).energy)) > 0.1


@pytest.mark.parametrize(
    "kind, repeat", [("chain", [7]), ("square", [4, 5]), ("hexagonal", [5, 3]), ("cubic", [3, 4, 2])]
)
@pytest.mark.parametrize("dmi_kind", ["bulk", "interfacial"])
def test_periodic_lattices_look_alike_from_every_cell(kind: Any, repeat: list[int], dmi_kind: Any) -> None:
    dmi = [0.0] if kind == "cubic" and dmi_kind == "interfacial" else [0.7]  # z is along bonds there
    system = Heisenberg(
        lattice=SpinLattice(kind=kind, repeat=repeat, periodic=True),
        exchange=[1.0, 0.3],
        dmi=dmi,
        dmi_kind=dmi_kind,
        anisotropy=[Anisotropy(axis=[1, 2, 3], k=0.2)],
        field=[1.0, 0.0, 5.0],
    )
    x, shape = points(system), (*system.lattice.shape[::-1], 3)
    landscape = system.landscape()
    before = landscape.evaluate(x)
    for dim in range(3):
        after = landscape.evaluate(x.reshape(shape).roll(1, dim).reshape(-1, 3))
        assert float(after.energy) == pytest.approx(float(before.energy), abs=1e-11)
        rolled = before.force.reshape(shape).roll(1, dim).reshape(-1, 3)
        torch.testing.assert_close(after.force, rolled, rtol=0, atol=1e-12)


def test_given_pairs_are_shells_by_another_name() -> None:
    lattice = SpinLattice(kind="square", repeat=[4, 3], periodic=[True, False])
    shells = Heisenberg(lattice=lattice, exchange=[1.5], dmi=[0.25])
    pairs = Heisenberg(
        lattice=lattice,
        pairs=[
            SpinPair(translation=[1, 0, 0], exchange=1.5, dmi=[0.25, 0, 0]),
            SpinPair(translation=[0, -1, 0], exchange=1.5, dmi=[0, -0.25, 0]),
        ],
    )
    x = points(shells)
    one, other = shells.landscape().evaluate(x), pairs.landscape().evaluate(x)
    torch.testing.assert_close(one.energy, other.energy, rtol=0, atol=1e-13)
    torch.testing.assert_close(one.force, other.force, rtol=0, atol=1e-13)
    half = Heisenberg(
        lattice=lattice, exchange=[0.75], pairs=[one.replace(exchange=0.75) for one in pairs.pairs]
    )
    torch.testing.assert_close(half.landscape().evaluate(x).force, one.force, rtol=0, atol=1e-13)


def test_a_dimer_of_two_kinds_of_atoms() -> None:
    lattice = SpinLattice(
        cell=np.diag([3.0, 1.0, 1.0]), basis=[[0, 0, 0], [0.3, 0, 0]], repeat=4, moments=[1.0, 2.0]
    )
    system = Heisenberg(lattice=lattice, exchange=[2.0, 0.5], field_energy=[0, 0, 0], field=[0, 0, 1 / MU_B])
    # 4 near bonds, 3 far ones, and moments of 12 in a field along z
    assert float(system.landscape().evaluate(Ferromagnet().spins(lattice)).energy) == pytest.approx(
        -8 - 1.5 - 12
    )
    assert lattice.label(5) == "site 5 (cell 2, 0, 0; atom 1)"


def test_pinned_spins_stay() -> None:
    system = Heisenberg(
        lattice=SpinLattice(kind="chain", repeat=8, pin_edges=True, pinned=[3]),
        exchange=1.0,
        field=[0, 0, 1.0],
        units="reduced",
    )
    landscape, x = system.landscape(2), points(system, 2)
    assert landscape.fixed is not None
    assert torch.nonzero(landscape.fixed).flatten().tolist() == [0, 3, 7, 8, 11, 15]
    assert landscape.select(torch.tensor([1])).fixed.tolist() == landscape.fixed[:8].tolist()  # type: ignore[union-attr]
    result = minimize(landscape, LBFGS(), x, force_calls=500, fmax=1e-8)
    assert result.converged.all()
    # every step normalises, so last bits may go
    torch.testing.assert_close(result.x[landscape.fixed], x[landscape.fixed], rtol=0, atol=1e-14)
    assert float((result.x - x)[~landscape.fixed].abs().min()) > 0
    assert float(landscape.hessian_product(x, torch.ones_like(x))[landscape.fixed].abs().max()) == 0.0


def test_units() -> None:
    lattice = SpinLattice(kind="chain", repeat=1, moments=3.0)
    field = {"lattice": lattice, "field": [0.0, 0.0, 2.0]}
    x = Ferromagnet().spins(lattice)
    assert float(Heisenberg(**field).landscape().evaluate(x).energy) == pytest.approx(-6.0 * 0.057883817555)
    reduced = Heisenberg(**field, units="reduced").landscape(2)
    assert float(reduced.evaluate(x.repeat(2, 1)).energy[1]) == -6.0 and reduced.units.reduced
    assert reduced.moments is not None and reduced.moments.tolist() == [3.0, 3.0]


def test_what_a_landscape_refuses() -> None:
    system = SYSTEMS["square"]
    landscape, x = system.landscape(2), points(system, 2)
    landscape.check(x)
    with pytest.raises(
        InputError, match=r"`x` must have shape \(38, 3\) for 2 problems of 19 spins, got \(19, 3\)"
    ):
        landscape.evaluate(x[:19])
    with pytest.raises(InputError, match=r"`x` must have shape \(38, 3\).*got \(2, 19, 3\)"):
        landscape.evaluate(x.reshape(2, 19, 3))
    with pytest.raises(InputError, match=r"`v` must have shape"):
        landscape.hessian_product(x, x[0])
    with pytest.raises(
        InputError, match=r"`x` is torch.float32 on cpu, the landscape torch.float64 on cpu; make both"
    ):
        landscape.evaluate(x.float())
    # spin 8 of the second problem is site 9, for site 7 is vacant
    for bad, length in ((0.0, "0"), (float("nan"), "nan"), (1.1, "1.1")):
        left = x.clone()
        left[19 + 8] = torch.tensor([0.0, bad, 0.0])
        with pytest.raises(
            InputError, match=rf"problem 1, site 9 \(cell 4, 1, 0\): .*has the length {length} instead of 1"
        ):
            landscape.check(left)
    with pytest.raises(InputError, match=r"`n_problems` is -1; it cannot be negative"):
        system.landscape(-1)
    none = system.landscape(0).evaluate(x[:0])
    assert none.energy.shape == (0,) and none.force.shape == (0, 3)


@pytest.mark.gpu
@every_system
def test_spins_on_a_gpu(system: Heisenberg) -> None:
    x = points(system, 5)
    v = tangents(system, x)
    here, there = system.landscape(5), system.landscape(5, device="cuda")
    one, other = here.evaluate(x), there.evaluate(x.cuda())
    torch.testing.assert_close(other.energy.cpu(), one.energy, rtol=0, atol=1e-11)
    torch.testing.assert_close(other.force.cpu(), one.force, rtol=0, atol=1e-11)
    product = there.hessian_product(x.cuda(), v.cuda())
    torch.testing.assert_close(product.cpu(), here.hessian_product(x, v), rtol=0, atol=1e-11)
